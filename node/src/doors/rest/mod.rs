//! The REST API in the form of Huawei's IoTDA, on actix-web: `/v3` signs in, `/v5` manages the registry, `/openapi.json`
//! describes both. One table names every route; requests are matched against it, and the document is made from it.
//! README.md beside this file is the reference. Absent here: what an operation does, which is `operations`' business.

mod apps;
mod attempts;
mod authorities;
mod batch_tasks;
mod call;
mod commands;
mod device_auth;
mod devices;
mod fault;
mod iam;
mod identity;
mod messages;
mod openapi;
mod pace;
mod people;
mod products;
mod recent;
mod routes;
mod rules;
mod sensoro;
mod settings;
mod shadows;
mod signature;
mod token;
mod verify;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use fulmar_platform::Secret;
use percent_encoding::percent_decode_str;

use super::Arrival;
use crate::cluster::clock::wall_ms;
use crate::operations::Operations;
use call::{Answer, Call};
use fault::Fault;
use routes::{Found, Needs};
pub use settings::Settings;
use verify::Verifier;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Of one that names many devices.
const LONG_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Time for a request's body to come.
const BODY: Duration = Duration::from_secs(30);

/// The REST API of a node.
pub struct Api {
    operations: Operations,
    settings: Settings,
    verifier: Verifier,
    registrations: pace::Pace,
    /// What a password is verified against where there is no such user, so that time does not tell who exists.
    decoy: Secret,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// # Errors
    /// No password can be hashed.
    pub fn new(operations: Operations, settings: Settings) -> anyhow::Result<Arc<Api>> {
        let nobodys: u128 = rand::random();
        let decoy = Secret::new(&crate::operations::hash_password(&nobodys.to_string())?);
        let verifier = Verifier::new(settings.sign_in);
        Ok(Arc::new(Api { operations, settings, verifier, registrations: pace::Pace::new(), decoy }))
    }
}

/// What adds the API's services to a worker.
#[must_use]
pub fn configure(api: Arc<Api>) -> Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync> {
    Arc::new(move |services| {
        let service = |api: Arc<Api>| move |request, payload| serve(api.clone(), request, payload);
        for path in ["/v3", "/v3/{tail:.*}", "/v5", "/v5/{tail:.*}", "/openapi.json"] {
            services.service(web::resource(path).to(service(api.clone())));
        }
        device_auth::configure(&api, services);
    })
}

/// A request from its head to its answer.
async fn serve(api: Arc<Api>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let id = uuid::Uuid::new_v4().to_string();
    let outcome = answer(&api, &request, payload, &id).await;
    let (status, close) = match &outcome {
        Ok(answer) => (answer.status, false),
        Err(fault) => (fault.status, fault.closes),
    };
    let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    response.insert_header(("X-Request-Id", id));
    if close {
        response.insert_header((CONNECTION, HeaderValue::from_static("close"))).force_close();
    }
    let (body, headers) = match outcome {
        Ok(answer) => (answer.body, answer.headers),
        Err(fault) => (Some(fault.body()), fault.headers),
    };
    for (name, value) in headers {
        response.insert_header((name, value));
    }
    match body {
        Some(body) => response.insert_header((CONTENT_TYPE, "application/json")).body(body.to_string()),
        None => response.finish(),
    }
}

async fn answer(
    api: &Arc<Api>,
    request: &HttpRequest,
    payload: web::Payload,
    request_id: &str,
) -> Result<Answer, Fault> {
    let arrival = request.conn_data::<Arrival>().copied();
    let peer = arrival.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |arrival| arrival.peer.ip());
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
    let segments: Result<Vec<String>, _> = request.uri().path().split('/').skip(1).map(decoded).collect();
    let segments = segments.map_err(|_| Fault::invalid("the path is not UTF-8"))?;
    let (route, path) = match routes::find(request.method().as_str(), &segments) {
        Found::Route(route, path) => (route, path),
        Found::OtherMethods(methods) => return Err(Fault::method(&methods)),
        Found::Nothing => return Err(Fault::path()),
    };
    let body = read_body(request, payload, route.body_bytes_max()).await?;
    if !api.operations.serves() {
        return Err(crate::operations::Error::Unavailable.into());
    }
    let mut call = Call::new(api.clone(), peer, path, request.uri().query().unwrap_or_default(), body)?;
    if let Needs::Role(role) = route.needs {
        let caller = identity::identify(api, request, &call.body, peer)?;
        let named = call.path.iter().find(|(name, _)| *name == "project_id").map(|(_, id)| id.as_str());
        if let Some(named) = named {
            let header = request.headers().get("x-project-id").and_then(|id| id.to_str().ok());
            if named != api.settings.project_id || header.is_some_and(|header| header != named) {
                return Err(Fault::forbidden("The project is not this cluster's."));
            }
        }
        if caller.role < role {
            return Err(Fault::forbidden(&format!("The role of {} does not allow this.", caller.name)));
        }
        call.caller = caller.name;
    }
    let (changes, caller) = (request.method() != "GET" && route.audited, call.caller.clone());
    let about: Vec<String> = call.path.iter().skip(1).map(|(_, id)| id.clone()).collect();
    let outcome = (route.handler)(call).await;
    if changes {
        let made = outcome.as_ref().ok().and_then(|answer| answer.about.clone());
        let (status, code) = match &outcome {
            Ok(answer) => (answer.status, ""),
            Err(fault) => (fault.status, fault.code),
        };
        let about = made.unwrap_or_else(|| about.join(" "));
        tracing::info!(user = caller, %peer, operation = route.name, about, status, code, request_id, "registry changed by REST");
    }
    outcome
}

async fn read_body(request: &HttpRequest, payload: web::Payload, bytes_max: usize) -> Result<web::Bytes, Fault> {
    let length = request.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > bytes_max) {
        return Err(Fault::oversize(bytes_max));
    }
    match tokio::time::timeout(BODY, payload.to_bytes_limited(bytes_max)).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(_))) => Err(Fault::format("The body cannot be read.")),
        Ok(Err(_)) => Err(Fault::oversize(bytes_max)),
        Err(_) => Err(Fault::slow()),
    }
}

/// Milliseconds since 1970, as clients know the time.
fn now_ms() -> u64 {
    wall_ms()
}
