//! What goes to clients and comes from them, and how long they wait for it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Count, Durations};

/// Types of packets by their number in the fixed header, minus one.
const TYPES: [&str; 15] = [
    "connect",
    "connack",
    "publish",
    "puback",
    "pubrec",
    "pubrel",
    "pubcomp",
    "subscribe",
    "suback",
    "unsubscribe",
    "unsuback",
    "pingreq",
    "pingresp",
    "disconnect",
    "auth",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClientLabel {
    listener: String,
    version: &'static str,
    dialect: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabel {
    path: &'static str,
}

/// Packets of each type, by the number of the type in the fixed header.
pub type PacketCounts = [u32; 16];

/// See the module.
#[derive(Debug)]
pub struct Traffic {
    pub sent_bytes: Count,
    packets_received: [Count; TYPES.len()],
    packets_sent: [Count; TYPES.len()],
    /// From a whole CONNECT to its CONNACK, of those that were let in.
    pub connect: Durations,
    acks_durable: Durations,
    acks_live: Durations,
    clients: Family<ClientLabel, Gauge>,
}

impl Traffic {
    pub(super) fn register(registry: &mut Registry) -> Traffic {
        let sent_bytes = Count::default();
        registry.register("sent_bytes", "Bytes written to clients", sent_bytes.clone());
        let mut by_type = |name: &str, help: &str| {
            let family = Family::<TypeLabel, Count>::default();
            registry.register(name, help, family.clone());
            TYPES.map(|r#type| family.get_or_create(&TypeLabel { r#type }).clone())
        };
        let packets_received = by_type("packets_received", "Packets read from clients with a session, and CONNECT");
        let packets_sent = by_type("packets_sent", "Packets written to clients with a session");
        let connect = Durations::of_answers();
        let help = "Seconds from a whole CONNECT to its CONNACK, of clients that were let in";
        registry.register("connect_seconds", help, connect.clone());
        let family =
            Family::<PathLabel, Durations, _>::new_with_constructor(Durations::of_answers as fn() -> Durations);
        let help = "Seconds from a PUBLISH of QoS 1 or 2 to its acknowledgement, by whether the log must have it";
        registry.register("publish_ack_seconds", help, family.clone());
        let [acks_durable, acks_live] =
            ["durable", "live"].map(|path| family.get_or_create(&PathLabel { path }).clone());
        let clients = Family::default();
        let help = "Connected clients by listener, protocol version and dialect";
        registry.register("clients", help, clients.clone());
        Traffic { sent_bytes, packets_received, packets_sent, connect, acks_durable, acks_live, clients }
    }

    /// Counts packets that were read.
    pub fn received(&self, counts: &PacketCounts) {
        add(&self.packets_received, counts);
    }

    /// Counts whole packets that are on their way to a client, and their bytes. What is no packet is not counted.
    pub fn sent(&self, frames: &[u8]) {
        self.sent_bytes.inc_by(frames.len() as u64);
        add(&self.packets_sent, &packets(frames));
    }

    /// Notes acknowledgements that took `ms` milliseconds. `durable`: the log had to have what they are of.
    pub fn acknowledged(&self, durable: bool, ms: u64, count: u64) {
        let durations = if durable { &self.acks_durable } else { &self.acks_live };
        durations.note_many(std::time::Duration::from_millis(ms), count);
    }

    /// The number of clients that came so; whoever adds one takes it away again. `version`: as CONNECT writes it.
    #[must_use]
    pub fn clients(&self, listener: &str, version: u8, dialect: &str) -> Gauge {
        let version = match version {
            3 => "3.1",
            4 => "3.1.1",
            _ => "5",
        };
        let label = ClientLabel { listener: listener.to_owned(), version, dialect: dialect.to_owned() };
        self.clients.get_or_create(&label).clone()
    }
}

fn add(counters: &[Count; TYPES.len()], counts: &PacketCounts) {
    for (counter, count) in counters.iter().zip(counts.iter().skip(1)) {
        if *count > 0 {
            counter.inc_by(u64::from(*count));
        }
    }
}

/// Packets in a row, by their fixed headers.
fn packets(mut frames: &[u8]) -> PacketCounts {
    let mut counts = PacketCounts::default();
    while let Some((first, rest)) = frames.split_first() {
        let (mut length, mut bytes) = (0usize, 0usize);
        for byte in rest.iter().take(4) {
            length |= usize::from(byte & 0x7f) << (7 * bytes);
            bytes += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        counts[usize::from(first >> 4)] += 1;
        frames = rest.get(bytes + length..).unwrap_or_default();
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_by_their_fixed_headers() {
        let mut frames = vec![0x20, 3, 0, 0, 0, 0xd0, 0];
        frames.extend([0x32, 0x80, 0x01]);
        frames.extend([7; 128]);
        frames.extend([0x40, 2, 0, 1, 0xe0]);
        let counts = packets(&frames);
        assert_eq!((counts[2], counts[13], counts[3], counts[4], counts[14]), (1, 1, 1, 1, 1));
        assert_eq!(counts.iter().sum::<u32>(), 5);
        assert_eq!(packets(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).iter().sum::<u32>(), 1);
    }
}
