//! The pure parts: what is written is read, nothing that is read can panic, and over any loss of streams each record
//! ends once and each frame is handed up once, in order.

mod record;
mod stream;

use std::collections::BTreeMap;

use bytes::Bytes;
use fulmar_broker::{Generation, LogTime, Publication, Via};
use fulmar_mqtt::property::ForwardProperties;
use fulmar_mqtt::{QoS, TopicName};
use proptest::prelude::*;

use super::inbox::{Arrived, Inbox};
use super::outbox::{Books, Ended, FRAME_BYTES_MAX, FRAME_RECORDS_MAX, Outbox, Pushed, QOS_0_BYTES_MAX};
use super::record::{Head, Records};

fn publication(topic: &str, payload: &[u8], qos: QoS) -> Publication {
    Publication {
        topic: TopicName::new(topic.to_owned()).unwrap(),
        payload: Bytes::copy_from_slice(payload),
        qos,
        retain: false,
        forward: ForwardProperties::default(),
        origin: None,
        accepted_at: LogTime(7),
        expires_at: None,
        via: Via::Client,
        trace: 0,
    }
}

fn push(outbox: &mut Outbox<u64>, at: u64, qos: QoS) -> Pushed {
    outbox.push(&publication("t", &at.to_be_bytes(), qos), None, || Some(at))
}

fn ended(outbox: &mut Outbox<u64>, seq: u64, gone: &[u32]) -> Vec<(u64, Ended)> {
    let mut all = Vec::new();
    outbox.acknowledged(seq, gone, &mut all);
    all
}

#[test]
fn a_frame_is_closed_by_count_by_bytes_or_by_being_asked_for() {
    let mut outbox = Outbox::new(Generation(3));
    for at in 0..FRAME_RECORDS_MAX as u64 + 1 {
        assert_eq!(push(&mut outbox, at, QoS::AtLeastOnce), Pushed::Taken);
    }
    let (seq, frame) = outbox.next().unwrap();
    let records = Records::new(frame).unwrap();
    assert_eq!((seq, records.head()), (1, Head { to: Generation(3), settled: 1 }));
    assert_eq!(records.count(), FRAME_RECORDS_MAX);
    assert_eq!(outbox.next().map(|(seq, frame)| (seq, Records::new(frame).unwrap().count())), Some((2, 1)));
    assert_eq!(outbox.next(), None);

    let large = publication("t", &[1; FRAME_BYTES_MAX / 2], QoS::AtLeastOnce);
    for _ in 0..3 {
        outbox.push(&large, None, || None);
    }
    assert_eq!(outbox.next().map(|(seq, frame)| (seq, Records::new(frame).unwrap().count())), Some((3, 2)));
    assert_eq!(outbox.next().map(|(seq, frame)| (seq, Records::new(frame).unwrap().count())), Some((4, 1)));
}

#[test]
fn frames_are_acknowledged_one_by_one_and_the_others_come_again() {
    let mut outbox = Outbox::new(Generation(1));
    for at in 0..3 {
        push(&mut outbox, at, QoS::AtLeastOnce);
        assert!(outbox.next().is_some());
    }
    assert_eq!(ended(&mut outbox, 2, &[]), [(1, Ended::Taken)]);
    assert_eq!(ended(&mut outbox, 2, &[]), [], "said again");
    assert_eq!(ended(&mut outbox, 9, &[]), [], "never sent");
    outbox.begin();
    assert_eq!(ended(&mut outbox, 3, &[]), [], "not sent on this stream");
    assert_eq!(outbox.next().map(|next| next.0), Some(1));
    assert_eq!(outbox.next().map(|next| next.0), Some(3));
    assert!(!outbox.has_next());
    assert_eq!(ended(&mut outbox, 3, &[0]), [(2, Ended::Gone)]);
    assert!(outbox.bytes() > 0);
    assert_eq!(ended(&mut outbox, 1, &[]), [(0, Ended::Taken)]);
    assert_eq!(outbox.bytes(), 0);
    let books = Books { forwarded: 3, confirmed: 2, gone: 1, ..Books::default() };
    assert_eq!(outbox.books(), (books, 0));
}

#[test]
fn at_the_bound_qos_0_is_dropped_and_nothing_else() {
    let mut outbox = Outbox::new(Generation(1));
    let large = |qos| publication("t", &[1; 1 << 20], qos);
    let mut taken = 0;
    while outbox.push(&large(QoS::AtMostOnce), None, || None::<u64>) == Pushed::Taken {
        taken += 1;
    }
    assert_eq!(taken, (QOS_0_BYTES_MAX >> 20) - 1);
    assert_eq!(outbox.push(&large(QoS::ExactlyOnce), None, || Some(1)), Pushed::Taken);
    assert_eq!(outbox.push(&large(QoS::AtMostOnce), None, || panic!("it is not kept")), Pushed::Dropped);
    assert_eq!(outbox.books(), (Books { forwarded: 1, queue_full: 2, ..Books::default() }, 1));
    let mut all = Vec::new();
    outbox.close(&mut all);
    assert_eq!(all, [(1, Ended::NodeLost)]);
    assert_eq!(outbox.push(&large(QoS::AtLeastOnce), None, || panic!("it is not kept")), Pushed::Gone);
    assert_eq!(outbox.books(), (Books { forwarded: 1, node_lost: 1, queue_full: 2, ..Books::default() }, 0));
    assert_eq!(outbox.bytes(), 0);
}

#[test]
fn a_frame_is_handed_up_once_and_acknowledged_as_often_as_it_comes() {
    let mut inbox = Inbox::default();
    assert_eq!(inbox.arrived(2, 1), Arrived::Gap { expected: 1 });
    assert_eq!(inbox.arrived(1, 1), Arrived::New);
    assert_eq!(inbox.arrived(2, 1), Arrived::New);
    assert_eq!(inbox.arrived(1, 1), Arrived::Known);
    assert_eq!(inbox.take_done(), [], "it is not taken yet");
    inbox.taken(2, vec![5]);
    inbox.taken(2, vec![5]);
    assert_eq!(inbox.take_done(), [(2, vec![5])]);
    inbox.begin();
    assert_eq!(inbox.arrived(1, 1), Arrived::Known);
    assert_eq!(inbox.arrived(2, 1), Arrived::Known);
    assert_eq!(inbox.take_done(), [(2, vec![5])], "with the members that were gone");
    assert_eq!(inbox.pending(), 1);
    inbox.taken(1, Vec::new());
    inbox.begin();
    assert_eq!(inbox.take_done(), [], "what a stream has not said is asked for by the next");
    assert_eq!(inbox.arrived(3, 3), Arrived::New);
    assert_eq!(inbox.arrived(2, 3), Arrived::Known);
    assert_eq!(inbox.take_done(), [(2, vec![])], "its sender had heard of it");
}

/// What may happen to a pair of runs.
#[derive(Debug, Clone)]
enum Step {
    Push(QoS),
    /// A frame is given to the stream.
    Send,
    /// The oldest frame on the way comes in.
    Arrive,
    /// The n-th of the frames that are handed up is taken; every third record in it was gone, if so.
    Take(usize, bool),
    /// Acknowledgements leave.
    Acknowledge,
    /// The oldest acknowledgement on the way comes in.
    Hear,
    /// The stream breaks with all that is on the way, and a new one begins.
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)].prop_map(Step::Push),
        3 => Just(Step::Send),
        3 => Just(Step::Arrive),
        3 => (0..8usize, any::<bool>()).prop_map(|(at, gone)| Step::Take(at, gone)),
        2 => Just(Step::Acknowledge),
        2 => Just(Step::Hear),
        1 => Just(Step::Break),
    ]
}

/// Two runs and what is on the way between them.
struct Pair {
    outbox: Outbox<u64>,
    inbox: Inbox,
    frames: std::collections::VecDeque<(u64, Bytes)>,
    acks: std::collections::VecDeque<(u64, Vec<u32>)>,
    /// Handed up and not taken: number and records.
    up: Vec<(u64, Vec<u64>)>,
    /// Records in the order in which they were handed up.
    seen: Vec<u64>,
    pushed: Vec<u64>,
    gone: Vec<u64>,
    ended: BTreeMap<u64, Ended>,
}

impl Pair {
    fn new() -> Pair {
        Pair {
            outbox: Outbox::new(Generation(9)),
            inbox: Inbox::default(),
            frames: Default::default(),
            acks: Default::default(),
            up: Vec::new(),
            seen: Vec::new(),
            pushed: Vec::new(),
            gone: Vec::new(),
            ended: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Push(qos) => {
                let at = self.pushed.len() as u64;
                assert_eq!(push(&mut self.outbox, at, qos), Pushed::Taken);
                self.pushed.push(at);
            }
            Step::Send => self.frames.extend(self.outbox.next()),
            Step::Arrive => {
                let Some((seq, frame)) = self.frames.pop_front() else { return };
                let records = Records::new(frame).unwrap();
                match self.inbox.arrived(seq, records.head().settled) {
                    Arrived::New => {
                        let number =
                            |payload: &Bytes| payload.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                        let records: Vec<u64> =
                            records.map(|record| number(&record.unwrap().publication.payload)).collect();
                        self.seen.extend(&records);
                        self.up.push((seq, records));
                    }
                    Arrived::Known => {}
                    Arrived::Gap { expected } => panic!("{seq} came, {expected} was expected"),
                }
            }
            Step::Take(at, gone) => {
                if self.up.is_empty() {
                    return;
                }
                let (seq, records) = self.up.remove(at % self.up.len());
                let places: Vec<u32> = (0..records.len() as u32).filter(|place| gone && place % 3 == 0).collect();
                self.gone.extend(places.iter().map(|place| records[*place as usize]));
                self.inbox.taken(seq, places);
            }
            Step::Acknowledge => self.acks.extend(self.inbox.take_done()),
            Step::Hear => {
                let Some((seq, gone)) = self.acks.pop_front() else { return };
                for (record, how) in ended(&mut self.outbox, seq, &gone) {
                    assert_eq!(self.ended.insert(record, how), None, "record {record} ended twice");
                }
            }
            Step::Break => {
                self.frames.clear();
                self.acks.clear();
                self.outbox.begin();
                self.inbox.begin();
            }
        }
        let (books, open) = self.outbox.books();
        assert_eq!(books.forwarded, books.confirmed + books.gone + books.node_lost + open);
        assert_eq!(self.seen, self.pushed[..self.seen.len()], "each once, in order");
    }
}

proptest! {
    #[test]
    fn every_record_is_handed_up_once_in_order_and_ends_once(steps in prop::collection::vec(step(), 0..300)) {
        let mut pair = Pair::new();
        steps.into_iter().for_each(|step| pair.take(step));
        // From here on nothing breaks any more.
        pair.take(Step::Break);
        for _ in 0..2 {
            while pair.outbox.has_next() {
                pair.take(Step::Send);
            }
            while !pair.frames.is_empty() {
                pair.take(Step::Arrive);
            }
            while !pair.up.is_empty() {
                pair.take(Step::Take(0, false));
            }
            pair.take(Step::Acknowledge);
            while !pair.acks.is_empty() {
                pair.take(Step::Hear);
            }
        }
        prop_assert_eq!(&pair.seen, &pair.pushed);
        prop_assert_eq!(pair.ended.len(), pair.pushed.len());
        for (record, how) in &pair.ended {
            let wanted = if pair.gone.contains(record) { Ended::Gone } else { Ended::Taken };
            prop_assert_eq!(*how, wanted, "record {}", record);
        }
        prop_assert_eq!(pair.outbox.bytes(), 0);
        prop_assert_eq!(pair.outbox.books().1, 0);
    }

    #[test]
    fn a_run_that_is_lost_ends_what_is_open_once(steps in prop::collection::vec(step(), 0..200)) {
        let mut pair = Pair::new();
        steps.into_iter().for_each(|step| pair.take(step));
        let mut lost = Vec::new();
        pair.outbox.close(&mut lost);
        for (record, how) in lost {
            prop_assert_eq!(how, Ended::NodeLost);
            prop_assert_eq!(pair.ended.insert(record, how), None);
        }
        prop_assert_eq!(pair.ended.len(), pair.pushed.len());
        prop_assert_eq!(pair.outbox.books().1, 0);
    }
}
