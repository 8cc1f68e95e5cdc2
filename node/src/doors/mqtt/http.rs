//! HTTP: actix-web serves it on threads of its own, on streams that our listeners accepted. An upgrade to WebSocket, on
//! any path, becomes MQTT; the other services are given from outside, and a request reaches them only where its listener
//! has their role.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::HttpService;
use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_service::{Service, ServiceFactory, map_config};
use actix_web::dev::{AppConfig, ServiceRequest};
use actix_web::guard::GuardContext;
use actix_web::http::header;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpRequest, HttpResponse, web};
use futures_util::future::{Either, ready};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::accept::Door;
use super::admission::Permit;
use super::connection::Peer;
use super::quiet::Quiet;
use super::stream::{HttpStream, Stream};
use super::websocket;
use crate::config::listener::Protocol;
use crate::doors::{Arrival, Roles};
use crate::telemetry::metrics::Turned;

/// Connections that may wait for a worker thread.
const HANDED_OVER_MAX: usize = 1024;

/// A connection that asks for nothing is closed after this time.
const IDLE_MAX: Duration = Duration::from_secs(75);

/// Between two looks at a connection of a node that leaves: it is closed between two requests.
const LEAVING_LOOK: Duration = Duration::from_millis(50);

/// A connection as its requests know it.
pub(super) struct Came {
    pub door: Arc<Door>,
    pub peer: Peer,
    pub connect_by: Instant,
    /// Requests for services so far, and those of them that are being served.
    asked: AtomicU32,
    busy: AtomicU32,
    upgraded: AtomicBool,
    quiet: Quiet,
}

/// A request that is being served.
struct Serving(Arc<Came>);

impl Serving {
    fn begin(came: Arc<Came>) -> Serving {
        came.asked.fetch_add(1, Ordering::AcqRel);
        came.busy.fetch_add(1, Ordering::AcqRel);
        Serving(came)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer, which is served until its last byte was taken.
struct Held {
    body: BoxBody,
    _serving: Option<Serving>,
}

impl MessageBody for Held {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<actix_web::web::Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }

    fn try_into_bytes(self) -> Result<actix_web::web::Bytes, Self> {
        let Held { body, _serving } = self;
        body.try_into_bytes().map_err(|body| Held { body, _serving })
    }
}

impl std::fmt::Debug for Came {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Came").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Came {
    /// Whether what is written next begins with the answer to an upgrade.
    pub(super) fn upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    /// From here on the loop of the connection keeps the time.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    pub(super) fn quiet(&self) -> &Quiet {
        &self.quiet
    }

    /// A word about what is served here, where it is not what was asked for.
    fn nothing_here(&self) -> HttpResponse {
        if self.door.protocol() == Protocol::Http || self.door.roles() != Roles::default() {
            return HttpResponse::NotFound().finish();
        }
        HttpResponse::UpgradeRequired()
            .force_close()
            .insert_header((header::UPGRADE, "websocket"))
            .body("this port speaks MQTT over WebSocket, sub-protocol mqtt\n")
    }

    /// What is answered in place of the services, if this listener does not have the role that the path needs.
    fn refusal(&self, path: &str) -> Option<HttpResponse> {
        let roles = self.door.roles();
        let served = match path.split('/').find(|segment| !segment.is_empty()) {
            Some("v3" | "v5" | "openapi.json") => roles.api,
            Some("auth" | "device") => roles.device_auth,
            Some("console") => roles.console,
            _ if roles == Roles::default() => return Some(self.nothing_here()),
            _ => true,
        };
        (!served).then(|| HttpResponse::NotFound().force_close().finish())
    }
}

/// Adds services to those of each worker. A request finds its [`Arrival`] in the data of its connection.
pub type Configure = Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>;

/// Threads that run actix, each with its own single-threaded runtime.
#[derive(Clone)]
pub struct Workers {
    queues: Arc<[mpsc::Sender<HttpStream>]>,
    next: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("threads", &self.queues.len()).finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts `threads` workers, each with the services that `configure` adds. They end when the last handle is dropped.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(threads: usize, configure: Configure) -> io::Result<Workers> {
        let mut queues = Vec::new();
        for number in 0..threads.max(1) {
            let (queue, handed) = mpsc::channel(HANDED_OVER_MAX);
            let configure = configure.clone();
            std::thread::Builder::new()
                .name(format!("http-{number}"))
                .spawn(move || actix_rt::System::new().block_on(work(handed, configure)))?;
            queues.push(queue);
        }
        Ok(Workers { queues: queues.into(), next: Arc::default() })
    }

    /// Passes a connection on to a worker; with all of them behind, it is closed.
    pub(super) fn hand_over(&self, stream: Stream, door: Arc<Door>, peer: Peer, connect_by: Instant, permit: Permit) {
        let (asked, busy, upgraded, quiet) = Default::default();
        let came = Arc::new(Came { door, peer, connect_by, asked, busy, upgraded, quiet });
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        if self.queues[at].try_send(HttpStream::new(stream, permit, came.clone())).is_err() {
            came.door.turned_away(Turned::ConnectRate);
        }
    }
}

/// A worker's life: one actix service, and a task for each connection.
async fn work(mut handed: mpsc::Receiver<HttpStream>, configure: Configure) {
    let app = App::new()
        // First, so that no service takes the path of an upgrade.
        .service(web::resource("/{any:.*}").guard(actix_web::guard::fn_guard(upgrades)).to(websocket::upgrade))
        .configure(|services| configure(services))
        .default_service(web::to(nothing_here))
        .wrap_fn(|request, services| match enter(&request) {
            Err(response) => Either::Left(ready(Ok(request.into_response(*response)))),
            Ok(serving) => {
                let served = services.call(request);
                Either::Right(async move {
                    let response = served.await?;
                    Ok(response.map_body(|_, body| Held { body: BoxBody::new(body), _serving: serving }.boxed()))
                })
            }
        });
    let factory = HttpService::build()
        .keep_alive(IDLE_MAX)
        .client_request_timeout(Duration::from_secs(10))
        .client_disconnect_timeout(Duration::from_millis(500))
        .on_connect_ext(|stream: &HttpStream, data| {
            let came = stream.came();
            let Peer { address, encrypted, .. } = came.peer;
            data.insert(Arrival { peer: address, encrypted, roles: came.door.roles() });
            data.insert(came.clone());
        })
        .h1(map_config(app, |()| AppConfig::default()));
    let service = match factory.new_service(()).await {
        Ok(service) => std::rc::Rc::new(service),
        Err(()) => {
            tracing::error!("the HTTP service did not start");
            return;
        }
    };
    while let Some(stream) = handed.recv().await {
        let came = stream.came().clone();
        let address = came.peer.address;
        let served = service.call((stream, Some(address)));
        actix_rt::spawn(async move {
            let mut served = std::pin::pin!(served);
            let (mut by, mut seen) = (came.connect_by, 0);
            let mut stopped = came.door.stopped();
            let ended = loop {
                let leaving = *stopped.borrow_and_update();
                let idle = || came.busy.load(Ordering::Acquire) == 0;
                if leaving && idle() && !came.upgraded() {
                    return;
                }
                let look = if leaving { Instant::now() + LEAVING_LOOK } else { by };
                tokio::select! {
                    ended = &mut served => break ended,
                    changed = stopped.changed(), if !leaving => match changed {
                        Ok(()) => continue,
                        Err(_) => return, // the node has ended
                    },
                    () = tokio::time::sleep_until(look) => {}
                }
                if came.upgraded() {
                    break served.await; // the loop of the connection keeps the time
                }
                if leaving {
                    continue;
                }
                let asked = came.asked.load(Ordering::Acquire);
                if asked == seen && idle() {
                    if asked == 0 {
                        came.door.turned_away(Turned::NoConnect);
                    }
                    return;
                }
                // actix bounds the time without a byte, but that of a head only for the first request.
                seen = asked;
                by = Instant::now() + IDLE_MAX + came.door.connect_timeout();
            };
            if let Err(error) = ended {
                tracing::debug!(peer = %address, ?error, "HTTP connection ended");
            }
        });
    }
}

/// Whether a request is for MQTT over WebSocket.
fn upgrades(context: &GuardContext<'_>) -> bool {
    asks_for_websocket(context.head().headers())
}

fn asks_for_websocket(headers: &header::HeaderMap) -> bool {
    let mut asked = headers.get_all(header::UPGRADE).filter_map(|value| value.to_str().ok());
    asked.any(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case("websocket")))
}

/// Whether a request may go on to the services, or what it is answered instead.
fn enter(request: &ServiceRequest) -> Result<Option<Serving>, Box<HttpResponse>> {
    let Some(came) = request.conn_data::<Arc<Came>>() else {
        return Err(Box::new(HttpResponse::InternalServerError().finish()));
    };
    if came.door.protocol() != Protocol::Http && asks_for_websocket(request.headers()) {
        return Ok(None);
    }
    // The path as the services match it, percent-encoding undone.
    match came.refusal(request.match_info().as_str()) {
        Some(response) => Err(Box::new(response)),
        None => Ok(Some(Serving::begin(came.clone()))),
    }
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    match request.conn_data::<Arc<Came>>() {
        Some(came) => came.nothing_here(),
        None => HttpResponse::InternalServerError().finish(),
    }
}
