//! What followers have answered: when the latest heartbeat was sent that a quorum has acknowledged. Until an election's
//! time after that moment nobody else can have been elected.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::lease::boottime_ms;
use super::raft::Membership;

/// See the module.
#[derive(Debug, Default)]
pub struct Acks {
    /// By follower: the term, and when the latest message that it took was sent.
    sent: Mutex<HashMap<u64, (u64, u64)>>,
}

impl Acks {
    /// Milliseconds of the clock that [`Acks::note`] takes.
    #[must_use]
    pub fn now(&self) -> u64 {
        boottime_ms()
    }

    /// A follower has acknowledged, in this term, a message that was sent then.
    pub fn note(&self, follower: u64, term: u64, sent_ms: u64) {
        let mut sent = self.sent.lock();
        let known = sent.entry(follower).or_insert((term, sent_ms));
        *known = (*known).max((term, sent_ms));
    }

    /// When the latest message was sent that, with this node's own word, a quorum of every voter set has acknowledged.
    /// `None`: not in this term.
    pub(super) fn quorum_ms(&self, membership: &Membership, own: u64, term: u64, now_ms: u64) -> Option<u64> {
        let sent = self.sent.lock();
        let of = |voter: &u64| {
            if *voter == own {
                return Some(now_ms);
            }
            sent.get(voter).filter(|(of, _)| *of == term).map(|(_, at)| *at)
        };
        let quorum_of = |set: &std::collections::BTreeSet<u64>| {
            let mut times: Vec<Option<u64>> = set.iter().map(of).collect();
            times.sort_unstable_by(|one, other| other.cmp(one));
            times.get(set.len() / 2).copied().flatten()
        };
        let sets = membership.get_joint_config();
        sets.iter().map(quorum_of).try_fold(u64::MAX, |least, at| at.map(|at| least.min(at)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::cluster::raft::Member;

    fn membership(sets: &[&[u64]]) -> Membership {
        let sets: Vec<BTreeSet<u64>> = sets.iter().map(|set| set.iter().copied().collect()).collect();
        let nodes: BTreeMap<u64, Member> = sets.iter().flatten().map(|node| (*node, Member::default())).collect();
        Membership::new(sets, nodes)
    }

    #[test]
    fn a_quorum_counts_from_what_its_slowest_member_was_sent() {
        let acks = Acks::default();
        let three = membership(&[&[1, 2, 3]]);
        assert_eq!(acks.quorum_ms(&membership(&[&[1]]), 1, 5, 100), Some(100), "alone");
        assert_eq!(acks.quorum_ms(&three, 1, 5, 100), None, "nobody has answered");
        acks.note(2, 5, 70);
        assert_eq!(acks.quorum_ms(&three, 1, 5, 100), Some(70));
        acks.note(3, 5, 80);
        assert_eq!(acks.quorum_ms(&three, 1, 5, 100), Some(80));
        acks.note(3, 5, 60);
        assert_eq!(acks.quorum_ms(&three, 1, 5, 100), Some(80), "answers that overtake each other take nothing back");
        assert_eq!(acks.quorum_ms(&membership(&[&[1, 2, 3, 4, 5]]), 1, 5, 100), Some(70));
        assert_eq!(acks.quorum_ms(&membership(&[&[1, 2, 3], &[1, 2, 4, 5, 6]]), 1, 5, 100), None, "both sets must");
        assert_eq!(acks.quorum_ms(&three, 1, 6, 100), None, "of another term");
        assert_eq!(acks.quorum_ms(&three, 7, 5, 100), Some(70), "a leader that is no voter does not count itself");
    }
}
