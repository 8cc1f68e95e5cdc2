//! Batches: each applied once, in order, from runs that are alive.

use super::*;
use crate::state::{BatchError, RESULTS_KEPT};

fn batch(node: NodeId, generation: u64, seq: u64, commands: Vec<Command>) -> Batch {
    Batch { node, generation: Generation(generation), seq, term: None, at: LogTime(seq), commands }
}

fn set(to: &str) -> Command {
    Command::SetRetained(Arc::new(message(to, "x", QoS::AtMostOnce)))
}

#[test]
fn batches_by_sequence_number() {
    let mut state = State::new(Limits::default());
    let mut effects = Vec::new();
    let last = RESULTS_KEPT as u64 + 2;
    assert_eq!(state.apply(&batch(ONE, 1, 2, vec![]), &mut effects), Err(BatchError::Gap { expected: 1 }));
    for seq in 1..=last {
        let refused = (seq % 2 == 0).then(|| Command::FireWill { key: key("nobody"), epoch: Epoch(1) });
        let commands = [set("t")].into_iter().chain(refused).collect();
        state.apply(&batch(ONE, 1, seq, commands), &mut effects).unwrap();
    }
    let before = state.snapshot();
    effects.clear();
    let table = [
        (last + 2, Err(BatchError::Gap { expected: last + 1 })),
        (last, Ok(vec![Outcome::Done, Outcome::Stale])),
        (last - 1, Ok(vec![Outcome::Done])),
        (3, Ok(vec![Outcome::Done])),
        (2, Err(BatchError::Forgotten)),
    ];
    for (seq, expected) in table {
        assert_eq!(state.apply(&batch(ONE, 1, seq, vec![set("other")]), &mut effects), expected, "{seq}");
    }
    assert_eq!(state.snapshot(), before, "a retry and a refusal change nothing");
    assert!(effects.is_empty());
}

#[test]
fn a_newer_run_ends_the_older_ones() {
    let mut state = State::new(Limits::default());
    let mut effects = Vec::new();
    state.apply(&batch(ONE, 1, 1, vec![Command::Claim(Box::new(claim("a", ONE, 60)))]), &mut effects).unwrap();
    assert!(state.session(&key("a")).unwrap().owner.is_some());
    state.apply(&batch(ONE, 2, 1, vec![]), &mut effects).unwrap();
    assert_eq!(state.apply(&batch(ONE, 1, 2, vec![]), &mut effects), Err(BatchError::Dead));
    assert_eq!(state.session(&key("a")).unwrap().owner, None);
    let late = Command::Claim(Box::new(claim("b", ONE, 60)));
    assert_eq!(state.apply(&batch(ONE, 2, 2, vec![late]), &mut effects), Ok(vec![Outcome::Stale]));
    let down = Command::NodeDown { node: ONE, generation: Generation(2) };
    let outcomes = state.apply(&batch(TWO, 1, 1, vec![down.clone(), down, up(ONE, 2)]), &mut effects);
    assert_eq!(outcomes, Ok(vec![Outcome::Done, Outcome::Stale, Outcome::Stale]));
    assert_eq!(state.apply(&batch(ONE, 2, 3, vec![]), &mut effects), Err(BatchError::Dead));
    audit(&state);
}

#[test]
fn log_time_never_goes_back() {
    let mut state = State::new(Limits::default());
    let mut effects = Vec::new();
    for (seq, at, now) in [(1, 50, 50), (2, 40, 50), (3, 60, 60)] {
        let batch = Batch { at: LogTime(at), ..batch(ONE, 1, seq, vec![]) };
        state.apply(&batch, &mut effects).unwrap();
        assert_eq!(state.now(), LogTime(now));
    }
}
