//! Who waits for the answer of which device. Under one short lock; absent here: what is sent, and how long is waited.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fulmar_broker::SessionKey;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::id::{CallId, Named};
use crate::cluster::links::Run;

/// Calls that are waited for at one time: by this node, or by another one while this node has the connection.
pub(super) const WAITERS_MAX: usize = 20_000;

/// Of these, over one connection.
pub(super) const OF_SESSION_MAX: u32 = 64;

/// Calls that are remembered once nobody waits for them any more, to tell what comes late from what comes twice.
const ENDED_MAX: usize = 8_192;

/// What ends a wait from outside.
#[derive(Debug)]
pub(super) enum End {
    Answered(Bytes),
    /// The run that should have answered has ended.
    Lost,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Taken,
    /// Nobody waits any more.
    Late,
    /// It was answered before.
    Duplicate,
    /// Another device was asked.
    Foreign,
    Unknown,
}

struct Waiter {
    id: CallId,
    key: SessionKey,
    /// Another run, which the answer is to come from.
    on: Option<Run>,
    end: oneshot::Sender<End>,
}

/// See the module. By the short form of the id: two that agree in it are not waited for at one time.
#[derive(Default)]
pub(super) struct Table {
    waiters: HashMap<u64, Waiter>,
    of_session: HashMap<SessionKey, u32>,
    /// Whether it was answered, by short id; and these in the order in which they ended.
    ended: HashMap<u64, bool>,
    order: VecDeque<u64>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("waiters", &self.waiters.len()).finish_non_exhaustive()
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    fn take(&mut self, short: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&short)?;
        if let Some(count) = self.of_session.get_mut(&waiter.key) {
            *count -= 1;
            if *count == 0 {
                self.of_session.remove(&waiter.key);
            }
        }
        Some(waiter)
    }

    fn remember(&mut self, short: u64, answered: bool) {
        if self.ended.insert(short, answered).is_none() {
            self.order.push_back(short);
        }
        if self.order.len() > ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    /// Hands an answer, which came in on a session, to whoever waits for it.
    pub(super) fn answer(&mut self, key: &SessionKey, named: Named, answer: Bytes) -> Found {
        let short = named.short();
        match self.waiters.get(&short) {
            Some(waiter) if !named.is(waiter.id) => return Found::Unknown,
            Some(waiter) if waiter.key != *key => return Found::Foreign,
            Some(_) => {}
            None => {
                return match self.ended.get(&short) {
                    Some(true) => Found::Duplicate,
                    Some(false) => Found::Late,
                    None => Found::Unknown,
                };
            }
        }
        let Some(waiter) = self.take(short) else { return Found::Unknown };
        self.remember(short, true);
        // Who waits may stop to do so at this moment.
        match waiter.end.send(End::Answered(answer)) {
            Ok(()) => Found::Taken,
            Err(_) => Found::Late,
        }
    }

    /// Ends the waits for what another run should have answered.
    pub(super) fn lose(&mut self, lost: impl Fn(Option<Run>) -> bool) {
        let ended: Vec<u64> =
            self.waiters.iter().filter(|(_, waiter)| lost(waiter.on)).map(|(short, _)| *short).collect();
        for short in ended {
            if let Some(waiter) = self.take(short) {
                self.remember(short, false);
                // Who waits may stop to do so at this moment.
                let _ = waiter.end.send(End::Lost);
            }
        }
    }
}

/// A place in the table, for as long as it is held.
pub(super) struct Place {
    table: Arc<Mutex<Table>>,
    id: CallId,
    pub(super) end: oneshot::Receiver<End>,
}

impl Place {
    /// `None`: too many wait.
    pub(super) fn book(table: &Arc<Mutex<Table>>, id: CallId, key: &SessionKey) -> Option<Place> {
        let (end, ended) = oneshot::channel();
        let mut locked = table.lock();
        let of_session = locked.of_session.get(key).copied().unwrap_or(0);
        if locked.waiters.len() >= WAITERS_MAX
            || of_session >= OF_SESSION_MAX
            || locked.waiters.contains_key(&id.short())
        {
            return None;
        }
        locked.of_session.insert(key.clone(), of_session + 1);
        locked.waiters.insert(id.short(), Waiter { id, key: key.clone(), on: None, end });
        drop(locked);
        Some(Place { table: table.clone(), id, end: ended })
    }

    /// Says which other run the answer is to come from.
    pub(super) fn waits_on(&self, run: Option<Run>) {
        if let Some(waiter) = self.table.lock().waiters.get_mut(&self.id.short()) {
            waiter.on = run;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (mut table, short) = (self.table.lock(), self.id.short());
        if table.waiters.get(&short).is_some_and(|waiter| waiter.id == self.id) {
            table.take(short);
            table.remember(short, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use fulmar_broker::{Generation, NodeId};

    use super::*;

    const RUN: Run = (NodeId(1), Generation(1));
    const OTHER: Run = (NodeId(2), Generation(1));

    fn key(device: &str) -> SessionKey {
        SessionKey::new("default", "huawei", device)
    }

    fn id(number: u64) -> CallId {
        CallId::new(RUN, number)
    }

    fn table() -> Arc<Mutex<Table>> {
        Arc::default()
    }

    fn answer(table: &Mutex<Table>, device: &str, text: &str) -> Found {
        table.lock().answer(&key(device), Named::parse(text).unwrap(), Bytes::from_static(b"{}"))
    }

    #[test]
    fn an_answer_is_taken_once_and_only_from_the_device_that_was_asked() {
        let table = table();
        let mut place = Place::book(&table, id(1), &key("a")).unwrap();
        assert_eq!(answer(&table, "b", &id(1).uuid()), Found::Foreign);
        assert_eq!(answer(&table, "a", &id(2).uuid()), Found::Unknown);
        assert!(place.end.try_recv().is_err());
        assert_eq!(answer(&table, "a", &id(1).short().to_string()), Found::Taken);
        assert!(matches!(place.end.try_recv(), Ok(End::Answered(_))));
        assert_eq!(answer(&table, "a", &id(1).uuid()), Found::Duplicate);
        drop(place);
        assert_eq!(answer(&table, "a", &id(1).uuid()), Found::Duplicate);
        let table = table.lock();
        assert_eq!((table.len(), table.of_session.len()), (0, 0));
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_late() {
        let table = table();
        drop(Place::book(&table, id(1), &key("a")).unwrap());
        assert_eq!(answer(&table, "a", &id(1).uuid()), Found::Late);
        for number in 2..2 + ENDED_MAX as u64 {
            drop(Place::book(&table, id(number), &key("a")).unwrap());
        }
        assert_eq!(answer(&table, "a", &id(1).uuid()), Found::Unknown, "the memory is bounded");
        assert_eq!(answer(&table, "a", &id(2).uuid()), Found::Late);
        let table = table.lock();
        assert_eq!((table.ended.len(), table.order.len()), (ENDED_MAX, ENDED_MAX));
    }

    #[test]
    fn waiters_are_bounded() {
        let table = table();
        let of_one: Vec<Place> =
            (0..u64::from(OF_SESSION_MAX)).map(|number| Place::book(&table, id(number), &key("a")).unwrap()).collect();
        assert!(Place::book(&table, id(1_000), &key("a")).is_none());
        assert!(Place::book(&table, id(0), &key("b")).is_none(), "an id is waited for once");
        drop(of_one);
        let all: Vec<Place> = (0..WAITERS_MAX as u64)
            .map(|number| Place::book(&table, id(number), &key(&format!("d{}", number / 8))).unwrap())
            .collect();
        assert!(Place::book(&table, id(WAITERS_MAX as u64), &key("b")).is_none());
        drop(all);
        assert!(Place::book(&table, id(WAITERS_MAX as u64), &key("b")).is_some());
    }

    #[test]
    fn the_end_of_a_run_ends_the_waits_for_it() {
        let table = table();
        let (mut lost, mut local) =
            (Place::book(&table, id(1), &key("a")).unwrap(), Place::book(&table, id(2), &key("b")).unwrap());
        lost.waits_on(Some(OTHER));
        table.lock().lose(|on| on == Some(OTHER));
        assert!(matches!(lost.end.try_recv(), Ok(End::Lost)));
        assert!(local.end.try_recv().is_err());
        assert_eq!(answer(&table, "a", &id(1).uuid()), Found::Late);
        table.lock().lose(|_| true);
        assert!(matches!(local.end.try_recv(), Ok(End::Lost)));
    }
}
