use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fulmar_broker::{Generation, NodeId};

use super::*;

const LEADER: NodeId = NodeId(1);

fn alive(nodes: &[u64]) -> impl Iterator<Item = (NodeId, Generation)> {
    nodes.iter().map(|node| (NodeId(*node), Generation(1)))
}

fn asked(node: u64, applied: u64, reached: &[u64]) -> Asked {
    Asked { node: NodeId(node), generation: Generation(1), applied, reached: reached.to_vec() }
}

/// A table whose earlier leases have all ended, at 10,000 ms, with nodes 1 to 3 up.
fn settled() -> Table {
    let mut table = Table::new(LEADER, 5_000, None);
    table.observe(alive(&[1, 2, 3]), 10, 5_000);
    for at in (5_000..=10_000).step_by(200) {
        table.observe(alive(&[1, 2, 3]), 10, at);
        for node in [2, 3] {
            assert!(table.renew(&asked(node, 10, &[1, 2, 3]), 0, at) > 0);
        }
    }
    table
}

#[test]
fn a_holder_never_believes_in_a_lease_for_longer_than_its_leader() {
    for (sent, answered, age) in [(0, 0, 0), (100, 900, 0), (100, 900, 700), (5, 6, 1_999)] {
        let mut table = Table::new(LEADER, 0, None);
        table.observe(alive(&[1, 2]), 0, 0);
        let lease_ms = table.renew(&asked(2, 0, &[]), age, answered);
        assert_eq!(lease_ms, LEASE_MS - age);
        assert!(held_until(sent, lease_ms) <= answered + lease_ms);
        assert!(table.live(NodeId(2), held_until(sent, lease_ms).saturating_sub(1)));
    }
}

#[test]
fn a_leader_that_no_quorum_hears_renews_nobody() {
    let mut table = settled();
    assert_eq!(table.renew(&asked(2, 10, &[]), LEASE_MS, 10_001), 0);
    assert_eq!(table.renew(&asked(2, 10, &[]), LEASE_MS + 5_000, 10_001), 0);
}

#[test]
fn a_new_leader_waits_for_the_leases_of_earlier_ones() {
    let mut table = Table::new(LEADER, 1_000, None);
    table.observe(alive(&[1, 2, 3]), 50, 1_000);
    let over = 1_000 + LEASE_MS - ELECTION_MS;
    assert_eq!(table.stable(50, over - 1), 0, "nobody knows what the others have applied");
    assert!(table.fallen(over - 1).is_empty());
    assert_eq!(table.renew(&asked(2, 40, &[1, 3]), 0, 1_100), LEASE_MS);
    assert_eq!(table.stable(50, over), 40, "of 3 nothing is to be waited for any more");
    assert!(table.fallen(over).is_empty(), "but it has as long as a lease to ask");
    assert_eq!(table.fallen(1_000 + LEASE_MS), [(NodeId(3), Generation(1))]);
    assert_eq!(table.renew(&asked(3, 50, &[1, 2]), 0, 1_000 + LEASE_MS), 0, "it is to be declared dead");
}

#[test]
fn a_new_leader_counts_on_nothing_that_it_let_an_earlier_one_grant() {
    let mut table = Table::new(LEADER, 10_000, Some(9_500));
    table.observe(alive(&[1, 2]), 50, 10_000);
    assert!(table.live(NodeId(2), 9_500 + LEASE_MS - 1), "its own acknowledgement was worth a lease");
    assert!(!table.live(NodeId(2), 9_500 + LEASE_MS));
}

#[test]
fn what_is_stable_waits_for_every_lease_and_no_longer() {
    let mut table = settled();
    assert_eq!(table.stable(20, 10_000), 10);
    table.report(&asked(2, 20, &[]));
    assert_eq!(table.stable(20, 10_000), 10);
    table.report(&asked(3, 20, &[]));
    assert_eq!(table.stable(20, 10_000), 20);
    assert_eq!(table.renew(&asked(2, 20, &[]), 0, 11_000), LEASE_MS);
    assert_eq!(table.stable(30, 10_000 + LEASE_MS - 1), 20);
    table.report(&asked(2, 30, &[]));
    assert_eq!(table.stable(30, 10_000 + LEASE_MS), 30, "3 has not been renewed");
    assert_eq!(table.fallen(10_000 + LEASE_MS), [(NodeId(3), Generation(1))]);
    assert_eq!(table.fallen(10_000 + LEASE_MS), [(NodeId(3), Generation(1))], "until it is declared");
    table.observe(alive(&[1, 2]), 30, 10_000 + LEASE_MS);
    assert!(table.fallen(10_000 + LEASE_MS).is_empty());
}

#[test]
fn a_lease_that_is_given_back_ends_at_once() {
    let mut table = settled();
    table.give_back(NodeId(3), Generation(2));
    assert!(table.live(NodeId(3), 10_001), "another run gave it back");
    table.give_back(NodeId(3), Generation(1));
    assert!(!table.live(NodeId(3), 10_001));
    assert_eq!(table.fallen(10_001), [(NodeId(3), Generation(1))]);
    assert_eq!(table.renew(&asked(3, 10, &[1, 2]), 0, 10_002), 0);
}

#[test]
fn no_run_of_a_node_that_is_being_removed_is_renewed() {
    let mut table = settled();
    table.set_leaving(NodeId(3), true);
    assert!(table.is_leaving(NodeId(3)) && !table.is_leaving(NodeId(2)));
    assert_eq!(table.renew(&asked(3, 10, &[1, 2]), 0, 10_100), 0);
    assert!(table.live(NodeId(3), 10_000 + LEASE_MS - 1), "it may act for a while yet");
    assert!(!table.live(NodeId(3), 10_000 + LEASE_MS));
    table.observe([(LEADER, Generation(1)), (NodeId(3), Generation(2))].into_iter(), 10, 12_000);
    let newer = Asked { generation: Generation(2), ..asked(3, 10, &[1]) };
    assert_eq!(table.renew(&newer, 0, 12_000), 0);
    table.set_leaving(NodeId(3), false);
    assert!(table.renew(&newer, 0, 12_000) > 0, "it stays");
}

#[test]
fn who_is_behind_is_not_renewed() {
    let mut table = settled();
    for at in (10_200..13_000).step_by(200) {
        table.observe(alive(&[1, 2, 3]), at, at);
        assert!(table.renew(&asked(2, at, &[1, 3]), 0, at) > 0);
        let behind = at >= 12_200;
        assert_eq!(table.renew(&asked(3, 10_100, &[1, 2]), 0, at) == 0, behind, "at {at}");
    }
}

#[test]
fn another_run_of_a_node_needs_a_lease_of_its_own() {
    let mut table = settled();
    table.observe([(LEADER, Generation(1)), (NodeId(2), Generation(2))].into_iter(), 10, 10_050);
    assert_eq!(table.renew(&asked(2, 10, &[]), 0, 10_060), 0, "the older run is over");
    assert!(!table.live(NodeId(2), 10_060), "the newer one has not asked");
    let newer = Asked { generation: Generation(2), ..asked(2, 10, &[]) };
    assert_eq!(table.renew(&newer, 0, 10_070), LEASE_MS);
    assert!(table.live(NodeId(2), 10_080));
}

#[test]
fn of_a_pair_that_is_cut_one_goes_until_it_reaches_everybody() {
    let mut table = settled();
    let voters = BTreeSet::from([1, 2, 3]);
    let mut victim = None;
    for at in (10_000..=14_000).step_by(200) {
        for (node, reached) in [(1, &[1, 2, 3][..]), (2, &[1]), (3, &[1])] {
            table.renew(&asked(node, 10, reached), 0, at);
        }
        if let Some(node) = table.judge_cuts(&voters, at) {
            assert!(victim.replace(node).is_none(), "one is enough");
            assert_eq!(at, 13_000);
        }
    }
    let victim = victim.unwrap();
    assert_ne!(victim, LEADER);
    let (reached, all) = ([1].as_slice(), [1, 2, 3].as_slice());
    assert_eq!(table.renew(&asked(victim.0, 10, reached), 0, 14_000), 0);
    let other = if victim.0 == 2 { 3 } else { 2 };
    assert!(table.renew(&asked(other, 10, all), 0, 14_000) > 0);
    assert!(table.renew(&asked(victim.0, 10, all), 0, 14_100) > 0, "healed");
}

#[test]
fn a_cut_of_which_nobody_may_go_hides_no_other() {
    let mut table = Table::new(LEADER, 0, None);
    table.observe(alive(&[1, 2, 4, 5]), 10, 0);
    let voters = BTreeSet::from([1, 2, 3]);
    let victims: Vec<NodeId> = (0..=6_000)
        .step_by(200)
        .filter_map(|at| {
            // 1 leads, 3 is down, so 2 has to stay: of 1 and 2 nobody may go. Of 4 and 5 one must.
            for (node, reached) in [(1, [4, 5]), (2, [4, 5]), (4, [1, 2]), (5, [1, 2])] {
                table.renew(&asked(node, 10, &reached), 0, at);
            }
            table.judge_cuts(&voters, at)
        })
        .collect();
    assert!(matches!(victims.as_slice(), [NodeId(4 | 5)]), "{victims:?}");
}

#[test]
fn cuts_never_cost_the_quorum() {
    let mut table = Table::new(LEADER, 0, None);
    table.observe(alive(&[1, 2, 4]), 10, 0);
    let voters = BTreeSet::from([1, 2, 3]);
    for at in (0..=6_000).step_by(200) {
        table.renew(&asked(1, 10, &[2]), 0, at);
        table.renew(&asked(2, 10, &[1]), 0, at);
        table.renew(&asked(4, 10, &[]), 0, at);
        if let Some(victim) = table.judge_cuts(&voters, at) {
            assert_eq!(victim, NodeId(4), "3 is down: without 2 there is no quorum");
        }
    }
}

#[test]
fn who_waits_is_told_when_it_is_stable_or_alone() {
    let holder = Holder::new();
    let told = Arc::new(AtomicUsize::new(0));
    let wait = |index| {
        let counted = told.clone();
        holder.when_stable(
            index,
            Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            }),
        );
        told.load(Ordering::Relaxed)
    };
    holder.note_stable(1, 5);
    assert_eq!(wait(5), 1, "at once");
    assert_eq!((wait(6), wait(7)), (1, 1));
    holder.note_stable(1, 6);
    assert_eq!(told.load(Ordering::Relaxed), 2);
    holder.note_stable(2, 3);
    assert_eq!(wait(5), 2, "a later leader begins anew");
    holder.note_stable(1, 100);
    assert_eq!(told.load(Ordering::Relaxed), 2, "what an earlier one says does not count");
    holder.set_alone(true);
    assert_eq!(told.load(Ordering::Relaxed), 4, "alone nobody waits");
    assert_eq!(wait(1_000), 5);
}

#[test]
fn a_lease_is_read_from_the_clock() {
    let holder = Holder::new();
    holder.extend(boottime_ms() + 60_000);
    assert!(!holder.acts(), "this run is not announced yet");
    holder.bar(false);
    assert!(holder.acts());
    holder.bar(true);
    assert!(!holder.acts(), "declared dead");
    let holder = Holder::new();
    holder.bar(false);
    assert!(!holder.acts(), "nothing is granted");
    holder.set_alone(true);
    assert!(holder.acts());
}

#[test]
fn a_lease_that_was_given_back_does_not_come_back() {
    let (holder, mut thaw) = (Holder::new(), None);
    holder.bar(false);
    let renew = |thaw: &mut Option<Thaw>| {
        holder.renewed(boottime_ms(), Thaw { index: 1, until_ms: boottime_ms() + 60_000 }, thaw);
        holder.thaw(1, thaw);
        holder.acts()
    };
    assert!(renew(&mut thaw));
    holder.end();
    assert!(!holder.acts());
    assert!(!renew(&mut thaw), "a renewal was under way");
}
