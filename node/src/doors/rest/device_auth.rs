//! Where devices get their credentials over HTTP: Aliyun's pre-authentication and registration, Tencent's registration.
//! What is answered is decided by the dialects; here it is read, committed and sent.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use fulmar_platform::dialect::{HttpAnswer, aliyun, tencent};

use super::{Api, Arrival, now_ms};

/// Bytes of a device's request.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Fields of a form that are read.
const FIELDS_MAX: usize = 32;

const BODY: Duration = Duration::from_secs(10);

/// Adds the services to a worker.
pub(super) fn configure(api: &Arc<Api>, services: &mut web::ServiceConfig) {
    let with = |api: &Arc<Api>| web::Data::from(api.clone());
    for (path, handler) in [
        ("/auth/devicename", web::post().to(pre_authenticate)),
        ("/auth/register/device", web::post().to(register_aliyun)),
        ("/device/register", web::post().to(register_tencent)),
    ] {
        services.service(web::resource(path).app_data(with(api)).route(handler));
    }
}

fn json(status: u16, body: String) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).unwrap_or_default();
    HttpResponse::build(status).insert_header((CONTENT_TYPE, "application/json; charset=utf-8")).body(body)
}

async fn read(payload: web::Payload) -> Option<web::Bytes> {
    let read = tokio::time::timeout(BODY, payload.to_bytes_limited(BODY_BYTES_MAX)).await;
    read.ok()?.ok()?.ok()
}

/// Whether Aliyun's requests are answered on this connection.
fn guarded(api: &Api, request: &HttpRequest) -> bool {
    let encrypted = request.conn_data::<Arrival>().is_some_and(|arrival| arrival.encrypted);
    encrypted || api.settings.aliyun.plain_auth
}

/// The fields of a form, whatever character set it says it is in: all of them are ASCII.
fn fields(body: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(body).take(FIELDS_MAX).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

async fn pre_authenticate(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    if !guarded(&api, &request) {
        return json(403, aliyun::http::plain());
    }
    let body = read(payload).await;
    if !api.operations.serves() {
        return json(200, aliyun::http::failed());
    }
    let form = fields(&body.unwrap_or_default());
    let now_ms = now_ms();
    let answer =
        api.operations.read(|registry| aliyun::http::pre_authenticate(&form, registry, &api.settings.aliyun, now_ms));
    json(200, answer)
}

async fn register_aliyun(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    if !guarded(&api, &request) {
        return json(403, aliyun::http::plain());
    }
    let form = fields(&read(payload).await.unwrap_or_default());
    let (now_ms, entropy) = (now_ms(), rand::random());
    let answer = api.operations.read(|registry| aliyun::http::register(&form, registry, now_ms, entropy));
    json(200, committed(&api, answer, aliyun::http::failed).await)
}

async fn register_tencent(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let body = read(payload).await.unwrap_or_default();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let host = header("host").unwrap_or_default();
    let (now_ms, entropy) = (now_ms(), rand::random());
    let answer =
        api.operations.read(|registry| tencent::http::register(&host, &header, &body, registry, now_ms, entropy));
    json(200, committed(&api, answer, || tencent::http::not_committed(entropy)).await)
}

/// The answer, once what it depends on is committed; the device may then come to any node with what it was told.
async fn committed(api: &Api, answer: HttpAnswer, failed: impl FnOnce() -> String) -> String {
    if !api.operations.serves() {
        return failed();
    }
    let registers = !answer.changes.is_empty();
    match api.operations.apply(answer.changes).await {
        Ok(()) => {
            if registers {
                tracing::info!("a device has registered itself");
            }
            answer.body
        }
        Err(error) => {
            tracing::warn!(%error, "a device could not register itself");
            failed()
        }
    }
}
