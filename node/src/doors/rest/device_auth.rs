//! Where devices get their credentials over HTTP: Aliyun's pre-authentication and registration, Tencent's registration.
//! What is answered is decided by the dialects; here it is read, committed and sent.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use fulmar_platform::dialect::{HttpAnswer, aliyun, tencent};
use fulmar_platform::registry::Registry;

use super::{Arrival, now_ms};
use crate::api::Api;

/// Bytes of a device's request.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a device's name that is logged.
const NAME_BYTES_MAX: usize = 128;

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
    encrypted || api.settings().aliyun.plain_auth
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
    if !api.operations().serves() {
        return json(200, aliyun::http::failed());
    }
    let form = fields(&body.unwrap_or_default());
    // A copy shares everything, so that nobody who applies entries waits for it.
    let registry = api.operations().read(Registry::clone);
    json(200, aliyun::http::pre_authenticate(&form, &registry, &api.settings().aliyun, now_ms()))
}

async fn register_aliyun(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    if !guarded(&api, &request) {
        return json(403, aliyun::http::plain());
    }
    let form = fields(&read(payload).await.unwrap_or_default());
    let registry = api.operations().read(Registry::clone);
    let asks = Asks::of(&request, aliyun::http::named(&form), &registry);
    if !asks.may(&api) {
        return json(200, aliyun::http::throttled());
    }
    let answer = aliyun::http::register(&form, &registry, now_ms(), rand::random());
    json(200, committed(&api, &asks, answer, aliyun::http::failed).await)
}

async fn register_tencent(api: web::Data<Api>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let body = read(payload).await.unwrap_or_default();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let host = header("host").unwrap_or_default();
    let (registry, entropy) = (api.operations().read(Registry::clone), rand::random());
    let named = tencent::http::named(&body);
    let named = named.as_ref().map(|(product, device)| (product.as_str(), device.as_str()));
    let asks = Asks::of(&request, named, &registry);
    if !asks.may(&api) {
        return json(200, tencent::http::throttled(entropy));
    }
    let answer = tencent::http::register(&host, &header, &body, &registry, now_ms(), entropy);
    json(200, committed(&api, &asks, answer, || tencent::http::not_committed(entropy)).await)
}

/// Who asks to be registered. Of a product that is not there, nothing is said: it is whatever somebody has written.
struct Asks {
    product: String,
    device: String,
    peer: IpAddr,
}

impl Asks {
    fn of(request: &HttpRequest, named: Option<(&str, &str)>, registry: &Registry) -> Asks {
        let arrival = request.conn_data::<Arrival>();
        let peer = arrival.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |arrival| arrival.peer.ip());
        let known = named.filter(|(product, _)| registry.product(product).is_some());
        let (product, device) = known.unwrap_or_default();
        let shown = device.len() <= NAME_BYTES_MAX;
        Asks { product: product.to_owned(), device: if shown { device } else { "" }.to_owned(), peer }
    }

    /// Whether it is not too often.
    fn may(&self, api: &Api) -> bool {
        let may = api.may_register(&self.product, self.peer);
        if !may {
            tracing::debug!(product = self.product, peer = %self.peer, "registrations come too fast");
        }
        may
    }
}

/// The answer, once what it depends on is committed; the device may then come to any node with what it was told.
async fn committed(api: &Api, asks: &Asks, answer: HttpAnswer, failed: impl FnOnce() -> String) -> String {
    let Asks { product, device, peer } = asks;
    if !api.operations().serves() {
        return failed();
    }
    if !answer.granted {
        tracing::info!(product, device, %peer, "a device was refused its registration");
        return answer.body;
    }
    let new = !answer.changes.is_empty();
    match api.operations().apply(answer.changes).await {
        Ok(()) => {
            tracing::info!(product, device, %peer, new, "a device was given its secret");
            answer.body
        }
        Err(error) => {
            tracing::warn!(product, device, %peer, %error, "a device could not register itself");
            failed()
        }
    }
}
