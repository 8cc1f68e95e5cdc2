//! Random changes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Create { kind: usize, total: u32, first: u32, retries: u8, later: bool },
    Extend { task: usize, count: u32 },
    Claim { task: usize, two: bool },
    Begin { task: usize, targets: Vec<u32>, stale: bool },
    Finish { task: usize, targets: Vec<(u32, bool, u16)> },
    Told { task: usize, target: u32, well: bool },
    Stop { task: usize, targets: Vec<u32> },
    Retry { task: usize, targets: Vec<u32> },
    Delete { task: usize },
    Pass { seconds: u64 },
    Die,
}

fn step() -> impl Strategy<Value = Step> {
    let task = || 0..8_usize;
    let targets = || vec(0..6_u32, 0..4);
    prop_oneof![
        3 => (0..Kind::ALL.len(), 1..6_u32, 0..6_u32, 0..3_u8, prop::bool::weighted(0.2))
            .prop_map(|(kind, total, first, retries, later)| Step::Create { kind, total, first, retries, later }),
        2 => (task(), 1..4_u32).prop_map(|(task, count)| Step::Extend { task, count }),
        4 => (task(), any::<bool>()).prop_map(|(task, two)| Step::Claim { task, two }),
        6 => (task(), targets(), prop::bool::weighted(0.1))
            .prop_map(|(task, targets, stale)| Step::Begin { task, targets, stale }),
        6 => (task(), vec((0..6_u32, any::<bool>(), 0..200_u16), 0..4))
            .prop_map(|(task, targets)| Step::Finish { task, targets }),
        2 => (task(), 0..6_u32, any::<bool>()).prop_map(|(task, target, well)| Step::Told { task, target, well }),
        1 => (task(), targets()).prop_map(|(task, targets)| Step::Stop { task, targets }),
        1 => (task(), targets()).prop_map(|(task, targets)| Step::Retry { task, targets }),
        1 => task().prop_map(|task| Step::Delete { task }),
        1 => prop::sample::select(vec![1, 70, UPGRADE_S]).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Die),
    ]
}

proptest! {
    /// Random changes: what is derived stays right (see [`audit`], which also restores), a target is begun only from a
    /// stage that waits, and what has ended stays so but for a retry by hand.
    #[test]
    fn random_changes_keep_the_books(steps in vec(step(), 1..80)) {
        let mut world = World::new();
        let mut known: Vec<ObjectId> = Vec::new();
        for step in steps {
            let before = world.plane.tasks.clone();
            let id = |task: usize| known.iter().rev().nth(task).copied().unwrap_or_default();
            let epoch = |id: ObjectId| before.get(id).map_or(0, |task| task.epoch);
            let outcome = |well: bool, bytes: u16| {
                let text = "x".repeat(bytes.into());
                if well { success(&text) } else { fail("c") }
            };
            let by_hand = matches!(step, Step::Retry { .. });
            let change = match step {
                Step::Create { kind, total, first, retries, later } => {
                    let schedule_at = later.then(|| world.now.plus_s(60));
                    let policy = Policy { schedule_at, retry_count: retries, retry_interval_s: 1 };
                    let head = Head { policy, ..head(Kind::ALL[kind], total) };
                    Change::Create { head: Box::new(head), targets: ids(first.min(total)) }
                }
                Step::Extend { task, count } => {
                    let from = before.get(id(task)).map_or(0, |task| u32::try_from(task.targets.len()).unwrap());
                    Change::Extend { id: id(task), from, targets: ids(count) }
                }
                Step::Claim { task, two } => {
                    let (node, generation) = if two { TWO } else { ONE };
                    Change::Claim { id: id(task), node, generation }
                }
                Step::Begin { task, targets, stale } => {
                    Change::Begin { id: id(task), epoch: epoch(id(task)) + u64::from(stale), targets }
                }
                Step::Finish { task, targets } => {
                    let results = targets.into_iter().map(|(number, well, bytes)| (number, outcome(well, bytes)));
                    Change::Finish { id: id(task), epoch: epoch(id(task)), results: results.collect() }
                }
                Step::Told { task, target, well } => {
                    Change::Told { id: id(task), target, outcome: outcome(well, 3) }
                }
                Step::Stop { task, targets } => Change::Stop { id: id(task), targets },
                Step::Retry { task, targets } => Change::Retry { id: id(task), targets },
                Step::Delete { task } => Change::Delete { id: id(task) },
                Step::Pass { seconds } => {
                    world.pass_due(seconds);
                    continue;
                }
                Step::Die => {
                    world.dead = if world.dead.is_empty() { vec![ONE] } else { vec![] };
                    continue;
                }
            };
            if let Answer::Created(id) = world.run(change) {
                known.push(id);
            }
            for task in before.all() {
                let Some(after) = world.plane.tasks.get(task.id) else { continue };
                for (old, new) in task.targets.iter().zip(after.targets.iter()) {
                    let ended = matches!(old.stage, Stage::Success | Stage::Fail | Stage::Stopped);
                    prop_assert!(!ended || by_hand || old == new, "{old:?} became {new:?}");
                    let begun = old.stage != new.stage && new.stage == Stage::Processing;
                    let waited = matches!(old.stage, Stage::Waitting | Stage::FailWaitRetry);
                    prop_assert!(!begun || waited, "{old:?} became {new:?}");
                }
            }
        }
    }
}
