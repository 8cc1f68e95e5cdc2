//! A request that was let in, and what is answered.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::web::Bytes;
use fulmar_platform::registry::ObjectId;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{Api, Fault};
use crate::operations::{Operations, Paging};

/// Elements of a page.
const LIMIT_MAX: usize = 50;

const LIMIT_DEFAULT: usize = 10;

const OFFSET_MAX: usize = 500;

/// A request.
pub(super) struct Call {
    pub(super) api: Arc<Api>,
    pub(super) peer: IpAddr,
    /// Who calls; empty where nobody need be known.
    pub(super) caller: String,
    /// Parameters of the path, by name.
    pub(super) path: Vec<(&'static str, String)>,
    query: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Option<Value>,
    pub(super) headers: Vec<(&'static str, String)>,
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

    pub(super) fn empty() -> Result<Answer, Fault> {
        Ok(Answer { status: 204, body: None, headers: Vec::new(), about: None })
    }
}

impl Call {
    pub(super) fn new(
        api: Arc<Api>,
        peer: IpAddr,
        path: Vec<(&'static str, String)>,
        query: &str,
        body: Bytes,
    ) -> Result<Call, Fault> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query: Result<_, std::str::Utf8Error> =
            pairs.map(|(name, value)| Ok((decoded(name)?, decoded(value)?))).collect();
        let query = query.map_err(|_| Fault::invalid("the query is not UTF-8"))?;
        Ok(Call { api, peer, caller: String::new(), path, query, body })
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
        if self.body.is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        serde_json::from_slice(&self.body).map_err(|error| Fault::format(&format!("The body is not JSON: {error}.")))
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
