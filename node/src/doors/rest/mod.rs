//! The REST API in the form of Huawei's IoTDA, on actix-web: `/v3` signs in, `/v5` manages the registry, `/openapi.json`
//! describes both. Requests are matched against the table of calls. README.md beside this file is the reference. Absent
//! here: what a call does.

mod device_auth;
mod identity;
mod signature;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use percent_encoding::percent_decode_str;

use super::Arrival;
use crate::api::{self, Answer, Api, Body, Call, Caller, Fault, Found, Needs};
use crate::cluster::clock::wall_ms;
use crate::telemetry::spans;

/// Time for a request's body to come.
const BODY: Duration = Duration::from_secs(30);

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
    let parent = request.headers().get("traceparent").and_then(|parent| parent.to_str().ok());
    let outcome = spans::called(parent, answer(&api, &request, payload, &id)).await;
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
    let (route, path) = match api::find(request.method().as_str(), &segments) {
        Found::Route(route, _, path) => (route, path),
        Found::OtherMethods(methods) => return Err(Fault::method(&methods)),
        Found::Nothing => return Err(Fault::path()),
    };
    let body = read_body(request, payload, route.body_bytes_max()).await?;
    if !api.operations().serves() {
        return Err(crate::operations::Error::Unavailable.into());
    }
    let mut caller = Caller::nobody();
    if route.needs != Needs::Nothing {
        caller = identity::identify(api, request, &body, peer)?;
        let named = path.iter().find(|(name, _)| *name == "project_id").map(|(_, id)| id.as_str());
        if let Some(named) = named {
            let header = request.headers().get("x-project-id").and_then(|id| id.to_str().ok());
            if named != api.settings().project_id || header.is_some_and(|header| header != named) {
                return Err(Fault::forbidden("The project is not this cluster's."));
            }
        }
    }
    let query = read_query(request.uri().query().unwrap_or_default())?;
    api.answer(route, Call::new(api.clone(), peer, caller, path, query, Body::Text(body)), request_id).await
}

/// The parameters of a query, decoded.
fn read_query(query: &str) -> Result<Vec<(String, String)>, Fault> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query: Result<_, std::str::Utf8Error> =
        pairs.map(|(name, value)| Ok((decoded(name)?, decoded(value)?))).collect();
    query.map_err(|_| Fault::invalid("the query is not UTF-8"))
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
