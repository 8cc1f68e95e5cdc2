//! What a client's uplinks change in the registry. One proposal of a connection is under way at a time; what comes meanwhile
//! waits, and of one device that is one change, however often it is told: so a device that floods adds no more to the log
//! than the log takes.

use std::sync::Arc;

use fulmar_broker::state::command::{Command, Outcome};
use fulmar_platform::registry::{Change, Device, Expect, Record, Registry};
use parking_lot::Mutex;

use super::State;
use crate::dispatch::Dispatch;

/// Changes of one connection that wait: as many as one request may bring, and some more.
const WAITING_MAX: usize = 128;

/// Bytes of them, roughly.
const WAITING_BYTES_MAX: usize = 128 * 1024;

/// Milliseconds between two lines of the log about what was rejected or dropped of one connection.
const SHOWN_EVERY_MS: u64 = 60_000;

/// What an actor keeps about changes; most never need any.
#[derive(Debug, Default)]
pub(super) struct Changes(Option<Arc<Mutex<Waiting>>>);

/// What waits, in the order in which it came.
#[derive(Debug, Default)]
struct Waiting {
    wanted: Vec<Wanted>,
    bytes: usize,
    /// A task sees to it.
    running: bool,
    shown_ms: Option<u64>,
}

#[derive(Debug)]
enum Wanted {
    /// A device as it is to be, made from what it was.
    Device {
        was: Arc<Device>,
        wanted: Arc<Device>,
    },
    Other(Change),
}

impl Wanted {
    /// `registry`: the one that the change was made from.
    fn of(change: Change, registry: &Registry) -> Wanted {
        if let Change::Put { record: Record::Device(device), expect: Expect::Revision(revision) } = &change
            && let Some((kept, _)) = registry.device(&device.id).filter(|(kept, _)| kept.revision == *revision)
        {
            return Wanted::Device { was: kept.record.clone(), wanted: device.clone() };
        }
        Wanted::Other(change)
    }

    /// The change as it is to be proposed, by what the registry says by now. `None`: nothing is left of it.
    fn into_change(self, registry: &Registry) -> Option<Change> {
        match self {
            Wanted::Device { was, wanted } => {
                let (kept, _) = registry.device(&was.id)?;
                let device = carried_over(&was, &wanted, &kept.record);
                let record = Record::Device(Arc::new(device));
                Some(Change::Put { record, expect: Expect::Revision(kept.revision) })
            }
            Wanted::Other(change) => Some(change),
        }
    }
}

/// `onto` with whatever differs between the other two.
fn carried_over(was: &Device, wanted: &Device, onto: &Device) -> Device {
    let mut device = onto.clone();
    macro_rules! carry {
        ($($($field:ident).+),* $(,)?) => {
            $(if wanted.$($field).+ != was.$($field).+ {
                device.$($field).+.clone_from(&wanted.$($field).+);
            })*
        };
    }
    carry!(
        app_id,
        name,
        description,
        gateway_id,
        auth.kind,
        auth.secret,
        auth.secondary_secret,
        auth.fingerprint,
        auth.secondary_fingerprint,
        auth.token,
        auth.secure_access,
        auth.timeout_s,
        frozen,
        fw_version,
        sw_version,
        sdk_version,
        extension_info,
        tags,
        endpoint,
    );
    device
}

impl Waiting {
    /// Adds a change; `false` if there is no room.
    fn add(&mut self, change: Change, registry: &Registry) -> bool {
        let bytes = change.bytes();
        let one = Wanted::of(change, registry);
        if let Wanted::Device { was, wanted } = &one
            && let Some(Wanted::Device { was: base, wanted: kept }) =
                self.wanted.iter_mut().find(|kept| kept.is_of(&was.id))
        {
            // The registry may have gone on since: first what is kept is made anew from what it says now.
            *kept = Arc::new(carried_over(was, wanted, &carried_over(base, kept, was)));
            *base = was.clone();
            return true;
        }
        if self.wanted.len() >= WAITING_MAX || self.bytes + bytes > WAITING_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.wanted.push(one);
        true
    }

    fn take(&mut self) -> Vec<Wanted> {
        self.bytes = 0;
        std::mem::take(&mut self.wanted)
    }

    /// Whether something may be said at info again.
    fn shows(&mut self, now_ms: u64) -> bool {
        let shows = self.shown_ms.is_none_or(|shown_ms| now_ms.saturating_sub(shown_ms) >= SHOWN_EVERY_MS);
        if shows {
            self.shown_ms = Some(now_ms);
        }
        shows
    }
}

impl Wanted {
    fn is_of(&self, device: &str) -> bool {
        matches!(self, Wanted::Device { was, .. } if *was.id == *device)
    }
}

impl State {
    /// Has the registry changed as an uplink asks for; nobody waits for it. `registry`: what the changes were made from.
    pub(super) fn change(&mut self, changes: Vec<Change>, registry: &Registry) {
        if changes.is_empty() {
            return;
        }
        let waiting = self.changes.0.get_or_insert_default().clone();
        let mut locked = waiting.lock();
        let mut dropped = 0_u64;
        let congested = self.dispatch.replica().congested();
        for change in changes {
            dropped += u64::from(congested || !locked.add(change, registry));
        }
        if dropped > 0 {
            let reason = if congested { "congested" } else { "queue_full" };
            self.dispatch.metrics().uplink_changes_dropped(reason, dropped);
            if locked.shows(self.dispatch.now().mono_ms) {
                tracing::info!(client = %self.receiver.key(), dropped, reason, "changes of devices dropped");
            }
        }
        if !locked.wanted.is_empty() && !locked.running {
            locked.running = true;
            drop(locked);
            tokio::spawn(see_to(self.dispatch.clone(), self.receiver.key().to_string(), waiting));
        }
    }
}

/// Proposes what waits, until nothing does.
async fn see_to(dispatch: Arc<Dispatch>, key: String, waiting: Arc<Mutex<Waiting>>) {
    loop {
        let wanted = {
            let mut locked = waiting.lock();
            locked.running = !locked.wanted.is_empty();
            if !locked.running {
                return;
            }
            locked.take()
        };
        let registry = dispatch.replica().read().registry().clone();
        let changes = wanted.into_iter().filter_map(|wanted| wanted.into_change(&registry));
        let commands: Vec<Command> = changes.map(|change| Command::Registry(Box::new(change))).collect();
        drop(registry);
        if commands.is_empty() {
            continue;
        }
        match dispatch.replica().commit(commands).await {
            Ok(outcomes) => {
                let rejected = outcomes.iter().filter_map(|outcome| match outcome {
                    Outcome::Registry(Err(rejection)) => Some(rejection),
                    _ => None,
                });
                let (count, first) = (rejected.clone().count(), rejected.into_iter().next());
                if let Some(rejection) = first {
                    dispatch.metrics().uplink_changes_dropped("rejected", count as u64);
                    if waiting.lock().shows(dispatch.now().mono_ms) {
                        tracing::info!(client = %key, %rejection, count, "changes of devices rejected");
                    }
                }
            }
            Err(error) => tracing::error!(client = %key, %error, "changes of devices not committed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmar_platform::Dialect;
    use fulmar_platform::registry::{App, Product};

    use super::*;

    fn put(registry: &mut Registry, record: Record) {
        registry.apply(&Change::Put { record, expect: Expect::Anything }, 1, &mut Vec::new()).expect("it fits");
    }

    /// A registry of devices `p_0` and so on.
    fn registry(devices: usize) -> Registry {
        let mut registry = Registry::default();
        let app = App { id: "a".into(), name: "a".into(), default: true, created_ms: 1 };
        put(&mut registry, Record::App(Arc::new(app)));
        put(&mut registry, Record::Product(Arc::new(Product::new("p", "a", Dialect::Aliyun, 1))));
        for number in 0..devices {
            put(&mut registry, Record::Device(Arc::new(Device::new("p", "a", &number.to_string(), 1))));
        }
        registry
    }

    /// What an uplink asks for that sees this registry.
    fn change(registry: &Registry, number: usize, change: impl FnOnce(&mut Device)) -> Change {
        let (kept, _) = registry.device(&format!("p_{number}")).expect("it is there");
        let mut device = (*kept.record).clone();
        change(&mut device);
        Change::Put { record: Record::Device(Arc::new(device)), expect: Expect::Revision(kept.revision) }
    }

    fn commit(registry: &mut Registry, wanted: Vec<Wanted>) -> usize {
        let seen = registry.clone();
        let changes: Vec<Change> = wanted.into_iter().filter_map(|wanted| wanted.into_change(&seen)).collect();
        for change in &changes {
            registry.apply(change, 2, &mut Vec::new()).expect("it is made from what is there");
        }
        changes.len()
    }

    #[test]
    fn changes_of_one_device_are_one_and_lose_nothing_of_each_other() {
        let (mut registry, mut waiting) = (registry(2), Waiting::default());
        assert!(waiting.add(change(&registry, 0, |device| device.fw_version = "0".into()), &registry));
        let under_way = waiting.take();
        // Made before the first one is committed.
        for version in 1..1000 {
            let version = version.to_string();
            let versions = change(&registry, 0, |device| device.sw_version = version.as_str().into());
            assert!(waiting.add(versions, &registry));
        }
        let tags = vec![("k".into(), "v".into())];
        assert!(waiting.add(change(&registry, 0, |device| device.tags.clone_from(&tags)), &registry));
        assert!(waiting.add(change(&registry, 1, |device| device.gateway_id = "p_0".into()), &registry));
        assert_eq!(commit(&mut registry, under_way), 1);
        let renamed = Device { name: "by REST".into(), ..device(&registry, 0) };
        put(&mut registry, Record::Device(Arc::new(renamed)));
        assert_eq!(commit(&mut registry, waiting.take()), 2);
        let device_0 = device(&registry, 0);
        assert_eq!((&*device_0.fw_version, &*device_0.sw_version, &*device_0.name), ("0", "999", "by REST"));
        assert_eq!(device_0.tags, tags);
        assert_eq!(&*device(&registry, 1).gateway_id, "p_0");
    }

    #[test]
    fn what_is_told_last_counts_also_if_it_was_so_before() {
        let (mut registry, mut waiting) = (registry(1), Waiting::default());
        let version =
            |registry: &Registry, version: &str| change(registry, 0, |device| device.fw_version = version.into());
        assert!(waiting.add(version(&registry, "1"), &registry));
        let under_way = waiting.take();
        assert!(waiting.add(change(&registry, 0, |device| device.name = "n".into()), &registry));
        commit(&mut registry, under_way);
        assert!(waiting.add(version(&registry, ""), &registry));
        commit(&mut registry, waiting.take());
        assert_eq!((&*device(&registry, 0).fw_version, &*device(&registry, 0).name), ("", "n"));
    }

    fn device(registry: &Registry, number: usize) -> Device {
        (*registry.device(&format!("p_{number}")).expect("it is there").0.record).clone()
    }

    #[test]
    fn every_field_that_may_differ_is_carried() {
        let registry = registry(1);
        let was = device(&registry, 0);
        let mut wanted = was.clone();
        for text in [
            &mut wanted.app_id,
            &mut wanted.name,
            &mut wanted.description,
            &mut wanted.gateway_id,
            &mut wanted.fw_version,
            &mut wanted.sw_version,
            &mut wanted.sdk_version,
            &mut wanted.extension_info,
        ] {
            *text = "other".into();
        }
        wanted.auth.token = Some(fulmar_platform::Secret::new("t"));
        wanted.frozen = true;
        assert_eq!(carried_over(&was, &wanted, &was), wanted);
        assert_eq!(carried_over(&was, &was, &wanted), wanted);
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let registry = registry(WAITING_MAX + 1);
        let mut waiting = Waiting::default();
        for number in 0..WAITING_MAX {
            assert!(waiting.add(change(&registry, number, |device| device.frozen = true), &registry));
        }
        assert!(!waiting.add(change(&registry, WAITING_MAX, |device| device.frozen = true), &registry));
        assert!(waiting.add(change(&registry, 0, |device| device.frozen = false), &registry));
        assert_eq!(waiting.take().len(), WAITING_MAX);
        let large: Box<str> = "x".repeat(WAITING_BYTES_MAX / 4).into();
        let taken = (0..9).filter(|number| {
            let large = change(&registry, *number, |device| device.extension_info = large.clone());
            waiting.add(large, &registry)
        });
        assert_eq!(taken.count(), 3);
        assert!(waiting.shows(0) && !waiting.shows(59_999) && waiting.shows(60_000));
    }

    #[test]
    fn nothing_is_left_of_a_change_of_a_device_that_is_gone() {
        let (mut registry, mut waiting) = (registry(1), Waiting::default());
        assert!(waiting.add(change(&registry, 0, |device| device.frozen = true), &registry));
        let kind = fulmar_platform::registry::Kind::Device;
        let delete = Change::Delete { kind, id: "p_0".into(), expect: Expect::Anything };
        registry.apply(&delete, 2, &mut Vec::new()).expect("it is there");
        assert_eq!(commit(&mut registry, waiting.take()), 0);
    }
}
