//! A WebSocket client that can cut, mask and mistype its frames. [RFC 6455]

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use super::SOON;

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A WebSocket after its upgrade.
pub(crate) struct WebSocket<S> {
    stream: S,
    input: BytesMut,
    /// The answer to the upgrade, byte for byte, up to and with the empty line.
    pub(crate) answer: Vec<u8>,
}

/// The request of an upgrade; the key is the RFC's sample, whose answer is known.
pub(crate) fn request(path: &str, protocol: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks for the upgrade and reads the answer, whatever it is.
    pub(crate) async fn ask(mut stream: S, path: &str, protocol: &str) -> WebSocket<S> {
        stream.write_all(request(path, protocol).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let byte = timeout(SOON, stream.read_u8()).await.expect("an answer to the upgrade");
            answer.push(byte.expect("a whole answer to the upgrade"));
        }
        WebSocket { stream, input: BytesMut::new(), answer }
    }

    /// As [`WebSocket::ask`], with sub-protocol `mqtt`; the upgrade must be granted.
    pub(crate) async fn open(stream: S) -> WebSocket<S> {
        let socket = WebSocket::ask(stream, "/mqtt", "mqtt").await;
        assert!(socket.answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&socket.answer));
        socket
    }

    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Sends one frame.
    pub(crate) async fn send(&mut self, last: bool, opcode: u8, payload: &[u8]) {
        self.stream.write_all(&frame(last, opcode, true, payload)).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next frame's opcode and payload; `None` if the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(SOON, next_frame(&mut self.stream, &mut self.input)).await.expect("a frame or the end in time")
    }

    /// Waits for the end; returns the frames before it.
    pub(crate) async fn ended(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> WebSocket<S> {
    /// The bytes inside: each write becomes one binary frame.
    pub(crate) fn into_stream(self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let (mut from_near, mut to_near) = tokio::io::split(far);
        let (mut read, mut write) = tokio::io::split(self.stream);
        let mut input = self.input;
        tokio::spawn(async move {
            while let Some((opcode, payload)) = next_frame(&mut read, &mut input).await {
                if matches!(opcode, BINARY | CONTINUATION) && to_near.write_all(&payload).await.is_err() {
                    break;
                }
            }
            let _ = to_near.shutdown().await;
        });
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = from_near.read(&mut buffer).await {
                if write.write_all(&frame(true, BINARY, true, &buffer[..count])).await.is_err() {
                    break;
                }
                let _ = write.flush().await;
            }
        });
        near
    }
}

/// A frame as a client sends it; without a mask only one that misbehaves does.
pub(crate) fn frame(last: bool, opcode: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut bytes = vec![u8::from(last) << 7 | opcode];
    let mask_bit = u8::from(masked) << 7;
    match payload.len() {
        length @ 0..=125 => bytes.push(mask_bit | length as u8),
        length @ 126..=65_535 => {
            bytes.push(mask_bit | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask_bit | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        bytes.extend(payload);
    }
    bytes
}

async fn next_frame(stream: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> Option<(u8, Vec<u8>)> {
    loop {
        if let Some(frame) = take_frame(input) {
            return Some(frame);
        }
        // A reset is an end too.
        if stream.read_buf(input).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

fn take_frame(input: &mut BytesMut) -> Option<(u8, Vec<u8>)> {
    let [first, second] = *input.first_chunk::<2>()?;
    assert_eq!(second & 0x80, 0, "a server masks nothing");
    let (header, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes(*input.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*input.get(2..)?.first_chunk()?)).unwrap()),
        short => (2, usize::from(short)),
    };
    if input.len() < header + length {
        return None;
    }
    input.advance(header);
    Some((first & 0x0F, input.split_to(length).to_vec()))
}

/// Time in which a node must notice a client that only trickles; see the listener's `connect_timeout` of 1 s.
pub(crate) const TRICKLE: Duration = Duration::from_millis(100);
