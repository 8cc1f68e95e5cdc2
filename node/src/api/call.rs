//! A request that was let in, and what is answered.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use fulmar_platform::registry::{ObjectId, Role};
use serde_json::{Map, Value};

use super::routes::Route;
use super::{Api, Fault};
use crate::operations::{Operations, Paging};

/// Elements of a page.
const LIMIT_MAX: usize = 50;

const LIMIT_DEFAULT: usize = 10;

const OFFSET_MAX: usize = 500;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Empty where nobody need be known.
    pub name: String,
    pub role: Role,
}

impl Caller {
    /// Of a call that anybody may make.
    #[must_use]
    pub fn nobody() -> Caller {
        Caller { name: String::new(), role: Role::Viewer }
    }
}

/// What a call is about, beside its parameters.
#[derive(Debug, Clone)]
pub enum Body {
    /// JSON as it came; empty for none.
    Text(Bytes),
    /// JSON that a door has read.
    Document(Value),
}

/// A request.
pub struct Call {
    pub(super) api: Arc<Api>,
    pub(super) peer: IpAddr,
    pub(super) caller: Caller,
    /// Parameters of the path, by name.
    path: Vec<(&'static str, String)>,
    query: Vec<(String, String)>,
    body: Body,
    /// Through which door it came, for the audit.
    pub(super) door: &'static str,
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    /// As HTTP counts it.
    pub status: u16,
    pub body: Option<Value>,
    pub headers: Vec<(&'static str, String)>,
    /// The id of what was made, for the audit.
    pub(super) about: Option<String>,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Result<Answer, Fault> {
        Ok(Answer { status: 200, body: Some(body), headers: Vec::new(), about: None })
    }

    pub(super) fn created(about: &str, body: Value) -> Result<Answer, Fault> {
        Ok(Answer { status: 201, body: Some(body), headers: Vec::new(), about: Some(about.to_owned()) })
    }

    /// Something that is named otherwise than by a path has changed.
    pub(super) fn changed(about: &str, body: Value) -> Result<Answer, Fault> {
        Ok(Answer { status: 200, body: Some(body), headers: Vec::new(), about: Some(about.to_owned()) })
    }

    pub(super) fn empty() -> Result<Answer, Fault> {
        Ok(Answer { status: 204, body: None, headers: Vec::new(), about: None })
    }
}

/// Who asks what, where.
impl Call {
    /// A call with parameters of its path, and of its query, decoded.
    #[must_use]
    pub fn new(
        api: Arc<Api>,
        peer: IpAddr,
        caller: Caller,
        path: Vec<(&'static str, String)>,
        query: Vec<(String, String)>,
        body: Body,
    ) -> Call {
        Call { api, peer, caller, path, query, body, door: "rest" }
    }

    /// The same, through another door than is taken for granted: `rest`, `grpc` (calls of documents) or `console`.
    #[must_use]
    pub fn through(self, door: &'static str) -> Call {
        Call { door, ..self }
    }

    /// A call as one document. Of a call that has a place in REST, members that REST has in its path or query stand
    /// beside `body`; any other call is its document.
    ///
    /// # Errors
    /// It is no object, or a parameter is neither text, number nor boolean.
    pub fn of_document(
        api: Arc<Api>,
        peer: IpAddr,
        caller: Caller,
        route: &'static Route,
        document: Value,
    ) -> Result<Call, Fault> {
        let Value::Object(mut members) = document else { return Err(Fault::format("The request is not an object.")) };
        let Some(http) = &route.http else {
            let body = Body::Document(Value::Object(members));
            return Ok(Call::new(api, peer, caller, Vec::new(), Vec::new(), body).through("grpc"));
        };
        let mut take = |name: &str| match members.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => Ok(Some(value.to_string())),
            Some(_) => Err(Fault::invalid(&format!("{name} must be text, a number, true or false"))),
        };
        let mut path = Vec::new();
        for name in http.params() {
            let value = match (name, take(name)?) {
                // The cluster has one, whose name only REST needs.
                ("project_id", given) => given.unwrap_or_else(|| api.settings.project_id.clone()),
                (_, given) => given.filter(|text| !text.is_empty()).ok_or_else(|| Fault::missing(name))?,
            };
            path.push((name, value));
        }
        let mut query = Vec::new();
        for name in http.query {
            query.extend(take(name)?.map(|value| ((*name).to_owned(), value)));
        }
        let body = members.remove("body").unwrap_or_else(|| Value::Object(Map::new()));
        if let Some(unknown) = members.keys().next() {
            return Err(Fault::invalid(&format!("{unknown} is no parameter of {}", route.name)));
        }
        Ok(Call::new(api, peer, caller, path, query, Body::Document(body)).through("grpc"))
    }

    /// What the path names, for the audit.
    pub(super) fn about(&self) -> String {
        let ids = self.path.iter().filter(|(name, _)| *name != "project_id").map(|(_, id)| id.as_str());
        ids.collect::<Vec<&str>>().join(" ")
    }

    pub(super) fn operations(&self) -> &Operations {
        &self.api.operations
    }

    /// A parameter of the path; the route names it.
    pub(super) fn param(&self, name: &str) -> &str {
        self.path.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// A parameter of the query; an empty one is not there.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(super) fn query_owned(&self, name: &str) -> Option<String> {
        self.query(name).map(str::to_owned)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.query(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Fault::invalid(&format!("{name} must be true or false"))),
        }
    }

    /// Milliseconds since 1970.
    pub(super) fn time(&self, name: &str) -> Result<Option<u64>, Fault> {
        let Some(text) = self.query(name) else { return Ok(None) };
        fulmar_platform::dialect::time::parse_compact(text)
            .map(|seconds| Some(seconds * 1000))
            .ok_or_else(|| Fault::time(name))
    }

    /// The body as JSON; one that is empty is an empty object.
    pub(super) fn json(&self) -> Result<Value, Fault> {
        self.document().map(Cow::into_owned)
    }

    /// As [`Call::json`], without a copy where there need be none.
    pub(super) fn document(&self) -> Result<Cow<'_, Value>, Fault> {
        match &self.body {
            Body::Document(document) => Ok(Cow::Borrowed(document)),
            Body::Text(text) if text.is_empty() => Ok(Cow::Owned(Value::Object(Map::new()))),
            Body::Text(text) => serde_json::from_slice(text)
                .map(Cow::Owned)
                .map_err(|error| Fault::format(&format!("The body is not JSON: {error}."))),
        }
    }

    pub(super) fn paging(&self) -> Result<Paging, Fault> {
        let number = |name: &str| self.query(name).map(str::parse::<usize>);
        let limit = match number("limit") {
            None => LIMIT_DEFAULT,
            Some(Ok(limit)) if (1..=LIMIT_MAX).contains(&limit) => limit,
            Some(_) => return Err(Fault::limit()),
        };
        let offset = match number("offset") {
            None => 0,
            Some(Ok(offset)) if offset <= OFFSET_MAX => offset,
            Some(_) => return Err(Fault::paging("offset must be a number from 0 to 500.")),
        };
        let marker = match self.query("marker") {
            None => ObjectId([0xff; 12]),
            Some(text) => {
                ObjectId::parse(text).ok_or_else(|| Fault::paging("marker must be 24 hexadecimal digits."))?
            }
        };
        Ok(Paging { limit, marker, offset })
    }
}

/// The end of a list's answer.
pub(super) fn page_json<T>(page: &crate::operations::Page<T>) -> Value {
    let mut json = serde_json::json!({ "count": page.count });
    if let Some(marker) = page.marker {
        json["marker"] = marker.to_string().into();
    }
    json
}
