//! Two replicas side by side under random commands: equal states, equal outcomes, balanced books.

use proptest::collection::vec;
use proptest::prelude::*;

use fulmar_platform::registry::{Event, Status};

use super::*;
use crate::state::command::Replay;

/// The last two are devices.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "p_d", "p_e"];
const DEVICES: [&str; 2] = ["p_d", "p_e"];
const TOPICS: [&str; 4] = ["t", "t/u", "v", "t/w"];
const FILTERS: [&str; 7] = ["t", "t/#", "+", "#", "$share/g/t", "$share/g/#", "$share/h/+"];
const EXPIRIES: [u32; 4] = [0, 5, 60, 3600];

fn key(name: &str) -> SessionKey {
    if DEVICES.contains(&name) { devices::device_key(name) } else { super::key(name) }
}

#[derive(Debug, Clone)]
enum Step {
    Claim {
        who: usize,
        node: u64,
        clean_start: bool,
        expiry: usize,
        will: Option<(usize, u32, bool)>,
        /// Of a device: with the client id that both may have.
        exclusive: bool,
    },
    PutDevice {
        which: usize,
        frozen: bool,
        timeout_s: u32,
    },
    DeleteDevice {
        which: usize,
    },
    CutDevice {
        which: usize,
    },
    Release {
        who: usize,
        discard_will: bool,
        expiry: Option<usize>,
    },
    Subscribe {
        who: usize,
        filter: usize,
        qos: QoS,
        flags: (bool, bool),
        id: Option<u32>,
    },
    Unsubscribe {
        who: usize,
        filter: usize,
    },
    Publish {
        from: Option<usize>,
        to: usize,
        qos: QoS,
        retain: bool,
        bytes: usize,
        expiry: Option<u64>,
        id: Option<u16>,
    },
    Downlink {
        who: usize,
        qos: QoS,
    },
    Retain {
        to: usize,
        bytes: usize,
        expiry: Option<u64>,
    },
    Pubrel {
        who: usize,
        id: u16,
    },
    Settle {
        who: usize,
        floor: u64,
        settled: Vec<u64>,
        received: Vec<u64>,
        refused: Vec<u64>,
    },
    Replay {
        who: usize,
        filter: usize,
    },
    NodeDown {
        node: u64,
    },
    NodeUp {
        node: u64,
    },
    Routes {
        node: u64,
        add: Vec<usize>,
        remove: Vec<usize>,
    },
    Remove {
        node: u64,
    },
    Due {
        commands_max: usize,
    },
    Pass {
        ms: u64,
    },
    Limit {
        entries: u32,
        bytes: u64,
        ttl_s: u32,
    },
    /// The second replica starts over from the parts of a snapshot.
    Restore,
    /// The last batch comes again.
    Retry,
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..NAMES.len();
    let which = || 0..DEVICES.len();
    let to = || 0..TOPICS.len();
    let expiry = || proptest::option::of(0..20_u64);
    let will = proptest::option::of((to(), 0..10_u32, any::<bool>()));
    let seqs = || vec(0..12_u64, 0..3);
    prop_oneof![
        5 => (who(), 1..4_u64, prop::bool::weighted(0.2), 0..EXPIRIES.len(), will, any::<bool>()).prop_map(
            |(who, node, clean_start, expiry, will, exclusive)| {
                Step::Claim { who, node, clean_start, expiry, will, exclusive }
            }),
        2 => (which(), prop::bool::weighted(0.3), 0..9_u32)
            .prop_map(|(which, frozen, timeout_s)| Step::PutDevice { which, frozen, timeout_s }),
        1 => which().prop_map(|which| Step::DeleteDevice { which }),
        1 => which().prop_map(|which| Step::CutDevice { which }),
        3 => (who(), any::<bool>(), proptest::option::weighted(0.2, 0..EXPIRIES.len()))
            .prop_map(|(who, discard_will, expiry)| Step::Release { who, discard_will, expiry }),
        9 => (who(), 0..FILTERS.len(), qos(), any::<(bool, bool)>(), proptest::option::of(1..4_u32))
            .prop_map(|(who, filter, qos, flags, id)| Step::Subscribe { who, filter, qos, flags, id }),
        2 => (who(), 0..FILTERS.len()).prop_map(|(who, filter)| Step::Unsubscribe { who, filter }),
        24 => (proptest::option::of(who()), to(), qos(), any::<bool>(), 0..200_usize, expiry(), proptest::option::of(1..5_u16))
            .prop_map(|(from, to, qos, retain, bytes, expiry, id)| Step::Publish { from, to, qos, retain, bytes, expiry, id }),
        1 => (who(), qos()).prop_map(|(who, qos)| Step::Downlink { who, qos }),
        2 => (to(), 0..200_usize, expiry()).prop_map(|(to, bytes, expiry)| Step::Retain { to, bytes, expiry }),
        2 => (who(), 1..5_u16).prop_map(|(who, id)| Step::Pubrel { who, id }),
        6 => (who(), 0..12_u64, seqs(), seqs(), seqs()).prop_map(
            |(who, floor, settled, received, refused)| Step::Settle { who, floor, settled, received, refused }),
        2 => (who(), 0..FILTERS.len()).prop_map(|(who, filter)| Step::Replay { who, filter }),
        1 => (1..4_u64).prop_map(|node| Step::NodeDown { node }),
        1 => (1..4_u64).prop_map(|node| Step::NodeUp { node }),
        4 => (1..4_u64, vec(0..FILTERS.len(), 0..4), vec(0..FILTERS.len(), 0..2))
            .prop_map(|(node, add, remove)| Step::Routes { node, add, remove }),
        1 => prop_oneof![9 => 4..6_u64, 1 => 1..4_u64].prop_map(|node| Step::Remove { node }),
        5 => (1..5_usize).prop_map(|commands_max| Step::Due { commands_max }),
        3 => (0..4000_u64).prop_map(|ms| Step::Pass { ms }),
        1 => (1..8_u32, 300..5000_u64, 0..10_u32).prop_map(|(entries, bytes, ttl_s)| Step::Limit { entries, bytes, ttl_s }),
        1 => Just(Step::Restore),
        2 => Just(Step::Retry),
    ]
}

struct Pair {
    one: State,
    two: State,
    seq: u64,
    generations: BTreeMap<u64, u64>,
    at: LogTime,
    last: Option<(Batch, Vec<Outcome>)>,
    /// Epoch of the last status of each device, and whether it was that it went.
    told: BTreeMap<String, (u64, bool)>,
}

impl Pair {
    fn epoch(&self, who: usize) -> Epoch {
        self.one.session(&key(NAMES[who])).map_or(Epoch(0), |view| view.epoch)
    }

    fn publication(&self, to: usize, qos: QoS, retain: bool, bytes: usize, expiry: Option<u64>) -> Publication {
        let expires_at = expiry.map(|s| self.at.plus_s(s));
        Publication { retain, expires_at, accepted_at: self.at, ..message(TOPICS[to], &"x".repeat(bytes), qos) }
    }

    /// The commands of a step, as a node that has applied everything would make them.
    fn commands(&mut self, step: &Step) -> Vec<Command> {
        let generation = |pair: &Pair, node: u64| Generation(pair.generations.get(&node).copied().unwrap_or(1));
        vec![match step.clone() {
            Step::Claim { who, node, clean_start, expiry, will, exclusive } => {
                let will = will.map(|(to, delay_s, retain)| Will {
                    publication: Arc::new(self.publication(to, QoS::AtLeastOnce, retain, 9, None)),
                    message_expiry_s: retain.then_some(3),
                    delay_s,
                });
                let (node, generation, expiry_s) = (NodeId(node), generation(self, node), EXPIRIES[expiry]);
                Command::Claim(Box::new(Claim {
                    key: key(NAMES[who]),
                    node,
                    generation,
                    clean_start,
                    expiry_s,
                    will,
                    exclusive_client_id: exclusive.then(|| "same".into()),
                    judged_by: None,
                }))
            }
            Step::PutDevice { which, frozen, timeout_s } => {
                let node_id = DEVICES[which].strip_prefix("p_").unwrap();
                devices::put(devices::device(node_id, frozen, timeout_s))
            }
            Step::DeleteDevice { which } => devices::delete(DEVICES[which]),
            Step::CutDevice { which } => devices::disconnect(DEVICES[which]),
            Step::Release { who, discard_will, expiry } => {
                let (key, epoch, expiry_s) = (key(NAMES[who]), self.epoch(who), expiry.map(|at| EXPIRIES[at]));
                Command::Release(Release { key, epoch, discard_will, expiry_s, sent_below: None })
            }
            Step::Subscribe { who, filter, qos, flags, id } => {
                let mut sub = subscription(FILTERS[filter], qos);
                sub.id = id;
                (sub.options.no_local, sub.options.retain_as_published) = flags;
                Command::Subscribe { key: key(NAMES[who]), epoch: self.epoch(who), filters: vec![sub] }
            }
            Step::Unsubscribe { who, filter: at } => {
                let filters = vec![filter(FILTERS[at])];
                Command::Unsubscribe { key: key(NAMES[who]), epoch: self.epoch(who), filters }
            }
            Step::Publish { from, to, qos, retain, bytes, expiry, id } => {
                let mut publication = self.publication(to, qos, retain, bytes, expiry);
                publication.origin = from.map(|who| key(NAMES[who]));
                let received = from.zip(id).filter(|_| qos == QoS::ExactlyOnce);
                let received = received.map(|(who, id)| (key(NAMES[who]), self.epoch(who), id));
                let publication = Arc::new(publication);
                Command::Publish(Box::new(PublishCommand { publication, received, only: None, epoch: None }))
            }
            Step::Downlink { who, qos } => {
                let publication = Arc::new(self.publication(0, qos, true, 5, None));
                let only = Some(key(NAMES[who]));
                Command::Publish(Box::new(PublishCommand { publication, received: None, only, epoch: None }))
            }
            Step::Retain { to, bytes, expiry } => {
                Command::SetRetained(Arc::new(self.publication(to, QoS::AtLeastOnce, true, bytes, expiry)))
            }
            Step::Pubrel { who, id } => {
                Command::ReleaseReceived { key: key(NAMES[who]), epoch: self.epoch(who), packet_id: id }
            }
            Step::Settle { who, floor, settled, received, refused } => {
                let first = self.one.session(&key(NAMES[who])).map_or(0, |view| view.queue_floor);
                let from = |seqs: Vec<u64>| seqs.into_iter().map(|seq| first + seq).collect();
                let (settled, received, refused) = (from(settled), from(received), from(refused));
                let (key, epoch, floor) = (key(NAMES[who]), self.epoch(who), first + floor / 4);
                Command::Settle(vec![Settlement { key, epoch, floor, settled, received, refused }])
            }
            Step::Replay { who, filter: at } => Command::ReplayRetained(Box::new(Replay {
                key: key(NAMES[who]),
                epoch: self.epoch(who),
                filter: filter(FILTERS[at]),
                granted: QoS::ExactlyOnce,
                subscription_ids: Default::default(),
                topics: TOPICS.iter().map(|text| topic(text)).collect(),
            })),
            Step::NodeDown { node } => Command::NodeDown { node: NodeId(node), generation: generation(self, node) },
            Step::NodeUp { node } => {
                *self.generations.entry(node).or_insert(1) += 1;
                up(NodeId(node), generation(self, node).0)
            }
            Step::Routes { node, add, remove } => {
                let named = |numbers: Vec<usize>| numbers.into_iter().map(|at| filter(FILTERS[at])).collect();
                let (generation, node) = (generation(self, node), NodeId(node));
                Command::LiveRoutes(Box::new(LiveRoutes { node, generation, add: named(add), remove: named(remove) }))
            }
            Step::Remove { node } => Command::RemoveNode { node: NodeId(node) },
            Step::Limit { entries, bytes, ttl_s } => Command::SetLimits(Limits {
                queue_entries_max: entries,
                queue_bytes_max: bytes / 2,
                replicated_bytes_max: bytes,
                queue_ttl_s: ttl_s,
                ..Limits::default()
            }),
            Step::Due { commands_max } => return self.one.due(self.at, commands_max),
            Step::Pass { ms } => {
                self.at.0 += ms;
                return Vec::new();
            }
            Step::Restore | Step::Retry => return Vec::new(),
        }]
    }

    fn run(&mut self, commands: Vec<Command>) {
        self.seq += 1;
        self.apply(self.seq, commands);
    }

    fn apply(&mut self, seq: u64, commands: Vec<Command>) {
        let before = (answers(&self.one), self.one.subscriptions_version());
        let batch = Batch { node: NodeId(9), generation: Generation(1), seq, term: None, at: self.at, commands };
        let (mut one, mut two) = (Vec::new(), Vec::new());
        let outcomes = self.one.apply(&batch, &mut one).unwrap();
        assert_eq!(self.two.apply(&batch, &mut two).as_ref(), Ok(&outcomes));
        assert_eq!(one, two);
        assert_eq!(outcomes.len(), batch.commands.len());
        for effect in &one {
            let Effect::Registry(Event::Status(Status { device, online, epoch, .. })) = effect else { continue };
            let before = self.told.insert(device.id.to_string(), (*epoch, !online));
            assert!(before < Some((*epoch, !online)), "{} after {before:?}: {effect:?}", device.id);
        }
        let changed = answers(&self.one) != before.0;
        assert!(!changed || self.one.subscriptions_version() > before.1, "another answer under the same version");
        if seq == 0 {
            return;
        }
        assert_eq!(self.two.outcomes_of(NodeId(9), Generation(1), seq).as_ref(), Some(&outcomes));
        assert_eq!(self.two.applied_seq(NodeId(9), Generation(1)), seq);
        self.last = Some((batch, outcomes));
    }

    fn check(&self) {
        assert_eq!(self.one.snapshot(), self.two.snapshot());
        assert_eq!(self.one.timers, self.two.timers);
        let (one, two) = (self.one.snapshot(), self.two.snapshot());
        assert!(one.parts().eq(two.parts()), "equal snapshots have equal parts");
        let imaged = image::rebuilt(&one);
        assert_eq!(imaged, one);
        assert_eq!(image::sharing(&imaged), image::sharing(&one));
        audit(&self.one);
        audit(&self.two);
        check_devices(&self.one);
        live::check_answers(&self.one);
        assert_eq!(answers(&self.one), answers(&self.two));
    }
}

/// The registry says that a device is online exactly while somebody, dead or alive, holds its session.
fn check_devices(state: &State) {
    for id in DEVICES {
        let session = state.kept.sessions.get(&key(id));
        let Some((_, presence)) = state.registry().device(id) else {
            assert!(session.is_none() && !state.device_online(id));
            continue;
        };
        let holder = session.and_then(|session| session.owner()).map(|owner| owner.epoch.0);
        assert_eq!(presence.online.then_some(presence.epoch), holder);
        assert_eq!(state.device_online(id), state.session(&key(id)).is_some_and(|view| view.owner.is_some()));
    }
}

/// Everything that caches of matches may hold.
fn answers(state: &State) -> Vec<String> {
    let mut answers = Vec::new();
    for topic in TOPICS.map(topic) {
        answers.push(format!("{}", state.has_durable_match(&topic)));
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            answers.push(format!("{:?}", (state.live_nodes(&topic, qos), state.live_groups(&topic, qos))));
        }
    }
    answers.extend(FILTERS.iter().map(|text| format!("{:?}", state.shared_members(&filter(text)))));
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn replicas_agree(batches in vec(vec(step(), 1..6), 1..60)) {
        let state = || State::new(Limits { queue_entries_max: 8, ..Limits::default() });
        let mut pair =
            Pair { one: state(), two: state(), seq: 0, generations: BTreeMap::new(), at: LogTime(0), last: None, told: BTreeMap::new() };
        pair.run((1..4).map(|node| up(NodeId(node), 1)).chain(devices::seeds()).collect());
        for steps in batches {
            let mut commands = Vec::new();
            for step in &steps {
                commands.extend(pair.commands(step));
                if matches!(step, Step::Restore) {
                    pair.two = State::restore(image::rebuilt(&pair.two.snapshot()));
                }
                if let (Step::Retry, Some((batch, outcomes))) = (step, &pair.last) {
                    let before = pair.one.snapshot();
                    let mut effects = Vec::new();
                    let again = pair.one.apply(batch, &mut effects);
                    prop_assert_eq!(again.as_ref(), Ok(outcomes));
                    prop_assert!(effects.is_empty() && pair.one.snapshot() == before);
                }
            }
            if steps.iter().all(|step| matches!(step, Step::Due { .. } | Step::NodeDown { .. })) {
                pair.apply(0, commands);
            } else {
                pair.run(commands);
            }
            pair.check();
        }
        // In the end everything falls due, and nothing is left behind.
        pair.run((1..4).map(|node| Command::NodeDown { node: NodeId(node), generation: Generation(u64::MAX) }).collect());
        pair.at.0 += 10_000_000;
        for _ in 0..1000 {
            let due = pair.one.due(pair.at, 7);
            if due.is_empty() {
                break;
            }
            pair.run(due);
        }
        pair.check();
        prop_assert_eq!(pair.one.session_count(), 0);
        prop_assert!(DEVICES.iter().all(|id| pair.one.registry().device(id).is_none_or(|(_, presence)| !presence.online)));
        prop_assert!(pair.one.next_due().is_none_or(|at| at > pair.at));
        prop_assert_eq!(pair.one.books().queued, 0);
        prop_assert!(pair.one.routes.is_empty() && pair.one.live.is_empty() && pair.one.kept.groups.is_empty());
    }
}
