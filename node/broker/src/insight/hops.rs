//! Hops of traced messages, in bounded rings: one ring a trace.

use std::collections::VecDeque;

use bytes::Bytes;

/// Traces that run at one time. A message carries one bit for each in its trace id.
pub const TRACES_MAX: usize = 16;

/// Hops and bytes that a node keeps of one trace; the oldest go.
pub const HOPS_MAX: usize = 4_096;
pub const HOP_BYTES_MAX: usize = 1 << 20;

/// Bytes of a payload that a hop may keep.
pub const PAYLOAD_BYTES_MAX: usize = 4_096;

const NUMBER_BITS: u32 = 48;

/// The id that a message carries from node to node: which traces it is of, in the upper 16 bits, and a number. Never 0 with a
/// bit set; 0 is a message that is not traced.
#[must_use]
pub fn trace_id(slots: u16, number: u64) -> u64 {
    if slots == 0 { 0 } else { (u64::from(slots) << NUMBER_BITS) | (number & ((1 << NUMBER_BITS) - 1)) }
}

/// The places of the traces that a message is of.
pub fn slots(id: u64) -> impl Iterator<Item = usize> {
    let bits = id >> NUMBER_BITS;
    (0..TRACES_MAX).filter(move |slot| bits & (1 << slot) != 0)
}

/// Where on its way a message was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// A packet has come from its client.
    In,
    /// Its client may publish it, or not.
    Auth,
    /// Whom it goes to.
    Match,
    /// It is in the log.
    Commit,
    /// Given to another node.
    Forward,
    /// Come from another node.
    From,
    /// In the queue of a receiver.
    Queue,
    /// Written to a receiver.
    Out,
    /// Acknowledged by a receiver.
    Ack,
    /// It does not go on here, for a reason.
    Drop,
    /// A rule has looked at it.
    Rule,
}

impl Stage {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::In => "in",
            Stage::Auth => "auth",
            Stage::Match => "match",
            Stage::Commit => "commit",
            Stage::Forward => "forward",
            Stage::From => "from",
            Stage::Queue => "queue",
            Stage::Out => "out",
            Stage::Ack => "ack",
            Stage::Drop => "drop",
            Stage::Rule => "rule",
        }
    }
}

/// One thing that happened to one traced message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The trace id of the message.
    pub message: u64,
    /// Microseconds since 1970, by this node's clock.
    pub at_us: u64,
    pub stage: Stage,
    /// Whose packet, queue or socket it is; empty where it is nobody's.
    pub client: Box<str>,
    /// The claim of that client's session; 0: none.
    pub epoch: u64,
    /// Empty where the hop before it of the same message on this node says it.
    pub topic: Box<str>,
    /// Names and values.
    pub details: Vec<(&'static str, String)>,
    /// The beginning of it, if the trace asks for payloads.
    pub payload: Bytes,
}

impl Hop {
    fn bytes(&self) -> usize {
        let details: usize = self.details.iter().map(|(name, value)| name.len() + value.len() + 40).sum();
        128 + self.client.len() + self.topic.len() + self.payload.len() + details
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ring {
    hops: VecDeque<Hop>,
    bytes: usize,
    /// The number of the first hop that is kept.
    first: u64,
}

impl Ring {
    /// Adds a hop. Returns how many older ones had to go.
    pub fn push(&mut self, hop: Hop) -> u64 {
        self.bytes += hop.bytes();
        self.hops.push_back(hop);
        let mut lost = 0;
        while self.hops.len() > HOPS_MAX || (self.bytes > HOP_BYTES_MAX && self.hops.len() > 1) {
            let Some(oldest) = self.hops.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.first += 1;
            lost += 1;
        }
        lost
    }

    /// Hops from a number on, at most so many, and the number to go on from.
    #[must_use]
    pub fn read(&self, from: u64, most: usize) -> (Vec<Hop>, u64) {
        let skipped = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let read: Vec<Hop> = self.hops.iter().skip(skipped).take(most).cloned().collect();
        let next = from.max(self.first) + read.len() as u64;
        (read, next)
    }

    /// How many hops have gone.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(number: u64, bytes: usize) -> Hop {
        Hop {
            message: trace_id(1, number),
            at_us: number,
            stage: Stage::In,
            client: "c".into(),
            epoch: 1,
            topic: "t".into(),
            details: Vec::new(),
            payload: vec![0; bytes].into(),
        }
    }

    #[test]
    fn an_id_says_of_which_traces_a_message_is() {
        assert_eq!(trace_id(0, 7), 0);
        let id = trace_id(0b1000_0000_0000_0101, u64::MAX);
        assert_eq!(slots(id).collect::<Vec<_>>(), [0, 2, 15]);
        assert_eq!(slots(0).count(), 0);
    }

    #[test]
    fn a_ring_keeps_the_newest_by_count_and_bytes() {
        let mut ring = Ring::default();
        let lost: u64 = (0..HOPS_MAX as u64 + 10).map(|number| ring.push(hop(number, 0))).sum();
        assert_eq!((lost, ring.lost()), (10, 10));
        let (read, next) = ring.read(0, 3);
        assert_eq!((read[0].at_us, read.len(), next), (10, 3, 13));
        let (read, next) = ring.read(next, usize::MAX);
        assert_eq!((read[0].at_us, next), (13, HOPS_MAX as u64 + 10));
        assert_eq!(ring.read(next, 9), (Vec::new(), next));
        (0..600).for_each(|number| assert!(ring.push(hop(number, PAYLOAD_BYTES_MAX)) < 5_000));
        assert!(ring.bytes <= HOP_BYTES_MAX && ring.hops.len() < 300, "{} bytes", ring.bytes);
        let bytes: usize = ring.hops.iter().map(Hop::bytes).sum();
        assert_eq!(bytes, ring.bytes);
    }
}
