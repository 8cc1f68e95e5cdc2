//! What the driver's tasks share: how far each publisher and each receiver is. One thread, so cells and no locks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use cluster_tests::histogram::Histogram;
use cluster_tests::sequence::{Arrival, Sequence};
use fulmar_mqtt::QoS;
use tokio::sync::Notify;

use crate::payload::Header;

/// A message that is not acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Underway {
    pub(crate) sequence: u64,
    pub(crate) due_ns: u64,
}

/// A publisher's side.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) topic: String,
    pub(crate) sent: Cell<u64>,
    pub(crate) acknowledged: Cell<u64>,
    /// By packet id, what is not acknowledged.
    pub(crate) inflight: RefCell<BTreeMap<u16, Underway>>,
    /// Sequences that the broker refused by name.
    pub(crate) refused: RefCell<Vec<u64>>,
    /// Wakes the publisher: its receivers have caught up, or the run ends.
    pub(crate) wake: Notify,
    /// Up to here deliveries are no longer waited for: they seem to be lost.
    forgiven: Cell<u64>,
    /// Which receivers get this publisher's messages: each one's index.
    receivers: Vec<usize>,
    /// The publisher sleeps until every receiver is as far as this.
    threshold: Cell<u64>,
    laggards: Cell<usize>,
}

/// A subscriber's side: one sequence per publisher it hears, from `first` on.
pub(crate) struct Receiver {
    pub(crate) filter: String,
    first: usize,
    sequences: RefCell<Vec<Sequence>>,
}

pub(crate) struct Board {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) receivers: Vec<Receiver>,
    pub(crate) qos: QoS,
    /// No new messages any more.
    pub(crate) stop: Cell<bool>,
    /// Deliveries, duplicates aside.
    pub(crate) delivered: Cell<u64>,
    /// Latencies of messages due from here to there (monotonic clock).
    pub(crate) measured: Cell<(u64, u64)>,
    pub(crate) latency: RefCell<Histogram>,
    /// The same, until PUBACK or PUBCOMP came.
    pub(crate) ack_latency: RefCell<Histogram>,
}

impl Board {
    /// `routes`: the topic of each publisher, the filter of each subscriber, and which publishers that one hears
    /// (first, count).
    pub(crate) fn new(topics: Vec<String>, filters: Vec<(String, usize, usize)>, qos: QoS) -> Board {
        let hears = |(_, first, count): &(String, usize, usize), lane: usize| (*first..first + count).contains(&lane);
        let lanes = topics.into_iter().enumerate().map(|(lane, topic)| {
            let receivers = filters.iter().enumerate().filter(|(_, filter)| hears(filter, lane));
            Lane { topic, receivers: receivers.map(|(index, _)| index).collect(), ..Lane::default() }
        });
        let lanes = lanes.collect();
        let receivers = filters.into_iter().map(|(filter, first, count)| Receiver {
            filter,
            first,
            sequences: RefCell::new(vec![Sequence::default(); count]),
        });
        Board {
            lanes,
            receivers: receivers.collect(),
            qos,
            stop: Cell::new(false),
            delivered: Cell::new(0),
            measured: Cell::new((u64::MAX, u64::MAX)),
            latency: RefCell::default(),
            ack_latency: RefCell::default(),
        }
    }

    /// Books a delivery. False if nobody should have sent it to this receiver.
    pub(crate) fn arrive(&self, receiver: &Receiver, header: Header, now_ns: u64) -> bool {
        let lane = header.publisher as usize;
        let mut sequences = receiver.sequences.borrow_mut();
        let Some(sequence) = lane.checked_sub(receiver.first).and_then(|index| sequences.get_mut(index)) else {
            return false;
        };
        let before = sequence.next();
        if sequence.arrive(header.sequence) == Arrival::Duplicate {
            return true;
        }
        self.lanes[lane].advance(before, sequence.next());
        self.delivered.set(self.delivered.get() + 1);
        self.record(&self.latency, header.due_ns, now_ns);
        true
    }

    /// Books the end of a publisher's exchange.
    pub(crate) fn acknowledge(&self, due_ns: u64, now_ns: u64) {
        self.record(&self.ack_latency, due_ns, now_ns);
    }

    fn record(&self, histogram: &RefCell<Histogram>, due_ns: u64, now_ns: u64) {
        let (from, to) = self.measured.get();
        if (from..to).contains(&due_ns) {
            histogram.borrow_mut().record(now_ns.saturating_sub(due_ns));
        }
    }

    /// How far all receivers of a lane are.
    pub(crate) fn low(&self, lane: usize) -> u64 {
        let lowest = self.lanes[lane].receivers.iter().map(|receiver| self.next(*receiver, lane)).min();
        lowest.unwrap_or(0).max(self.lanes[lane].forgiven.get())
    }

    /// Makes the lane be woken when all its receivers are as far as `threshold`. False if they are already.
    pub(crate) fn wake_at(&self, lane: usize, threshold: u64) -> bool {
        let this = &self.lanes[lane];
        let behind = this.receivers.iter().filter(|receiver| self.next(**receiver, lane) < threshold).count();
        this.threshold.set(threshold);
        this.laggards.set(behind);
        behind > 0
    }

    fn next(&self, receiver: usize, lane: usize) -> u64 {
        let receiver = &self.receivers[receiver];
        receiver.sequences.borrow()[lane - receiver.first].next()
    }

    /// Stops waiting for what a lane has sent so far.
    pub(crate) fn forgive(&self, lane: usize) {
        let lane = &self.lanes[lane];
        lane.forgiven.set(lane.sent.get());
        lane.wake.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.stop.set(true);
        self.lanes.iter().for_each(|lane| lane.wake.notify_one());
    }

    pub(crate) fn books(&self) -> Books {
        let mut books = Books::default();
        for (index, lane) in self.lanes.iter().enumerate() {
            books.sent += lane.sent.get();
            books.acknowledged += lane.acknowledged.get();
            books.refused += lane.refused.borrow().len() as u64;
            let mut excused = lane.refused.borrow().clone();
            excused.extend(lane.inflight.borrow().values().map(|underway| underway.sequence));
            for receiver in &lane.receivers {
                let receiver = &self.receivers[*receiver];
                let sequence = &receiver.sequences.borrow()[index - receiver.first];
                books.delivered += sequence.delivered();
                books.duplicated += sequence.duplicated();
                books.reordered += sequence.reordered();
                books.lost += sequence.lost(lane.sent.get(), &excused);
            }
        }
        books
    }
}

/// What became of all messages of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Over all receivers, duplicates aside; as are the following.
    pub(crate) delivered: u64,
    /// Acknowledged, or of QoS 0 and sent, and not delivered.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
}

impl Lane {
    fn advance(&self, before: u64, now: u64) {
        let threshold = self.threshold.get();
        if before < threshold && now >= threshold {
            let behind = self.laggards.get().saturating_sub(1);
            self.laggards.set(behind);
            if behind == 0 {
                self.wake.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(publisher: u32, sequence: u64) -> Header {
        Header { publisher, sequence, due_ns: 5 }
    }

    #[test]
    fn books_balance_over_publishers_and_receivers() {
        let filters = vec![("t/+".to_owned(), 0, 2), ("t/1".to_owned(), 1, 1)];
        let board = Board::new(vec!["t/0".into(), "t/1".into()], filters, QoS::AtLeastOnce);
        board.lanes[0].sent.set(3);
        board.lanes[1].sent.set(2);
        board.lanes[1].inflight.borrow_mut().insert(9, Underway { sequence: 1, due_ns: 5 });
        for (receiver, publisher, sequence) in [(0, 0, 0), (0, 0, 2), (0, 1, 0), (1, 1, 0), (1, 1, 0), (0, 0, 1)] {
            assert!(board.arrive(&board.receivers[receiver], header(publisher, sequence), 10));
        }
        assert!(!board.arrive(&board.receivers[1], header(0, 0), 10));
        let expected = Books { sent: 5, delivered: 5, duplicated: 1, reordered: 1, lost: 0, ..Books::default() };
        assert_eq!(board.books(), expected);
        board.lanes[1].inflight.borrow_mut().clear();
        assert_eq!(board.books().lost, 2);
        assert_eq!(board.delivered.get(), 5);
    }

    #[tokio::test]
    async fn a_publisher_is_woken_when_the_last_receiver_is_far_enough() {
        let filters = vec![("t".to_owned(), 0, 1), ("t".to_owned(), 0, 1)];
        let board = Board::new(vec!["t".into()], filters, QoS::AtMostOnce);
        assert!(board.wake_at(0, 2));
        for (receiver, sequence) in [(0, 0), (0, 1), (1, 0)] {
            board.arrive(&board.receivers[receiver], header(0, sequence), 10);
        }
        assert_eq!((board.low(0), board.lanes[0].laggards.get()), (1, 1));
        board.arrive(&board.receivers[1], header(0, 1), 10);
        board.lanes[0].wake.notified().await;
        assert!(!board.wake_at(0, 2));
        board.lanes[0].sent.set(7);
        board.forgive(0);
        assert_eq!(board.low(0), 7);
    }
}
