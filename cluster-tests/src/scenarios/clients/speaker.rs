//! A publisher with a persistent session and one message at a time: what was not acknowledged it sees through elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fulmar_mqtt::Version;
use tokio::time::{Instant, sleep};

use super::voice::{Kept, Voice};
use super::{Shared, Topic};

/// Between two tries to connect.
const BETWEEN: Duration = Duration::from_millis(20);

/// How long one message may take, over all connections.
const MESSAGE: Duration = Duration::from_secs(60);

/// Publishes until the end is announced.
pub(super) async fn run(
    shared: Arc<Shared>,
    client_id: String,
    topics: Vec<Arc<Topic>>,
    pause: Duration,
) -> Result<()> {
    let (mut voice, mut attempt): (Option<Voice>, usize) = (None, 0);
    // Of the session; `None` until there is one.
    let mut kept: Option<Kept> = None;
    for topic in topics.iter().cycle() {
        if shared.ending.load(Ordering::SeqCst) {
            break;
        }
        let (number, begun) = (topic.number(), Instant::now());
        loop {
            let mut speaking = match voice.take() {
                Some(speaking) => speaking,
                None => {
                    let connect = shared.connect(Version::V5, &client_id, true);
                    match Voice::connect(&shared.history, shared.doors.at(attempt), connect, shared.patience).await {
                        Ok((mut speaking, connack)) => {
                            if let Some(kept) = kept.take() {
                                ensure!(connack.session_present, "{client_id}: its session is gone");
                                speaking.kept = kept;
                            }
                            speaking
                        }
                        Err(error) if begun.elapsed() > MESSAGE => {
                            return Err(error).context(format!("{client_id} gets nothing published"));
                        }
                        Err(_) => {
                            attempt += 1;
                            sleep(BETWEEN).await;
                            continue;
                        }
                    }
                }
            };
            if speaking.see_through(topic, number, shared.patience).await.is_ok() {
                voice = Some(speaking);
                break;
            }
            kept = Some(std::mem::take(&mut speaking.kept));
            attempt += 1;
        }
        sleep(pause).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use fulmar_mqtt::codec::Role;
    use fulmar_mqtt::packet::{Ack, ConnAck, ConnAckProperties, Publish};
    use fulmar_mqtt::{Decoded, Decoder, Packet, QoS, ReasonCode, encode};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::Clients;
    use super::*;
    use crate::history::History;
    use crate::load::Doors;

    /// The node's end of a connection.
    struct Node(TcpStream, Decoder, BytesMut);

    impl Node {
        async fn welcome(listener: &TcpListener, session_present: bool) -> Node {
            let (stream, _) = listener.accept().await.unwrap();
            let mut node = Node(stream, Decoder::new(Role::Server, 1024), BytesMut::new());
            assert!(matches!(node.next().await, Packet::Connect(_)));
            let (reason, properties) = (ReasonCode::Success, ConnAckProperties::default());
            node.say(Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties }))).await;
            node
        }

        async fn next(&mut self) -> Packet {
            loop {
                if let Some(Decoded::Packet(packet)) = self.1.decode(&mut self.2).unwrap() {
                    return packet;
                }
                assert!(self.0.read_buf(&mut self.2).await.unwrap() > 0, "it has gone");
            }
        }

        async fn publish(&mut self) -> Publish {
            match self.next().await {
                Packet::Publish(publish) => publish,
                other => panic!("{other:?}"),
            }
        }

        async fn say(&mut self, packet: Packet) {
            let mut bytes = BytesMut::new();
            encode(&packet, Version::V5, &mut bytes).unwrap();
            self.0.write_all(&bytes).await.unwrap();
        }
    }

    /// A message under another packet id would leave the first one open at the node: the next message that comes to have it
    /// would be answered there as one that is known, and lost by the fault of its publisher.
    #[tokio::test]
    async fn an_exchange_is_seen_through_under_its_packet_id() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let doors = Arc::new(Doors::of(&[listener.local_addr().unwrap()]));
        let mut clients = Clients::new(Arc::new(History::default()), doors, Duration::from_secs(60));
        let topic = clients.topic("t", QoS::ExactlyOnce);
        clients.speak("speaker", vec![topic], Duration::ZERO);

        let first = Node::welcome(&listener, false).await.publish().await;
        assert!(!first.dup);

        let mut node = Node::welcome(&listener, true).await;
        let again = node.publish().await;
        assert_eq!(again, Publish { dup: true, ..first.clone() });
        node.say(Packet::PubRec(Ack::success(first.packet_id))).await;
        let released = Packet::PubRel(Ack::success(first.packet_id));
        assert_eq!(node.next().await, released);
        drop(node);

        let mut node = Node::welcome(&listener, true).await;
        assert_eq!(node.next().await, released);
        node.say(Packet::PubComp(Ack::with_reason(first.packet_id, ReasonCode::PacketIdentifierNotFound))).await;
        let next = node.publish().await;
        assert!(!next.dup && next.payload != first.payload);
        drop(node);

        let (mut node, second) = (Node::welcome(&listener, true).await, next);
        assert_eq!(node.publish().await, Publish { dup: true, ..second.clone() });
    }
}
