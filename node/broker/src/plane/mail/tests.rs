use std::collections::BTreeMap;

use fulmar_platform::Dialect;
use fulmar_platform::message::{Destination, Form};
use fulmar_platform::registry::{App, Change as RegistryChange, Device, Expect, Product, Record, Registry};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::key::{Generation, NodeId};
use crate::plane::{self, Ground};
use crate::state::command::Owner;

/// What the rest of the state says: `g` is the gateway of `s`; who is connected, and under which epoch.
struct Earth {
    now: LogTime,
    registry: Registry,
    owners: BTreeMap<&'static str, u64>,
}

impl Ground for Earth {
    fn now(&self) -> LogTime {
        self.now
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn owner_of(&self, device: &str) -> Option<Owner> {
        let epoch = self.owners.get(self.registry.connected_through(device)?)?;
        Some(Owner { node: NodeId(1), generation: Generation(1), epoch: Epoch(*epoch) })
    }

    fn alive(&self, _node: NodeId, _generation: Generation) -> bool {
        true
    }
}

const DEVICES: [&str; 4] = ["p_d", "p_e", "p_g", "p_s"];

fn put(registry: &mut Registry, record: Record) {
    registry.apply(&RegistryChange::Put { record, expect: Expect::Anything }, 0, &mut Vec::new()).unwrap();
}

fn device(node_id: &str, gateway_id: &str) -> Record {
    Record::Device(Arc::new(Device { gateway_id: gateway_id.into(), ..Device::new("p", "app", node_id, 0) }))
}

impl Earth {
    fn new() -> Earth {
        let mut registry = Registry::default();
        let app = App { id: "app".into(), name: "".into(), default: true, created_ms: 0 };
        put(&mut registry, Record::App(Arc::new(app)));
        put(&mut registry, Record::Product(Arc::new(Product::new("p", "app", Dialect::Huawei, 0))));
        for (node_id, gateway) in [("d", ""), ("e", ""), ("g", ""), ("s", "p_g")] {
            put(&mut registry, device(node_id, gateway));
        }
        Earth { now: LogTime(1_000_000), registry, owners: BTreeMap::new() }
    }

    fn pass_s(&mut self, seconds: u64) {
        self.now = self.now.plus_s(seconds);
    }
}

fn message(id: &str, bytes: usize) -> Arc<Message> {
    Arc::new(Message {
        id: id.into(),
        name: None,
        content: "x".repeat(bytes).into(),
        object: false,
        form: Form::Standard,
        to: Destination::System,
        properties: None,
    })
}

fn create(device: &str, id: &str, ttl_min: u16) -> Change {
    Change::Create { device: device.into(), message: message(id, 1), ttl_min }
}

struct Bench {
    mail: Mail,
    earth: Earth,
    /// Device, id and status of what applications were told.
    told: Vec<(String, String, Status)>,
}

impl Bench {
    fn new() -> Bench {
        Bench { mail: Mail::default(), earth: Earth::new(), told: Vec::new() }
    }

    fn run(&mut self, change: &Change) -> Answer {
        let mut events = Vec::new();
        let answer = self.mail.apply(change, &self.earth, &mut events);
        for event in events {
            let plane::Event::Mail(event) = event else { panic!("another event") };
            if event.told {
                let (device, id) = (event.device.to_string(), event.cached.message.id.to_string());
                self.told.push((device, id, event.cached.phase.status()));
            }
        }
        assert_eq!(self.mail, restored(&self.mail));
        answer
    }

    fn create(&mut self, device: &str, id: &str, ttl_min: u16) -> u64 {
        match self.run(&create(device, id, ttl_min)) {
            Answer::Created { seq, .. } => seq,
            other => panic!("{other:?}"),
        }
    }

    fn note(&mut self, epoch: u64, device: &str, seq: u64, became: Became) -> bool {
        let notes = vec![Note { device: device.into(), seq, became }];
        self.run(&Change::Note { epoch: Epoch(epoch), notes }) == Answer::Noted(vec![true])
    }

    /// Has everything done that is due.
    fn settle(&mut self) {
        while self.mail.next_due().is_some_and(|at| at <= self.earth.now) {
            for change in self.mail.due(self.earth.now, 3) {
                self.run(&change);
            }
        }
        assert!(self.mail.due(self.earth.now, 100).is_empty());
    }

    fn phase(&self, device: &str, seq: u64) -> Phase {
        self.mail.find(device, seq).unwrap().phase
    }

    fn statuses(&mut self) -> Vec<Status> {
        std::mem::take(&mut self.told).into_iter().map(|(_, _, status)| status).collect()
    }

    fn open(&self, connection: &str) -> Vec<u64> {
        self.mail.open(connection, 0).map(|(_, cached)| cached.seq).collect()
    }
}

fn restored(mail: &Mail) -> Mail {
    let mut again = Mail::default();
    mail.pieces().for_each(|piece| again.restore(piece).unwrap());
    again
}

use Status::{Delivered, Failed, Pending, Timeout};

#[test]
fn a_message_waits_until_the_connection_takes_it() {
    let mut bench = Bench::new();
    let seq = bench.create("p_d", "m", 1440);
    assert_eq!(bench.phase("p_d", seq), Phase::Waiting { parked: false });
    assert!(!bench.note(7, "p_d", seq, Became::Handed), "nobody is connected");
    bench.earth.owners.insert("p_d", 7);
    assert!(!bench.note(6, "p_d", seq, Became::Handed), "an older connection");
    assert!(bench.note(7, "p_d", seq, Became::Handed));
    assert!(!bench.note(7, "p_d", seq, Became::Handed), "once only");
    assert_eq!(bench.statuses(), [Pending, Delivered]);
    assert!(bench.open("p_d").is_empty() && !bench.mail.awaits("p_d"));
    bench.earth.pass_s(2 * 86_400);
    bench.settle();
    assert_eq!(bench.phase("p_d", seq).status(), Delivered, "it is shown for a while");
    bench.earth.pass_s(KEPT_S);
    bench.settle();
    assert!(bench.mail.is_empty() && bench.mail.bytes() == 0);
}

#[test]
fn what_is_not_kept_fails() {
    let mut bench = Bench::new();
    let seq = bench.create("p_d", "a", 0);
    assert_eq!(bench.phase("p_d", seq), Phase::Failed { at: bench.earth.now, why: Failure::Offline });
    assert_eq!(bench.statuses(), [Failed]);
    bench.earth.owners.insert("p_d", 7);
    let seq = bench.create("p_d", "b", 0);
    assert!(bench.note(7, "p_d", seq, Became::NotSubscribed));
    assert_eq!(bench.phase("p_d", seq).failure(), Some(Failure::NotSubscribed));
    let seq = bench.create("p_d", "c", 0);
    bench.earth.pass_s(6);
    bench.settle();
    assert_eq!(bench.phase("p_d", seq).failure(), Some(Failure::Offline), "its connection has not taken it");
    assert_eq!(bench.statuses(), [Pending, Failed, Pending, Failed]);
    assert_eq!(Failure::Offline.error().0, "IOTDA.014016");
    assert_eq!(Failure::NotSubscribed.error().0, "IOTDA.014112");
}

#[test]
fn what_is_kept_times_out() {
    let mut bench = Bench::new();
    bench.earth.owners.insert("p_d", 7);
    let (short, long) = (bench.create("p_d", "short", 5), bench.create("p_d", "long", 1440));
    assert!(bench.note(7, "p_d", short, Became::NotSubscribed));
    assert_eq!(bench.phase("p_d", short), Phase::Waiting { parked: true });
    assert!(bench.note(7, "p_d", short, Became::NotSubscribed), "said again it is harmless");
    bench.earth.pass_s(299);
    bench.settle();
    assert_eq!(bench.statuses(), [Pending, Pending]);
    assert_eq!(bench.run(&Change::Expire { device: "p_d".into(), seq: short }), Answer::Done);
    assert_eq!(bench.phase("p_d", short).status(), Pending, "it is not due yet");
    bench.earth.pass_s(1);
    bench.settle();
    assert_eq!(bench.phase("p_d", short), Phase::TimedOut { at: bench.earth.now });
    bench.earth.pass_s(86_400 - 300);
    bench.settle();
    assert_eq!(bench.phase("p_d", long).status(), Timeout);
    assert_eq!(bench.statuses(), [Timeout, Timeout]);
}

#[test]
fn a_message_of_qos_1_is_sent_in_rounds_until_it_is_acknowledged() {
    let mut bench = Bench::new();
    bench.earth.owners.insert("p_d", 7);
    let (first, second, third) =
        (bench.create("p_d", "a", 60), bench.create("p_d", "b", 60), bench.create("p_d", "c", 60));
    let at = bench.earth.now;
    for seq in [first, second, third] {
        assert!(bench.note(7, "p_d", seq, Became::Sent));
        assert!(!bench.note(7, "p_d", seq, Became::Unanswered), "there are further rounds");
    }
    assert!(bench.note(7, "p_d", first, Became::Acknowledged));
    assert_eq!(bench.phase("p_d", first), Phase::Delivered { at });
    bench.earth.pass_s(20);
    bench.settle();
    bench.earth.owners.insert("p_d", 8);
    for rounds in 1..=ROUNDS_MAX {
        assert!(bench.note(8, "p_d", second, Became::Sent));
        assert_eq!(bench.phase("p_d", second), Phase::Sent { at, rounds });
    }
    assert!(!bench.note(8, "p_d", second, Became::Sent), "no more rounds");
    assert!(bench.note(8, "p_d", second, Became::Unanswered));
    assert!(!bench.note(8, "p_d", second, Became::Acknowledged), "too late");
    assert!(bench.note(8, "p_d", third, Became::Handed), "the device has subscribed with QoS 0 this time");
    assert_eq!(bench.statuses(), [Pending, Pending, Pending, Delivered, Delivered, Delivered, Timeout]);
    let books = *bench.mail.books();
    assert_eq!((books.delivered, books.timed_out), (2, 1));

    let kept = bench.create("p_d", "d", 5);
    let not_kept = bench.create("p_d", "e", 0);
    for seq in [kept, not_kept] {
        assert!(bench.note(8, "p_d", seq, Became::Sent));
    }
    assert!(!bench.note(8, "p_d", not_kept, Became::Sent), "it is not kept for a second round");
    assert!(bench.note(8, "p_d", not_kept, Became::Unanswered));
    bench.earth.pass_s(300);
    bench.settle();
    assert_eq!(bench.statuses(), [Pending, Pending, Delivered, Delivered, Timeout, Timeout]);
}

#[test]
fn at_most_twenty_are_kept() {
    let mut bench = Bench::new();
    for number in 0..25 {
        bench.create("p_d", &format!("m{number}"), 1440);
    }
    bench.create("p_e", "m0", 1440);
    let ids: Vec<String> = bench.mail.of("p_d").iter().map(|cached| cached.message.id.to_string()).collect();
    assert_eq!(ids, (5..25).map(|number| format!("m{number}")).collect::<Vec<_>>());
    assert_eq!((bench.mail.books().replaced, bench.mail.len(), bench.mail.open_len()), (5, 21, 21));
    assert_eq!(bench.run(&create("p_d", "m24", 1440)), Answer::Duplicate);
    assert_eq!(bench.run(&create("p_none", "m", 1440)), Answer::NoDevice);
    bench.create("p_d", "m0", 1440);
    assert_eq!(bench.mail.books().replaced, 6);
    bench.earth.owners.insert("p_d", 7);
    let oldest = bench.open("p_d")[0];
    assert!(bench.note(7, "p_d", oldest, Became::Handed));
    bench.create("p_d", "m100", 1440);
    assert_eq!((bench.mail.books().replaced, bench.mail.books().forgotten), (6, 1), "a finished one went");
}

#[test]
fn messages_are_deleted_by_id_and_with_their_device() {
    let mut bench = Bench::new();
    let seq = bench.create("p_d", "a", 1440);
    let delete = Change::Delete { device: "p_d".into(), id: "a".into() };
    assert_eq!((bench.run(&delete), bench.run(&delete)), (Answer::Done, Answer::NoMessage));
    bench.earth.owners.insert("p_d", 7);
    assert!(!bench.note(7, "p_d", seq, Became::Handed), "what was deleted is not sent");
    bench.create("p_d", "a", 1440);
    bench.create("p_e", "a", 1440);
    bench.mail.device_deleted("p_d");
    assert_eq!((bench.mail.len(), bench.mail.books().deleted), (1, 2));
    assert_eq!(bench.mail, restored(&bench.mail));
}

#[test]
fn sub_devices_are_reached_through_their_gateway() {
    let mut bench = Bench::new();
    let first = bench.create("p_s", "a", 1440);
    let second = bench.create("p_g", "b", 1440);
    let third = bench.create("p_s", "c", 1440);
    assert_eq!(bench.open("p_g"), [first, second, third], "the oldest first, of whichever device");
    assert!(!bench.mail.awaits("p_s"));
    bench.earth.owners.insert("p_g", 7);
    assert!(bench.note(7, "p_s", first, Became::Handed));
    put(&mut bench.earth.registry, device("s", "p_d"));
    bench.mail.device_moved("p_s", "p_d");
    assert_eq!((bench.open("p_g"), bench.open("p_d")), (vec![second], vec![third]));
    assert_eq!(bench.mail, restored(&bench.mail));
    put(&mut bench.earth.registry, device("s", ""));
    bench.mail.device_moved("p_s", "p_s");
    assert_eq!((bench.open("p_s"), bench.mail.awaits("p_d")), (vec![third], false));
    assert_eq!(bench.mail.open("p_s", third).count(), 0);
}

#[test]
fn there_is_a_bound_on_all_of_them() {
    let mut bench = Bench { mail: Mail::default(), earth: Earth::new(), told: Vec::new() };
    let large = message("large", 256 * 1024);
    let fit = MAIL_BYTES_MAX / (large.bytes() as u64 + MESSAGE_COST);
    let names: Vec<String> = (0..=fit).map(|number| format!("x{number}")).collect();
    names.iter().for_each(|name| put(&mut bench.earth.registry, device(name, "")));
    let mut events = Vec::new();
    let mut create = |bench: &mut Bench, name: &str, ttl_min| {
        let change = Change::Create { device: format!("p_{name}").into(), message: large.clone(), ttl_min };
        bench.mail.apply(&change, &bench.earth, &mut events)
    };
    let (last, most) = names.split_last().unwrap();
    for name in most {
        assert!(matches!(create(&mut bench, name, 1440), Answer::Created { .. }));
    }
    assert_eq!(create(&mut bench, last, 1440), Answer::NoRoom);
    assert_eq!(bench.mail.books().refused, 1);
    assert!(bench.mail.bytes() <= MAIL_BYTES_MAX);
    // Finished ones give way.
    let device = "p_x0";
    bench.earth.owners.insert(device, 1);
    let seq = bench.mail.of(device)[0].seq;
    let notes = vec![Note { device: device.into(), seq, became: Became::Handed }];
    bench.mail.apply(&Change::Note { epoch: Epoch(1), notes }, &bench.earth, &mut Vec::new());
    assert!(matches!(create(&mut bench, last, 1440), Answer::Created { .. }));
    assert!(bench.mail.of(device).is_empty());
    assert_eq!(bench.mail.books().forgotten, 1);
}

#[test]
fn a_snapshot_that_cannot_be_is_refused() {
    let mut bench = Bench::new();
    bench.create("p_d", "a", 1440);
    bench.create("p_d", "b", 1440);
    let pieces: Vec<Filed> = bench.mail.pieces().collect();
    let refused = |pieces: Vec<Filed>| {
        let mut mail = Mail::default();
        pieces.into_iter().find_map(|piece| mail.restore(piece).err()).map(|(field, _)| field)
    };
    assert_eq!(refused(pieces.clone()), None);
    let [books, first, second] = &pieces[..] else { panic!("{pieces:?}") };
    assert_eq!(refused(vec![books.clone(), books.clone()]), Some("books"));
    assert_eq!(refused(vec![books.clone(), second.clone(), first.clone()]), Some("seq"));
    assert_eq!(refused(vec![first.clone()]), Some("seq"));
    assert_eq!(refused(vec![Filed::Books { books: Books::default(), seq_last: 0 }]), Some("seq_last"));
    let changed = |change: fn(&mut Box<str>, &mut Cached)| {
        let Filed::Message { mut via, mut cached, device } = second.clone() else { panic!("{second:?}") };
        change(&mut via, &mut cached);
        refused(vec![books.clone(), first.clone(), Filed::Message { device, via, cached }])
    };
    assert_eq!(changed(|via, _| *via = "p_g".into()), Some("via"));
    assert_eq!(changed(|_, cached| cached.message = message("a", 1)), Some("id"));
}

// -- at random, against a model that looks at everything each time

#[derive(Debug, Clone)]
enum Step {
    Create { device: usize, id: u8, ttl_min: u16 },
    Note { device: usize, which: usize, epoch: u64, became: Became },
    Delete { device: usize, id: u8 },
    DeleteDevice { device: usize },
    Connect { device: usize, epoch: u64 },
    Disconnect { device: usize },
    Move { to: usize },
    Pass { seconds: u64 },
    Due { most: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let device = || 0..DEVICES.len();
    let became = prop::sample::select(vec![
        Became::Handed,
        Became::Sent,
        Became::Acknowledged,
        Became::NotSubscribed,
        Became::Unanswered,
    ]);
    prop_oneof![
        6 => (device(), 0..40_u8, prop::sample::select(vec![0_u16, 5, 60, 1440]))
            .prop_map(|(device, id, ttl_min)| Step::Create { device, id, ttl_min }),
        8 => (device(), 0..25_usize, 1..3_u64, became)
            .prop_map(|(device, which, epoch, became)| Step::Note { device, which, epoch, became }),
        1 => (device(), 0..40_u8).prop_map(|(device, id)| Step::Delete { device, id }),
        1 => device().prop_map(|device| Step::DeleteDevice { device }),
        2 => (device(), 1..3_u64).prop_map(|(device, epoch)| Step::Connect { device, epoch }),
        1 => device().prop_map(|device| Step::Disconnect { device }),
        1 => (0..3_usize).prop_map(|to| Step::Move { to }),
        2 => prop::sample::select(vec![1_u64, 7, 200, 4_000, 100_000, 700_000]).prop_map(|seconds| Step::Pass { seconds }),
        2 => (1..50_usize).prop_map(|most| Step::Due { most }),
    ]
}

/// What the derived maps must be, and the books.
fn check(mail: &Mail, earth: &Earth) {
    let all: Vec<(&str, &Cached)> =
        DEVICES.iter().flat_map(|device| mail.of(device).iter().map(|cached| (*device, cached))).collect();
    assert_eq!(mail.bytes(), all.iter().map(|(_, cached)| cached.cost()).sum::<u64>());
    assert_eq!(mail.len(), all.len());
    for device in DEVICES {
        let messages = mail.of(device);
        assert!(messages.len() <= MESSAGES_MAX && messages.is_sorted_by_key(|cached| cached.seq));
        let mut open: Vec<u64> = all
            .iter()
            .filter(|(of, cached)| cached.phase.open() && earth.registry.connected_through(of) == Some(device))
            .map(|(_, cached)| cached.seq)
            .collect();
        open.sort_unstable();
        assert_eq!(mail.open(device, 0).map(|(_, cached)| cached.seq).collect::<Vec<_>>(), open, "{device}");
        assert_eq!(mail.awaits(device), !open.is_empty());
    }
    let next = all
        .iter()
        .filter_map(|(_, cached)| cached.due_at().or_else(|| cached.phase.finished().map(|at| at.plus_s(KEPT_S))));
    assert_eq!(mail.next_due(), next.min());
    let Books { created, delivered, timed_out, failed, replaced, deleted, .. } = *mail.books();
    let waiting = all.iter().filter(|(_, cached)| cached.phase.status() == Pending).count() as u64;
    assert_eq!(created, delivered + timed_out + failed + replaced + deleted + waiting);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Maps and books agree with the messages after every step, a snapshot gives the same again, and a status only goes on:
    /// applications are told of each change once, in an order that makes sense.
    #[test]
    fn at_random(steps in vec(step(), 1..120)) {
        let mut bench = Bench::new();
        let mut seen: BTreeMap<(String, u64), Status> = BTreeMap::new();
        for step in steps {
            let before = bench.told.len();
            match step {
                Step::Create { device, id, ttl_min } => {
                    bench.run(&create(DEVICES[device], &format!("m{id}"), ttl_min));
                }
                Step::Note { device, which, epoch, became } => {
                    let device = DEVICES[device];
                    if let Some(seq) = bench.mail.of(device).get(which).map(|cached| cached.seq) {
                        let holds = bench.note(epoch, device, seq, became);
                        prop_assert!(!holds || bench.earth.owner_of(device).is_some_and(|owner| owner.epoch.0 == epoch));
                    }
                }
                Step::Delete { device, id } => {
                    bench.run(&Change::Delete { device: DEVICES[device].into(), id: format!("m{id}").into() });
                }
                Step::DeleteDevice { device } => bench.mail.device_deleted(DEVICES[device]),
                Step::Connect { device, epoch } => {
                    bench.earth.owners.insert(DEVICES[device], epoch);
                }
                Step::Disconnect { device } => {
                    bench.earth.owners.remove(DEVICES[device]);
                }
                Step::Move { to } => {
                    let gateway = ["p_g", "p_d", ""][to];
                    put(&mut bench.earth.registry, device("s", gateway));
                    bench.mail.device_moved("p_s", if gateway.is_empty() { "p_s" } else { gateway });
                }
                Step::Pass { seconds } => bench.earth.pass_s(seconds),
                Step::Due { most } => {
                    let due = bench.mail.due(bench.earth.now, most);
                    prop_assert!(due.len() <= most);
                    for change in due {
                        prop_assert_eq!(bench.run(&change), Answer::Done);
                    }
                }
            }
            check(&bench.mail, &bench.earth);
            prop_assert!(bench.told.len() <= before + 50);
            for device in DEVICES {
                for cached in bench.mail.of(device) {
                    let status = cached.phase.status();
                    let was = seen.insert((device.to_owned(), cached.seq), status);
                    let goes_on = match was {
                        None | Some(Pending) => true,
                        Some(Delivered) => matches!(status, Delivered | Timeout),
                        Some(Timeout) => status == Timeout,
                        Some(Failed) => status == Failed,
                    };
                    prop_assert!(goes_on, "{} {}: {:?} after {:?}", device, cached.seq, status, was);
                }
            }
        }
        prop_assert_eq!(&bench.mail, &restored(&bench.mail));
    }
}
