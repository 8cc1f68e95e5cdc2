mod model;

use super::*;
use crate::plane::{self, Ground, Plane};
use crate::state::command::Owner;
use fulmar_platform::registry::Registry;

const ONE: (NodeId, Generation) = (NodeId(1), Generation(1));
const TWO: (NodeId, Generation) = (NodeId(2), Generation(1));

/// A world with two nodes.
struct World {
    plane: Plane,
    now: LogTime,
    dead: Vec<(NodeId, Generation)>,
    registry: Registry,
    events: Vec<plane::Event>,
}

/// What the plane sees of it.
struct View<'a>(LogTime, &'a [(NodeId, Generation)], &'a Registry);

impl Ground for View<'_> {
    fn now(&self) -> LogTime {
        self.0
    }

    fn registry(&self) -> &Registry {
        self.2
    }

    fn owner_of(&self, _device: &str) -> Option<Owner> {
        None
    }

    fn alive(&self, node: NodeId, generation: Generation) -> bool {
        !self.1.contains(&(node, generation))
    }
}

fn head(kind: Kind, total: u32) -> Head {
    Head {
        name: "n".into(),
        kind,
        app_id: "app".into(),
        document: Bytes::from_static(b"{}"),
        filter: "".into(),
        version: "".into(),
        policy: Policy::default(),
        total,
    }
}

fn ids(count: u32) -> Vec<Box<str>> {
    (0..count).map(|number| format!("d{number}").into()).collect()
}

fn success(output: &str) -> Outcome {
    Outcome::Success { output: output.into() }
}

fn fail(code: &str) -> Outcome {
    Outcome::Fail { failure: Failure { code: code.into(), message: "no".into() }, again: true }
}

impl World {
    fn new() -> World {
        World {
            plane: Plane::default(),
            now: LogTime(1_000_000),
            dead: Vec::new(),
            registry: Registry::default(),
            events: Vec::new(),
        }
    }

    fn run(&mut self, change: Change) -> Answer {
        self.events.clear();
        let view = View(self.now, &self.dead, &self.registry);
        let answer = self.plane.apply(&plane::Change::Task(change), &view, &mut self.events);
        audit(&self.plane);
        match answer {
            plane::Answer::Task(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, head: Head) -> ObjectId {
        let targets = ids(head.total);
        match self.run(Change::Create { head: Box::new(head), targets }) {
            Answer::Created(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn claim(&mut self, id: ObjectId, (node, generation): (NodeId, Generation)) -> u64 {
        match self.run(Change::Claim { id, node, generation }) {
            Answer::Claimed(epoch) => epoch,
            other => panic!("{other:?}"),
        }
    }

    fn begin(&mut self, id: ObjectId, epoch: u64, targets: &[u32]) -> Vec<u32> {
        match self.run(Change::Begin { id, epoch, targets: targets.to_vec() }) {
            Answer::Begun(begun) => begun,
            other => panic!("{other:?}"),
        }
    }

    fn finish(&mut self, id: ObjectId, epoch: u64, results: Vec<(u32, Outcome)>) -> Answer {
        self.run(Change::Finish { id, epoch, results })
    }

    fn task(&self, id: ObjectId) -> &Task {
        self.plane.tasks.get(id).expect("the task")
    }

    fn stages(&self, id: ObjectId) -> Vec<Stage> {
        self.task(id).targets.iter().map(|target| target.stage).collect()
    }

    fn code(&self, id: ObjectId, number: usize) -> &str {
        let target = self.task(id).targets.get(number).expect("the target");
        target.failure.as_ref().map_or("", |failure| &failure.code)
    }

    /// Statuses that the last change has told.
    fn told(&self) -> Vec<Status> {
        let status = |event: &plane::Event| match event {
            plane::Event::Task(Event::Status(notice)) => Some(notice.status),
            _ => None,
        };
        self.events.iter().filter_map(status).collect()
    }

    fn pass_due(&mut self, seconds: u64) {
        self.now = self.now.plus_s(seconds);
        for _ in 0..100 {
            let due = self.plane.due(self.now, 10);
            if due.is_empty() {
                return;
            }
            for change in due {
                let plane::Change::Task(change) = change else { panic!("{change:?}") };
                self.run(change);
            }
        }
        panic!("something is due for ever");
    }
}

/// What is derived is what a restore derives.
fn audit(plane: &Plane) {
    let mut restoring = plane::Restoring::default();
    plane.pieces().try_for_each(|piece| restoring.add(piece)).expect("pieces in order");
    assert_eq!(&restoring.finish().expect("all of them"), plane);
    let tasks = &plane.tasks;
    assert!(tasks.count() <= TASKS_MAX && tasks.open().count() <= OPEN_MAX);
    assert!(tasks.targets_kept() <= TARGETS_KEPT_MAX && tasks.bytes() <= BYTES_MAX);
    for task in tasks.all() {
        assert!(task.text_bytes <= TEXT_BYTES_MAX);
        assert!(task.status.open() || task.complete(), "{task:?}");
        assert!(task.owner.is_none() || task.status.runs());
        let all = task.targets.iter().zip(0_u32..);
        let told: Vec<u32> = all.filter(|(target, _)| target.stage == Stage::Processing).map(|(_, n)| n).collect();
        let expected = if task.head.kind.upgrades() { told } else { Vec::new() };
        let known = |number: &u32| tasks.upgrades.values().any(|known| known == number);
        assert!(expected.iter().all(known));
    }
}

#[test]
fn names_are_read_as_they_are_written() {
    assert!(Kind::ALL.into_iter().all(|kind| Kind::parse(kind.as_str()) == Some(kind)));
    assert!(Status::ALL.into_iter().all(|status| Status::parse(status.as_str()) == Some(status)));
    assert!(Stage::ALL.into_iter().all(|stage| Stage::parse(stage.as_str()) == Some(stage)));
    assert_eq!((Status::Waitting.as_str(), Kind::parse("freezedevices")), ("Waitting", None));
}

#[test]
fn a_task_runs_from_its_creation_to_its_end() {
    let mut world = World::new();
    let id = world.create(head(Kind::CreateCommands, 3));
    assert_eq!((id.seconds(), world.told()), (1_000, vec![Status::Processing]));
    let epoch = world.claim(id, ONE);
    assert_eq!(world.begin(id, epoch, &[0, 2, 2, 7]), [0, 2]);
    assert_eq!(world.begin(id, epoch, &[0, 1]), [1], "what has begun is not begun again");
    let two = world.finish(id, epoch, vec![(0, success("{}")), (1, fail("IOTDA.014111"))]);
    assert_eq!((two, world.told()), (Answer::Done, vec![]));
    world.finish(id, epoch, vec![(2, fail("IOTDA.014016")), (0, fail("late"))]);
    assert_eq!(world.told(), [Status::PartialSuccess]);
    let task = world.task(id);
    let progress = Progress { success: 1, fail: 2, ..Progress::default() };
    assert_eq!((task.progress(), task.owner, &*task.targets[0].output), (progress, None, "{}"));
    assert_eq!(task.description(), "1 of 3 succeeded");
    assert_eq!((world.code(id, 1), world.code(id, 2)), ("IOTDA.014111", "IOTDA.014016"));
}

#[test]
fn the_last_status_says_how_many_succeeded() {
    for (outcomes, wanted) in [
        (vec![success(""), success("")], Status::Success),
        (vec![success(""), fail("x")], Status::PartialSuccess),
        (vec![fail("x"), fail("x")], Status::Fail),
    ] {
        let mut world = World::new();
        let id = world.create(head(Kind::FreezeDevices, 2));
        let epoch = world.claim(id, ONE);
        world.begin(id, epoch, &[0, 1]);
        world.finish(id, epoch, (0..).zip(outcomes).collect());
        assert_eq!((world.task(id).status, world.told()), (wanted, vec![wanted]));
    }
}

#[test]
fn targets_come_in_parts_or_not_at_all() {
    let mut world = World::new();
    let create = |total| Change::Create { head: Box::new(head(Kind::CreateMessages, total)), targets: ids(2) };
    let Answer::Created(id) = world.run(create(4)) else { panic!("not created") };
    assert_eq!((world.told(), world.task(id).status), (vec![], Status::Initializing));
    let more = |from, count| Change::Extend { id, from, targets: ids(count) };
    assert_eq!(world.run(more(1, 1)), Answer::Refused(Refusal::Stale));
    assert_eq!(world.run(more(2, 3)), Answer::Refused(Refusal::Stale), "more than there are");
    assert_eq!(world.run(more(2, 2)), Answer::Done);
    assert_eq!(world.told(), [Status::Processing]);
    assert_eq!(world.run(more(4, 0)), Answer::Refused(Refusal::Stale));
    let Answer::Created(lost) = world.run(create(4)) else { panic!("not created") };
    assert_eq!(world.run(Change::Delete { id: lost }), Answer::Refused(Refusal::Status));
    world.pass_due(INITIALIZING_S - 1);
    assert!(world.plane.tasks.get(lost).is_some());
    world.pass_due(1);
    assert!(world.plane.tasks.get(lost).is_none() && world.plane.tasks.get(id).is_some());
}

#[test]
fn nobody_but_the_owner_goes_on() {
    let mut world = World::new();
    let id = world.create(head(Kind::CreateCommands, 3));
    let none = world.run(Change::Begin { id, epoch: 0, targets: vec![0] });
    assert_eq!(none, Answer::Refused(Refusal::Stale), "nobody has claimed it");
    let first = world.claim(id, ONE);
    assert_eq!(world.begin(id, first, &[0]), [0]);
    let (node, generation) = TWO;
    assert_eq!(world.run(Change::Claim { id, node, generation }), Answer::Refused(Refusal::Stale));
    world.dead.push(ONE);
    let second = world.claim(id, TWO);
    assert_eq!((world.stages(id)[0], world.code(id, 0)), (Stage::Fail, LOST));
    assert_eq!(world.finish(id, first, vec![(0, success(""))]), Answer::Refused(Refusal::Stale));
    let late = world.run(Change::Begin { id, epoch: first, targets: vec![1] });
    assert_eq!(late, Answer::Refused(Refusal::Stale));
    assert_eq!(world.begin(id, second, &[0, 1, 2]), [1, 2]);
    world.finish(id, second, vec![(1, success("")), (2, success(""))]);
    assert_eq!(world.told(), [Status::PartialSuccess]);
    assert_eq!(world.run(Change::Claim { id, node, generation }), Answer::Refused(Refusal::Stale), "it is over");
}

#[test]
fn what_is_harmless_is_done_again() {
    for kind in Kind::ALL {
        let mut world = World::new();
        let id = world.create(head(kind, 2));
        let epoch = world.claim(id, ONE);
        world.begin(id, epoch, &[0]);
        // The same run, whose actor had to be started anew.
        world.claim(id, ONE);
        let wanted = match kind {
            _ if kind.upgrades() => Stage::Processing,
            _ if kind.repeatable() => Stage::Waitting,
            _ => Stage::Fail,
        };
        assert_eq!(world.stages(id), [wanted, Stage::Waitting], "{kind:?}");
        assert_eq!((world.task(id).targets[0].tries, world.task(id).targets[1].tries), (1, 0));
    }
}

#[test]
fn failed_targets_are_tried_again_as_the_policy_says() {
    let mut world = World::new();
    let policy = Policy { schedule_at: None, retry_count: 1, retry_interval_s: 60 };
    let id = world.create(Head { policy, ..head(Kind::CreateCommands, 2) });
    let epoch = world.claim(id, ONE);
    world.begin(id, epoch, &[0, 1]);
    let failure = Failure { code: "x".into(), message: "never".into() };
    world.finish(id, epoch, vec![(0, fail("x")), (1, Outcome::Fail { failure, again: false })]);
    assert_eq!(world.stages(id), [Stage::FailWaitRetry, Stage::Fail]);
    assert_eq!(world.task(id).targets[0].next_try, world.now.plus_s(60));
    assert_eq!(world.begin(id, epoch, &[0, 1]), [0]);
    world.finish(id, epoch, vec![(0, fail("y"))]);
    assert_eq!((world.stages(id)[0], world.code(id, 0), world.told()), (Stage::Fail, "y", vec![Status::Fail]));
    // By hand, all of them anew.
    assert_eq!(world.run(Change::Retry { id, targets: vec![] }), Answer::Done);
    assert_eq!((world.told(), world.stages(id)), (vec![Status::Processing], vec![Stage::Waitting; 2]));
    assert_eq!(world.task(id).targets[0].tries, 0);
    let epoch = world.claim(id, TWO);
    world.begin(id, epoch, &[0, 1]);
    world.finish(id, epoch, vec![(1, success("")), (0, fail("x"))]);
    assert_eq!(world.stages(id), [Stage::FailWaitRetry, Stage::Success]);
    assert_eq!(world.run(Change::Retry { id, targets: vec![0, 1] }), Answer::Done);
    assert_eq!(world.events, [], "nothing has failed for good");
    world.begin(id, epoch, &[0]);
    world.finish(id, epoch, vec![(0, fail("x"))]);
    assert_eq!(world.told(), [Status::PartialSuccess]);
}

#[test]
fn a_scheduled_task_begins_at_its_time() {
    let mut world = World::new();
    let at = |world: &World, seconds| Policy { schedule_at: Some(world.now.plus_s(seconds)), ..Policy::default() };
    let policy = at(&world, 100);
    let id = world.create(Head { policy, ..head(Kind::FreezeDevices, 1) });
    assert_eq!((world.told(), world.plane.next_due()), (vec![Status::Waitting], policy.schedule_at));
    let (node, generation) = ONE;
    assert_eq!(world.run(Change::Claim { id, node, generation }), Answer::Refused(Refusal::Stale));
    assert_eq!((world.run(Change::Due { id }), world.told()), (Answer::Done, vec![]), "not yet");
    world.pass_due(100);
    assert_eq!((world.task(id).status, world.plane.next_due()), (Status::Processing, None));
    let policy = at(&world, 5);
    let other = world.create(Head { policy, ..head(Kind::FreezeDevices, 1) });
    assert_eq!(
        (world.run(Change::Stop { id: other, targets: vec![] }), world.told()),
        (Answer::Done, vec![Status::Stopped])
    );
    assert_eq!(world.plane.next_due(), None);
    let policy = at(&world, 5);
    let gone = world.create(Head { policy, ..head(Kind::FreezeDevices, 1) });
    assert_eq!(world.run(Change::Delete { id: gone }), Answer::Done);
    assert_eq!(
        (world.plane.next_due(), world.run(Change::Delete { id: gone })),
        (None, Answer::Refused(Refusal::Missing))
    );
}

#[test]
fn a_task_that_is_stopped_sees_through_what_has_begun() {
    let mut world = World::new();
    let id = world.create(head(Kind::CreateCommands, 3));
    let epoch = world.claim(id, ONE);
    world.begin(id, epoch, &[0]);
    assert_eq!(world.run(Change::Stop { id, targets: vec![1] }), Answer::Done);
    assert_eq!((world.stages(id)[1], world.told()), (Stage::Stopped, vec![]));
    world.run(Change::Stop { id, targets: vec![] });
    assert_eq!(world.told(), [Status::Stopping]);
    assert_eq!(world.stages(id), [Stage::Processing, Stage::Stopped, Stage::Stopped]);
    assert!(world.begin(id, epoch, &[1, 2]).is_empty());
    assert_eq!(world.run(Change::Delete { id }), Answer::Refused(Refusal::Status));
    assert_eq!(world.run(Change::Retry { id, targets: vec![] }), Answer::Refused(Refusal::Status));
    world.finish(id, epoch, vec![(0, success(""))]);
    assert_eq!(world.told(), [Status::Stopped]);
    assert_eq!(world.run(Change::Stop { id, targets: vec![] }), Answer::Refused(Refusal::Status));
    world.run(Change::Retry { id, targets: vec![2] });
    assert_eq!(world.stages(id), [Stage::Success, Stage::Stopped, Stage::Waitting]);
}

#[test]
fn devices_tell_how_their_upgrades_end() {
    let mut world = World::new();
    let id = world.create(head(Kind::FirmwareUpgrade, 4));
    let epoch = world.claim(id, ONE);
    world.begin(id, epoch, &[0, 1, 2, 3]);
    let of = |world: &World, device: &str| -> Vec<u32> {
        world.plane.tasks.upgrades_of(device).map(|(_, number)| number).collect()
    };
    assert_eq!((of(&world, "d1"), of(&world, "d9")), (vec![1], vec![]));
    world.run(Change::Told { id, target: 1, outcome: success("{}") });
    world.run(Change::Told { id, target: 1, outcome: fail("late") });
    assert_eq!((world.stages(id)[1], of(&world, "d1")), (Stage::Success, vec![]));
    world.pass_due(UPGRADE_S);
    assert_eq!((world.task(id).status, world.code(id, 3)), (Status::PartialSuccess, OVERDUE));
    assert!(!world.plane.tasks.upgrading());
    let other = world.create(head(Kind::FreezeDevices, 1));
    let stale = world.run(Change::Told { id: other, target: 0, outcome: success("") });
    assert_eq!(stale, Answer::Refused(Refusal::Stale));
    let id = world.create(head(Kind::SoftwareUpgrade, 1));
    let epoch = world.claim(id, ONE);
    world.begin(id, epoch, &[0]);
    world.run(Change::Stop { id, targets: vec![] });
    assert_eq!(world.told(), [Status::Stopped], "its end is not waited for");
}

#[test]
fn finished_tasks_make_room_the_oldest_first() {
    let mut world = World::new();
    let finished = |world: &mut World| {
        let id = world.create(head(Kind::FreezeDevices, 1));
        world.run(Change::Stop { id, targets: vec![] });
        id
    };
    let open = world.create(head(Kind::FreezeDevices, 1));
    let all: Vec<ObjectId> = (0..TASKS_MAX).map(|_| finished(&mut world)).collect();
    assert!(world.plane.tasks.get(open).is_some());
    let gone: Vec<bool> = all.iter().map(|id| world.plane.tasks.get(*id).is_none()).collect();
    assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
    assert!(gone[0] && world.plane.tasks.evicted() == 1);
    world.create(head(Kind::FreezeDevices, 30));
    let many = Change::Create { head: Box::new(head(Kind::FreezeDevices, 30)), targets: vec![] };
    assert_eq!(world.run(many), Answer::Refused(Refusal::Full), "the other one is not finished");
    for _ in 2..OPEN_MAX {
        world.create(head(Kind::FreezeDevices, 1));
    }
    let more = || Change::Create { head: Box::new(head(Kind::FreezeDevices, 1)), targets: ids(1) };
    assert_eq!(world.run(more()), Answer::Refused(Refusal::Full));
    let last = *all.last().expect("there are some");
    assert!(
        world.plane.tasks.get(last).is_none()
            || world.run(Change::Retry { id: last, targets: vec![] }) == Answer::Refused(Refusal::Full)
    );
}

#[test]
fn long_outputs_are_cut_and_too_many_left_out() {
    let mut world = World::new();
    let id = world.create(head(Kind::CreateCommands, 3));
    let epoch = world.claim(id, ONE);
    world.begin(id, epoch, &[0, 1, 2]);
    let text = "é".repeat(150);
    world.finish(id, epoch, vec![(0, success(&text)), (1, success(&text))]);
    assert_eq!((world.task(id).targets[0].output.len(), world.task(id).targets[1].output.len()), (300, 0));
    assert!(world.task(id).cropped && world.task(id).description().ends_with("no room for all outputs"));
    let failure = Failure { code: "c".into(), message: "é".repeat(200).into() };
    world.finish(id, epoch, vec![(2, Outcome::Fail { failure, again: false })]);
    assert_eq!((world.code(id, 2), world.task(id).status), ("c", Status::PartialSuccess));
    assert_eq!(super::apply::cut("aéb", 2).as_ref(), "a");
}

#[test]
fn pieces_out_of_order_are_no_tasks() {
    let mut world = World::new();
    for kind in [Kind::FirmwareUpgrade, Kind::CreateCommands] {
        let id = world.create(head(kind, 9));
        let epoch = world.claim(id, ONE);
        world.begin(id, epoch, &[0, 1]);
        world.finish(id, epoch, vec![(1, success("x"))]);
    }
    let pieces: Vec<Filed> = world.plane.tasks.pieces().collect();
    assert!(pieces.len() > 5, "targets are in several pieces: {}", pieces.len());
    let restore = |pieces: &[Filed]| {
        let mut tasks = Tasks::default();
        pieces.iter().cloned().try_for_each(|piece| tasks.restore(piece))?;
        tasks.restored().map(|()| tasks)
    };
    assert_eq!(restore(&pieces).as_ref(), Ok(&world.plane.tasks));
    for at in 0..pieces.len() {
        let mut without = pieces.clone();
        without.remove(at);
        assert!(restore(&without).is_err(), "without {at}");
        let mut twice = pieces.clone();
        twice.insert(at, pieces[at].clone());
        assert!(restore(&twice).is_err(), "{at} twice");
    }
}
