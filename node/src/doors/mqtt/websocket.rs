//! MQTT over WebSocket: actix-web answers the upgrade on threads of its own, on streams that our listeners accepted;
//! the loop of a connection is the same as over TCP.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use actix_http::HttpService;
use actix_service::{Service, ServiceFactory, map_config};
use actix_web::dev::AppConfig;
use actix_web::http::header;
use actix_web::{App, HttpRequest, HttpResponse, web};
use actix_ws::{CloseCode, CloseReason, Item, Message as Frame, MessageStream, Session as FrameSink};
use bytes::BytesMut;
use fulmar_mqtt::limits::PACKET_BYTES_HARD_MAX;
use futures_util::Stream as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::accept::Door;
use super::admission::Permit;
use super::connection::{self, Peer};
use super::link::Link;
use super::stream::{HttpStream, Stream};
use crate::telemetry::metrics::Turned;

/// Connections that may wait for a worker thread.
const HANDED_OVER_MAX: usize = 1024;

/// Sub-protocols that MQTT clients ask for [v5 MQTT-6.0.0-3].
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Bytes of one frame's payload: the largest packet and a little more.
pub(super) const FRAME_BYTES_MAX: usize = PACKET_BYTES_HARD_MAX as usize + 64 * 1024;

/// What the upgrade needs to know of its connection.
struct Upgrade {
    door: Arc<Door>,
    peer: Peer,
    connect_by: Instant,
    upgraded: AtomicBool,
}

struct Handed {
    stream: HttpStream,
    upgrade: Arc<Upgrade>,
}

/// Threads that run actix, each with its own single-threaded runtime.
#[derive(Clone)]
pub struct Workers {
    queues: Arc<[mpsc::Sender<Handed>]>,
    next: Arc<std::sync::atomic::AtomicUsize>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("threads", &self.queues.len()).finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts `threads` workers. They end when the last handle is dropped.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(threads: usize) -> io::Result<Workers> {
        let mut queues = Vec::new();
        for number in 0..threads.max(1) {
            let (queue, handed) = mpsc::channel(HANDED_OVER_MAX);
            std::thread::Builder::new()
                .name(format!("http-{number}"))
                .spawn(move || actix_rt::System::new().block_on(work(handed)))?;
            queues.push(queue);
        }
        Ok(Workers { queues: queues.into(), next: Arc::default() })
    }

    /// Passes a connection on to a worker; with all of them behind, it is closed.
    pub(super) fn hand_over(&self, stream: Stream, door: Arc<Door>, peer: Peer, connect_by: Instant, permit: Permit) {
        let upgrade = Arc::new(Upgrade { door, peer, connect_by, upgraded: AtomicBool::new(false) });
        let at = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % self.queues.len();
        if self.queues[at]
            .try_send(Handed { stream: HttpStream::new(stream, permit), upgrade: upgrade.clone() })
            .is_err()
        {
            upgrade.door.turned_away(Turned::ConnectRate);
        }
    }
}

/// A worker's life: one actix service, and a task for each connection.
async fn work(mut handed: mpsc::Receiver<Handed>) {
    // The extensions of a connection are filled from its stream, which the service owns: the way in between is this.
    let arriving: std::rc::Rc<std::cell::RefCell<Option<Arc<Upgrade>>>> = std::rc::Rc::default();
    let arrived = arriving.clone();
    let app = App::new().default_service(web::to(upgrade));
    let factory = HttpService::build()
        .client_request_timeout(std::time::Duration::from_secs(10))
        .client_disconnect_timeout(std::time::Duration::from_millis(500))
        .on_connect_ext(move |_: &HttpStream, extensions| {
            if let Some(upgrade) = arrived.borrow_mut().take() {
                extensions.insert(upgrade);
            }
        })
        .h1(map_config(app, |()| AppConfig::default()));
    let service = match factory.new_service(()).await {
        Ok(service) => std::rc::Rc::new(service),
        Err(()) => {
            tracing::error!("the HTTP service did not start");
            return;
        }
    };
    while let Some(Handed { stream, upgrade }) = handed.recv().await {
        let address = upgrade.peer.address;
        *arriving.borrow_mut() = Some(upgrade.clone());
        // The connect callback runs inside this call, before the next connection is taken.
        let served = service.call((stream, Some(address)));
        actix_rt::spawn(async move {
            let mut served = std::pin::pin!(served);
            let ended = match tokio::time::timeout_at(upgrade.connect_by, &mut served).await {
                Ok(ended) => ended,
                // From the upgrade on, the loop of the connection keeps the time.
                Err(_) if upgrade.upgraded.load(Ordering::Acquire) => served.await,
                Err(_) => {
                    upgrade.door.turned_away(Turned::NoConnect);
                    return;
                }
            };
            if let Err(error) = ended {
                tracing::debug!(peer = %address, ?error, "HTTP connection ended");
            }
        });
    }
}

/// Any path: the upgrade to MQTT, or a word about what is served here.
async fn upgrade(request: HttpRequest, body: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    let Some(upgrade) = request.conn_data::<Arc<Upgrade>>().cloned() else {
        return Ok(HttpResponse::InternalServerError().finish());
    };
    if !request.headers().contains_key(header::UPGRADE) {
        return Ok(HttpResponse::UpgradeRequired()
            .force_close()
            .insert_header((header::UPGRADE, "websocket"))
            .body("this port speaks MQTT over WebSocket, sub-protocol mqtt\n"));
    }
    let (response, sink, frames) = actix_ws::handle_with_protocols(&request, body, &PROTOCOLS)?;
    let asked = request.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    if asked && !response.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return Ok(HttpResponse::BadRequest().body("none of the sub-protocols is mqtt or mqttv3.1\n"));
    }
    let link = WebSocket { sink: Some(sink), frames: frames.max_frame_size(FRAME_BYTES_MAX), sending: None };
    upgrade.upgraded.store(true, Ordering::Release);
    actix_rt::spawn(async move {
        connection::serve(link, &upgrade.door, upgrade.peer.clone(), upgrade.connect_by).await;
    });
    Ok(response)
}

type Sending = Pin<Box<dyn Future<Output = Result<(), actix_ws::Closed>>>>;

/// The stream of bytes inside binary frames, however they are cut.
struct WebSocket {
    sink: Option<FrameSink>,
    frames: MessageStream,
    sending: Option<Sending>,
}

impl WebSocket {
    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(sending) = &mut self.sending {
            let sent = ready!(sending.as_mut().poll(cx));
            self.sending = None;
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Poll::Ready(Ok(()))
    }

    fn begin<F>(&mut self, send: impl FnOnce(FrameSink) -> F)
    where
        F: Future<Output = Result<(), actix_ws::Closed>> + 'static,
    {
        if let Some(sink) = &self.sink {
            self.sending = Some(Box::pin(send(sink.clone())));
        }
    }
}

impl Link for WebSocket {
    /// Up to 32 writes wait in the channel to the socket.
    const WRITE_BYTES_MAX: usize = 16 * 1024;

    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.frames).poll_next(cx)) {
                None | Some(Ok(Frame::Close(_))) => return Poll::Ready(Ok(0)),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
                Some(Ok(frame)) => frame,
            };
            let bytes = match frame {
                Frame::Binary(bytes) => bytes,
                Frame::Continuation(Item::FirstBinary(bytes) | Item::Continue(bytes) | Item::Last(bytes)) => bytes,
                Frame::Ping(bytes) => {
                    // A ping that comes while something is being sent is answered by that.
                    if self.poll_sending(cx).is_ready() {
                        self.begin(|mut sink| async move { sink.pong(&bytes).await });
                        let _ = self.poll_sending(cx)?;
                    }
                    continue;
                }
                Frame::Pong(_) | Frame::Nop | Frame::Close(_) => continue,
                // [v5 MQTT-6.0.0-1] only binary frames carry MQTT.
                Frame::Text(_) | Frame::Continuation(Item::FirstText(_)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "text frame")));
                }
            };
            if !bytes.is_empty() {
                buffer.extend_from_slice(&bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, out: &mut BytesMut) -> Poll<io::Result<()>> {
        ready!(self.poll_sending(cx))?;
        if !out.is_empty() {
            let bytes = out.split().freeze();
            self.begin(|mut sink| async move { sink.binary(bytes).await });
        }
        self.poll_sending(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sending(cx))?;
        if let Some(sink) = self.sink.take() {
            let reason = CloseReason { code: CloseCode::Normal, description: None };
            self.sending = Some(Box::pin(sink.close(Some(reason))));
        }
        self.poll_sending(cx)
    }
}
