//! The web console at `/console`: its files, which are part of the program; a session in a cookie; and every call of the
//! table, as JSON and as events of a stream. What may be loaded, connected to and framed is said by a strict policy, and
//! nothing is changed by a request that another site has caused. Absent here: what a call does, and MQTT over WebSocket.

mod assets;
mod guard;
mod session;
mod stream;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::Arrival;
use crate::api::{self, Answer, Api, Call, Fault};
use crate::telemetry::Metrics;
use stream::Form;

/// Time for a request's body to come.
const BODY: Duration = Duration::from_secs(30);

/// What the requests of a node share.
struct Console {
    api: Arc<Api>,
    metrics: Arc<Metrics>,
    /// Streams that are open.
    streams: Arc<AtomicUsize>,
}

/// What adds the console's services to a worker.
#[must_use]
pub fn configure(api: Arc<Api>, metrics: Arc<Metrics>) -> Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync> {
    let console = Arc::new(Console { api, metrics, streams: Arc::default() });
    Arc::new(move |services| {
        for path in ["/console", "/console/{tail:.*}"] {
            let console = console.clone();
            let service = move |request, payload| serve(console.clone(), request, payload);
            services.service(web::resource(path).to(service));
        }
    })
}

/// Why a request is not served, beside what a call says.
enum Refused {
    /// Nobody is signed in.
    Nobody,
    /// It may come from another site.
    Foreign,
    NotFound,
    /// What the path takes.
    Method(&'static str),
    Busy,
    Bad(Fault),
}

impl Refused {
    fn response(self) -> HttpResponse {
        let said = |status: u16, message: &str| {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            HttpResponse::build(status).json(json!({ "error_msg": message }))
        };
        match self {
            Refused::Nobody => said(401, "Nobody is signed in."),
            Refused::Foreign => said(403, "The request does not come from the console."),
            Refused::NotFound => said(404, "There is no such path."),
            Refused::Method(allowed) => {
                let mut response = said(405, &format!("The path takes only {allowed}."));
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
                response
            }
            Refused::Busy => said(503, "Too many streams are open."),
            Refused::Bad(fault) => {
                let closes = fault.closes;
                let mut response = said(fault.status, fault.message());
                if closes {
                    response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
                }
                response
            }
        }
    }
}

/// A request from its head to its answer.
async fn serve(console: Arc<Console>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let mut response = match answer(&console, &request, payload).await {
        Ok(response) => response,
        Err(refused) => refused.response(),
    };
    let sockets = console.api.settings().access.sockets();
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let policy = guard::policy(host.unwrap_or_default(), &sockets);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in guard::HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

async fn answer(console: &Console, request: &HttpRequest, payload: web::Payload) -> Result<HttpResponse, Refused> {
    let path = request.path().strip_prefix("/console").unwrap_or_default();
    let method = request.method().as_str();
    if path.is_empty() {
        return Ok(HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/console/")).finish());
    }
    if path == "/session" {
        return match method {
            "GET" => Ok(session::show(console, request)),
            "POST" => {
                guard::own(request)?;
                session::sign_in(console, request, &read(payload, guard::SIGN_IN_BYTES_MAX).await?).await
            }
            "DELETE" => guard::own(request).map(|()| session::sign_out(request)),
            _ => Err(Refused::Method("GET, POST, DELETE")),
        };
    }
    if let Some(name) = path.strip_prefix("/api/") {
        if method != "POST" {
            return Err(Refused::Method("POST"));
        }
        guard::own(request)?;
        return called(console, request, payload, name).await;
    }
    if let Some(name) = path.strip_prefix("/stream/") {
        if method != "GET" {
            return Err(Refused::Method("GET"));
        }
        guard::same_site(request)?;
        return stream::open(console, request, name, Form::Events);
    }
    if let Some(name) = path.strip_prefix("/download/") {
        if method != "GET" {
            return Err(Refused::Method("GET"));
        }
        guard::same_site(request)?;
        return stream::open(console, request, name, Form::File);
    }
    if !matches!(method, "GET" | "HEAD") {
        return Err(Refused::Method("GET, HEAD"));
    }
    assets::serve(path, request).ok_or(Refused::NotFound)
}

/// A call that is answered once. The status of HTTP is 200 whatever the call says, whose own status is in the document:
/// that a rule has a mistake in it is an answer, and no failure of the page.
async fn called(
    console: &Console,
    request: &HttpRequest,
    payload: web::Payload,
    name: &str,
) -> Result<HttpResponse, Refused> {
    let route = api::named(name).ok_or(Refused::NotFound)?;
    let caller = session::caller(console, request).ok_or(Refused::Nobody)?;
    let body = read(payload, route.body_bytes_max()).await?;
    let document: Value = if body.is_empty() {
        json!({})
    } else {
        let wrong = |error| Refused::Bad(Fault::format(&format!("The body is not JSON: {error}.")));
        serde_json::from_slice(&body).map_err(wrong)?
    };
    let id = uuid::Uuid::new_v4().to_string();
    let outcome = match Call::of_document(console.api.clone(), peer(request), caller, route, document) {
        Ok(call) => console.api.answer(route, call.through("console"), &id).await,
        Err(fault) => Err(fault),
    };
    Ok(HttpResponse::Ok().insert_header(("X-Request-Id", id)).json(document_of(outcome)))
}

/// What came of a call: its status, and what it says or what is wrong.
fn document_of(outcome: Result<Answer, Fault>) -> Value {
    match outcome {
        Ok(answer) => json!({ "status": answer.status, "body": answer.body }),
        Err(fault) => fault_of(&fault),
    }
}

fn fault_of(fault: &Fault) -> Value {
    json!({ "status": fault.status, "fault": { "error_code": fault.code, "error_msg": fault.message() } })
}

fn arrival(request: &HttpRequest) -> Option<Arrival> {
    request.conn_data::<Arrival>().copied()
}

fn peer(request: &HttpRequest) -> IpAddr {
    arrival(request).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |arrival| arrival.peer.ip())
}

async fn read(payload: web::Payload, bytes_max: usize) -> Result<web::Bytes, Refused> {
    let fault = match tokio::time::timeout(BODY, payload.to_bytes_limited(bytes_max)).await {
        Ok(Ok(Ok(body))) => return Ok(body),
        Ok(Ok(Err(_))) => Fault::format("The body cannot be read."),
        Ok(Err(_)) => Fault::oversize(bytes_max),
        Err(_) => Fault::slow(),
    };
    Err(Refused::Bad(fault))
}
