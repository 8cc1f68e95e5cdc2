//! A subscriber: books and acknowledges what arrives.

use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use cluster_tests::sys::monotonic_ns;
use fulmar_mqtt::packet::Ack;
use fulmar_mqtt::{Packet, QoS};

use crate::board::Board;
use crate::link::Link;
use crate::payload::Header;

/// Runs until it is aborted or the connection fails.
pub(crate) async fn run(board: Rc<Board>, index: usize, mut link: Link) -> Result<()> {
    let receiver = &board.receivers[index];
    loop {
        link.turn().await?;
        let now_ns = monotonic_ns();
        while let Some(packet) = link.next()? {
            match packet {
                Packet::Publish(publish) => {
                    let header = Header::read(&publish.payload).context("a message that is not the bench's")?;
                    ensure!(board.arrive(receiver, header, now_ns), "{header:?} came to {}", receiver.filter);
                    match publish.qos {
                        QoS::AtMostOnce => {}
                        QoS::AtLeastOnce => link.push(&Packet::PubAck(Ack::success(publish.packet_id)))?,
                        QoS::ExactlyOnce => link.push(&Packet::PubRec(Ack::success(publish.packet_id)))?,
                    }
                }
                Packet::PubRel(ack) => link.push(&Packet::PubComp(Ack::success(ack.packet_id)))?,
                Packet::PingResp => {}
                other => bail!("a subscriber got {other:?}"),
            }
        }
        link.flush()?;
    }
}
