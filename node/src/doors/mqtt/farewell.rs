//! The end of a connection that the peer is to hear of.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use fulmar_mqtt::packet::{ConnAck, ConnAckProperties};
use fulmar_mqtt::{Decoder, Packet, ReasonCode, Version, encode};

use super::link::Link;

/// Time that a peer has to take the last bytes, and then to end its side.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// In which version a failed CONNECT is answered, if at all: 3.x knows codes only for two failures of form.
pub(super) fn answer_version(decoder: &Decoder, reason: ReasonCode) -> Option<Version> {
    let has_code = matches!(reason, ReasonCode::UnsupportedProtocolVersion | ReasonCode::ClientIdentifierNotValid);
    Some(decoder.refusal_version()).filter(|version| *version == Version::V5 || has_code)
}

/// Sends a CONNACK that says no, and closes.
pub(super) async fn refuse<L: Link>(link: &mut L, version: Option<Version>, reason: ReasonCode) {
    let mut out = BytesMut::new();
    if let Some(version) = version {
        let properties = ConnAckProperties::default();
        let connack = Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties }));
        if let Err(error) = encode(&connack, version, &mut out) {
            tracing::error!(%error, "CONNACK not sent");
        }
    }
    let said = async {
        poll_fn(|cx| link.poll_send(cx, &mut out)).await?;
        say_goodbye(link).await
    };
    // The peer may be gone already; there is nothing left to do for it.
    let _ = tokio::time::timeout(FAREWELL, said).await;
}

/// Ends our side, then reads to the end of theirs: a socket closed with unread bytes would be reset, and the peer's
/// system would throw away the reason that it has just been sent.
pub(super) async fn say_goodbye<L: Link>(link: &mut L) -> io::Result<()> {
    poll_fn(|cx| link.poll_close(cx)).await?;
    let mut ignored = BytesMut::new();
    while poll_fn(|cx| link.poll_recv(cx, &mut ignored)).await? > 0 {
        ignored.clear();
    }
    Ok(())
}
