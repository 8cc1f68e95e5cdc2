//! MQTT over WebSocket: the upgrade, and the stream of bytes inside the frames. The loop of a connection is the same as
//! over TCP.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_ws::{CloseCode, CloseReason, Item, Message as Frame, MessageStream, ProtocolError, Session as FrameSink};
use bytes::BytesMut;
use fulmar_mqtt::limits::PACKET_BYTES_HARD_MAX;
use futures_util::Stream as _;
use tokio::time::Instant;

use super::connection;
use super::http::Came;
use super::link::Link;
use crate::config::listener::Protocol;

/// Sub-protocols that MQTT clients ask for [v5 MQTT-6.0.0-3].
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// A CONNECT may take this long after its upgrade, however late that comes on its connection.
const UPGRADED_CONNECT_MIN: Duration = Duration::from_secs(1);

/// Bytes of one frame's payload: the largest packet and a little more.
pub(super) const FRAME_BYTES_MAX: usize = PACKET_BYTES_HARD_MAX as usize + 64 * 1024;

/// The upgrade to MQTT.
pub(super) async fn upgrade(request: HttpRequest, body: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    let Some(came) = request.conn_data::<Arc<Came>>().cloned() else {
        return Ok(HttpResponse::InternalServerError().finish());
    };
    if came.door.protocol() == Protocol::Http {
        return Ok(HttpResponse::NotFound().finish());
    }
    let (response, sink, frames) = actix_ws::handle_with_protocols(&request, body, &PROTOCOLS)?;
    let asked = request.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    if asked && !response.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return Ok(HttpResponse::BadRequest().body("none of the sub-protocols is mqtt or mqttv3.1\n"));
    }
    came.upgrade();
    let frames = frames.max_frame_size(FRAME_BYTES_MAX);
    let link = WebSocket { sink: Some(sink), frames, sending: None, came: came.clone() };
    let mut peer = came.peer.clone();
    peer.host = host(&request).or(peer.host);
    // The time may have passed with requests before this one.
    let connect_by = came.connect_by.max(Instant::now() + UPGRADED_CONNECT_MIN);
    actix_rt::spawn(async move {
        connection::serve(link, &came.door, peer, connect_by).await;
    });
    Ok(response)
}

/// The name in the request's `Host`, without port.
fn host(request: &HttpRequest) -> Option<Box<str>> {
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    Some(without_port(host)).filter(|host| !host.is_empty()).map(Into::into)
}

/// Of an IPv6 address in brackets nothing but the address is left.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

type Sending = Pin<Box<dyn Future<Output = Result<(), actix_ws::Closed>>>>;

/// The stream of bytes inside binary frames, however they are cut.
struct WebSocket {
    sink: Option<FrameSink>,
    frames: MessageStream,
    sending: Option<Sending>,
    came: Arc<Came>,
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
                // The socket has ended. What came before its end is still to be decoded; then the stream ends.
                Some(Err(ProtocolError::Io(error))) if error.kind() == io::ErrorKind::Other => continue,
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

    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.came.quiet().poll(cx)
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
