//! A backup put back, while the log goes on: first everything goes, then parts of the backup's snapshot come in, by steps
//! of bounded size, each straight to its place. In between the state is nobody's: it answers only what keeps the cluster
//! itself together, and nothing is due. Runs, log time, limits and ids of the cluster stay its own; epochs and revisions
//! are those of the backup, moved above all that were given before.
//!
//! To the sessions it is as if every node had died at the entry that the backup has: those that were connected belong to a
//! run that has ended ([`ENDED`]), and are let go of by the steps that follow any death.

use std::any::Any;
use std::sync::Arc;

use fulmar_mqtt::{ReasonCode, TopicFilter};
use fulmar_platform::registry::{self, Record, Registry};
use rpds::HashTrieMapSync;

use super::command::{Command, Effect, Outcome, Will};
use super::expansion::Expansion;
use super::image::{EntryPart, ExpansionPart, Head, Part, RetainedPart, SessionPart};
use super::ledger::SOLE;
use super::publish::Receiver;
use super::queue::{Entry, NEVER, Queue, SPAN_MAX};
use super::session::{Place, Session};
use super::{Out, Snapshot, State};
use crate::key::{Epoch, Generation, NodeId, SessionKey};
use crate::plane;
use crate::publication::Publication;
use crate::steer::{self, Steer};

/// A node that never was: sessions that were connected when a backup was made belong to it, and its run, of the restore's
/// number as its generation, has ended.
pub const ENDED: NodeId = NodeId(u64::MAX);

/// What is answered to whatever has to wait until a restore is over.
const REFUSED: ReasonCode = ReasonCode::ServerUnavailable;

/// One step of a restore. Steps of one that is not the current one are stale.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Refused as stale if the cluster has data of its own, or another restore is unfinished, unless it says `replace`.
    Begin { id: u64, replace: bool, head: Box<Head> },
    /// The next parts of the snapshot, from registry to steer; `number` counts the steps before it.
    Parts { id: u64, number: u64, parts: Vec<Part> },
    /// All parts have come, in so many steps.
    End { id: u64, number: u64 },
}

impl Step {
    /// Bytes that it takes in the log, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Step::Parts { parts, .. } => parts.iter().map(part_bytes).sum(),
            Step::Begin { head, .. } => 512 + head.removed.len() * 8,
            Step::End { .. } => 0,
        }
    }
}

fn part_bytes(part: &Part) -> usize {
    const RECORD: usize = 512;
    match part {
        Part::Retained(retained) => 64 + retained.publication.bytes(),
        Part::Queue(entries) => {
            entries.iter().map(|entry| 64 + entry.publication.as_ref().map_or(0, |message| message.bytes())).sum()
        }
        Part::Session(session) => {
            128 + session.subscriptions.iter().map(|sub| sub.filter.as_str().len()).sum::<usize>()
        }
        Part::Subscriptions(list) => list.iter().map(|sub| 16 + sub.filter.as_str().len()).sum(),
        Part::Expansion(expansion) => 128 + expansion.receivers.len() * 64,
        _ => RECORD,
    }
}

/// A restore that has begun, and has not ended well.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Restore {
    pub(super) id: u64,
    /// Steps with parts that were applied.
    pub(super) steps: u64,
    /// What is added to epochs and to revisions.
    pub(super) epochs: u64,
    pub(super) revisions: u64,
    /// The backup's own.
    pub(super) head: Arc<Head>,
    /// The session that may go on.
    pub(super) session: Option<SessionKey>,
    /// Messages with a number.
    pub(super) bodies: HashTrieMapSync<u64, Arc<Publication>>,
}

/// How far a restore has come.
#[derive(Debug, Clone, PartialEq)]
pub struct RestorePart {
    pub id: u64,
    /// Steps with parts that were applied.
    pub steps: u64,
    /// What is added to epochs and to revisions of the backup.
    pub epochs: u64,
    pub revisions: u64,
    /// The backup's own.
    pub head: Head,
    /// The session that may go on.
    pub session: Option<SessionKey>,
}

impl Restore {
    /// As a snapshot has it; the messages with a number are in its other parts.
    pub(super) fn part(&self) -> RestorePart {
        let Restore { id, steps, epochs, revisions, ref head, ref session, .. } = *self;
        RestorePart { id, steps, epochs, revisions, head: Head::clone(head), session: session.clone() }
    }

    pub(super) fn of(part: RestorePart, bodies: impl IntoIterator<Item = (u64, Arc<Publication>)>) -> Restore {
        let RestorePart { id, steps, epochs, revisions, head, session } = part;
        Restore { id, steps, epochs, revisions, head: Arc::new(head), session, bodies: bodies.into_iter().collect() }
    }
}

/// What a restore has emptied. It is large: whoever gets it lets go of it where that may take its time.
#[derive(Clone)]
pub struct Discarded(Arc<dyn Any + Send + Sync>);

impl Discarded {
    /// Frees it, unless somebody else has it too.
    pub fn let_go(self) {
        drop(self.0);
    }
}

impl PartialEq for Discarded {
    /// It says nothing.
    fn eq(&self, _: &Discarded) -> bool {
        true
    }
}

impl std::fmt::Debug for Discarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Discarded")
    }
}

/// Why a part was not taken: it cannot follow what came before it, or is not as it must be. Nobody else is told more, for
/// whoever sends parts has looked at all of them.
struct Unfit;

/// Whether a command is about the cluster, whatever its data.
fn of_the_cluster(command: &Command) -> bool {
    matches!(
        command,
        Command::NodeUp { .. }
            | Command::NodeDown { .. }
            | Command::RemoveNode { .. }
            | Command::SetLimits(_)
            | Command::LiveRoutes(_)
            | Command::ForgetRoutes { .. }
            | Command::Restore(_)
    )
}

impl State {
    /// What a command is answered while a restore is unfinished, unless it is applied all the same.
    pub(super) fn withheld(&self, command: &Command) -> Option<Outcome> {
        (self.kept.restoring.is_some() && !of_the_cluster(command)).then_some(Outcome::Refused(REFUSED))
    }

    pub(super) fn restore_step(&mut self, step: &Step, out: &mut Out<'_>) -> Outcome {
        match step {
            Step::Begin { id, replace, head } => self.begin_restore(*id, *replace, head, out),
            Step::Parts { id, number, parts } => {
                let Some(mut restore) = self.take_restore(*id, *number) else { return Outcome::Stale };
                let taken = parts.iter().try_for_each(|part| self.restore_part(part, &mut restore));
                restore.steps += u64::from(taken.is_ok());
                self.kept.restoring = Some(restore);
                taken.map_or(Outcome::Refused(ReasonCode::ImplementationSpecificError), |()| Outcome::Done)
            }
            Step::End { id, number } => {
                let Some(restore) = self.take_restore(*id, *number) else { return Outcome::Stale };
                if self.amounts_to(&restore.head) && self.kept.plane.restored().is_ok() {
                    self.end_restore(&restore, out);
                    return Outcome::Done;
                }
                self.kept.restoring = Some(restore);
                Outcome::Refused(ReasonCode::ImplementationSpecificError)
            }
        }
    }

    fn take_restore(&mut self, id: u64, number: u64) -> Option<Restore> {
        let current = self.kept.restoring.as_ref().is_some_and(|restore| restore.id == id && restore.steps == number);
        if current { self.kept.restoring.take() } else { None }
    }

    fn begin_restore(&mut self, id: u64, replace: bool, head: &Head, out: &mut Out<'_>) -> Outcome {
        let before = self.kept.restoring.as_ref().map(|restore| restore.id);
        if before == Some(id) || (!replace && (before.is_some() || !self.vacant())) {
            return Outcome::Stale;
        }
        let (epochs, revisions) = (self.kept.epoch_last, self.kept.registry.last_revision());
        let sums = (
            epochs.checked_add(head.epoch_last),
            revisions.checked_add(head.registry_last),
            self.kept.ledger.books.created.checked_add(head.books.created),
        );
        let (Some(epoch_last), Some(registry_last), Some(_)) = sums else {
            return Outcome::Refused(ReasonCode::ImplementationSpecificError);
        };
        if head.books.unaccounted() != 0 {
            return Outcome::Refused(ReasonCode::ImplementationSpecificError);
        }
        let kept = &mut self.kept;
        let mut emptied = Snapshot {
            now: kept.now,
            position: kept.position,
            routes_at: kept.position,
            epoch_last,
            origins: kept.origins.clone(),
            live_routes: kept.live_routes.clone(),
            registry: Registry::to_be_restored(head.registry_key.clone(), registry_last),
            ledger: kept.ledger.emptied(head.bodies_made),
            steer: Steer { alarms: kept.steer.alarms.clone(), ..Steer::default() },
            ..Snapshot::empty(kept.configured)
        };
        emptied.origins.restore_removed(ENDED);
        emptied.origins.restore_fallen(ENDED, Generation(id), kept.now);
        emptied.restoring = Some(Restore {
            id,
            steps: 0,
            epochs,
            revisions,
            head: Arc::new(head.clone()),
            session: None,
            bodies: HashTrieMapSync::new_sync(),
        });
        let old = std::mem::replace(self, State::restore(emptied));
        out.wakes.clear();
        out.effects.push(Effect::Emptied(Discarded(Arc::new(old))));
        Outcome::Done
    }

    /// Whether what has come is all that there was.
    fn amounts_to(&self, head: &Head) -> bool {
        let found = [
            (self.kept.sessions.size() as u64, head.sessions),
            (self.kept.retained.len() as u64, head.retained),
            (self.kept.registry.device_count() as u64, head.devices),
            (self.kept.ledger.books.queued, head.books.queued),
            (self.kept.ledger.bytes, head.bytes),
        ];
        found.iter().all(|(found, said)| found == said)
    }

    fn end_restore(&mut self, restore: &Restore, out: &mut Out<'_>) {
        self.kept.ledger.books.take_over(&restore.head.books);
        // From now on, and not from when the first of them came, they are without an owner.
        self.kept.origins.restore_fallen(ENDED, Generation(restore.id), self.kept.now);
        self.runs_changed();
        out.effects.push(Effect::Restored);
    }

    fn restore_part(&mut self, part: &Part, restore: &mut Restore) -> Result<(), Unfit> {
        match part {
            Part::Registry(filed) => self.restore_record((**filed).clone(), restore),
            Part::Retained(retained) => self.restore_retained(retained, restore),
            Part::Session(session) => self.restore_session(session, restore),
            Part::Subscriptions(more) => {
                let key = restore.session.clone().ok_or(Unfit)?;
                let epoch = self.kept.sessions.get(&key).ok_or(Unfit)?.epoch;
                fits(matches!(self.subscribe(&key, epoch, more), Outcome::Subscribed(_)))
            }
            Part::Queue(entries) => entries.iter().try_for_each(|entry| self.restore_entry(entry, restore)),
            Part::Expansion(expansion) => self.restore_expansion(expansion, restore),
            Part::Plane(filed) => self.kept.plane.restore((**filed).clone().unowned()).map_err(|_| Unfit),
            Part::Steer(filed) => match &**filed {
                // Of nodes that are gone, and of messages that nobody sends any more.
                steer::Filed::Alarm(_) | steer::Filed::Trace(_) => Ok(()),
                filed => {
                    let taken = self.kept.steer.restore(filed.clone()).map_err(|_| Unfit);
                    self.limits_changed();
                    taken
                }
            },
            // What the cluster has of its own.
            Part::Head(_) | Part::Origin(_) | Part::Results(_) | Part::Fallen(_) | Part::LiveRoutes(_) | Part::End => {
                Err(Unfit)
            }
        }
    }

    fn restore_record(&mut self, mut filed: registry::Filed, restore: &Restore) -> Result<(), Unfit> {
        fits(filed.revision <= restore.head.registry_last)?;
        filed.revision += restore.revisions;
        if let Some(presence) = filed.presence.as_mut().filter(|presence| presence.epoch > 0) {
            fits(presence.epoch <= restore.head.epoch_last)?;
            presence.epoch += restore.epochs;
        }
        self.kept.registry.restore(filed).map_err(|_| Unfit)
    }

    fn restore_retained(&mut self, part: &RetainedPart, restore: &mut Restore) -> Result<(), Unfit> {
        let publication = self.adopted(&part.publication);
        fits(!publication.payload.is_empty() && self.kept.retained.get(&publication.topic).is_none())?;
        if part.body != SOLE {
            number(restore, part.body, &publication)?;
        }
        self.kept.ledger.restore_retained(&publication, part.body);
        if let Some(at) = publication.expires_at {
            self.kept.retained_due.insert_mut((at, publication.topic.clone()), ());
        }
        self.kept.retained.set(publication);
        Ok(())
    }

    fn restore_session(&mut self, part: &SessionPart, restore: &mut Restore) -> Result<(), Unfit> {
        let key = &part.key;
        fits(!self.kept.sessions.contains_key(key) && (1..=restore.head.epoch_last).contains(&part.epoch.0))?;
        let epoch = Epoch(part.epoch.0 + restore.epochs);
        let place = match part.place {
            Place::Owned { .. } => Place::Owned { node: ENDED, generation: Generation(restore.id) },
            // Nobody could come back meanwhile: its time begins anew.
            Place::Released { .. } => Place::Released { at: self.kept.now },
        };
        let will = part.will.as_ref().map(|will| {
            let publication = self.adopted(&will.publication);
            Arc::new(Will { publication, ..(**will).clone() })
        });
        if let Some(will) = &will {
            self.kept.ledger.will_set(will);
        }
        let mut session = Session::restored(epoch, place, part.expiry_s, will);
        let depot = part.depot.as_ref().map(|depot| {
            let expires_next = depot.expires_next.unwrap_or(NEVER);
            (Queue::restored(depot.next_seq, depot.offered.min(depot.next_seq), expires_next), depot.received.clone())
        });
        session.refill(Vec::new(), depot);
        self.timers.add(session.slot(), key.clone());
        self.seats.add(key);
        self.names.insert(key.clone());
        self.kept.sessions.insert_mut(key.clone(), session);
        restore.session = Some(key.clone());
        fits(matches!(self.subscribe(key, epoch, &part.subscriptions), Outcome::Subscribed(_)))
    }

    fn restore_entry(&mut self, part: &EntryPart, restore: &mut Restore) -> Result<(), Unfit> {
        let key = restore.session.clone().ok_or(Unfit)?;
        let publication = self.mentioned(part.publication.as_ref(), part.body, restore)?;
        let group = part.group.as_deref().map(|filter| self.group_name(filter));
        let queue = self.kept.sessions.get(&key).and_then(Session::queue).ok_or(Unfit)?;
        let (first, last) = queue.ends().unzip();
        let ascends = last.is_none_or(|last| last < part.seq) && part.seq < queue.next_seq;
        fits(ascends && queue.next_seq - first.unwrap_or(part.seq) <= SPAN_MAX)?;
        let entry = Entry {
            publication,
            body: part.body,
            expires_at: part.expires_at.unwrap_or(NEVER),
            subscription_ids: part.subscription_ids.clone(),
            group,
            qos: part.qos,
            retain: part.retain,
            phase: part.phase,
        };
        self.change(&key, |session, ledger, _| {
            ledger.adopt_entry(&entry.publication, entry.body);
            session.queue_mut().put(part.seq, entry);
        });
        Ok(())
    }

    fn restore_expansion(&mut self, part: &ExpansionPart, restore: &mut Restore) -> Result<(), Unfit> {
        fits(!part.receivers.is_empty())?;
        if !part.continues {
            let publication = self.mentioned(part.publication.as_ref(), part.body, restore)?;
            let (expires_at, receivers) = (part.expires_at.unwrap_or(NEVER), Arc::default());
            self.kept.expansions.push(Expansion { publication, body: part.body, expires_at, receivers });
        }
        for receiver in &part.receivers {
            let (key, _) = self.kept.sessions.get_key_value(&receiver.key).ok_or(Unfit)?;
            let key = key.clone();
            let group = receiver.group.as_deref().map(|filter| self.group_name(filter));
            let expansion = self.kept.expansions.last_mut().ok_or(Unfit)?;
            fits(expansion.receivers.last().is_none_or(|last| last.key >= key))?;
            self.kept.ledger.adopt_entry(&expansion.publication, expansion.body);
            Arc::make_mut(&mut expansion.receivers).push(Receiver {
                key,
                qos: receiver.qos,
                retain_as_published: receiver.retain_as_published,
                subscription_ids: receiver.subscription_ids.clone(),
                group,
            });
        }
        Ok(())
    }

    /// A message of this part, or of an earlier one with this number.
    fn mentioned(
        &self,
        publication: Option<&Arc<Publication>>,
        body: u64,
        restore: &mut Restore,
    ) -> Result<Arc<Publication>, Unfit> {
        let Some(publication) = publication else { return restore.bodies.get(&body).cloned().ok_or(Unfit) };
        let publication = self.adopted(publication);
        if body != SOLE {
            number(restore, body, &publication)?;
        }
        Ok(publication)
    }

    /// A message that pins no read buffer.
    fn adopted(&self, publication: &Publication) -> Arc<Publication> {
        let mut kept = publication.detached();
        kept.origin = kept.origin.map(|origin| self.stored_key(&origin));
        Arc::new(kept)
    }

    fn group_name(&self, filter: &TopicFilter) -> Arc<TopicFilter> {
        let known = self.kept.groups.get_key_value(filter).map(|(name, _)| Arc::clone(name));
        known.unwrap_or_else(|| Arc::new(filter.detached()))
    }

    /// Whether there is nothing but what a cluster begins with.
    fn vacant(&self) -> bool {
        self.occupants().is_empty()
    }

    // -- what others may ask

    /// Whether a restore has begun and has not ended well: then nobody is served.
    #[must_use]
    pub fn restoring(&self) -> bool {
        self.kept.restoring.is_some()
    }

    /// What stands in the way of a restore that does not replace: each with a name, and how many if that is known at once.
    #[must_use]
    pub fn occupants(&self) -> Vec<(&'static str, u64)> {
        let kept = &self.kept;
        let mut found = vec![
            ("sessions", kept.sessions.size() as u64),
            ("retained messages", kept.retained.len() as u64),
            ("devices", kept.registry.device_count() as u64),
        ];
        if kept.registry.device_count() == 0 {
            // The rest of a registry without devices is small.
            let begun = |record: &Record| matches!(record, Record::App(app) if app.default);
            let records = kept.registry.records().filter(|filed| !begun(&filed.record)).count();
            found.push(("records of the registry", records as u64));
        }
        let waits = kept.plane.pieces().any(|filed: plane::Filed| !filed.only_counts());
        found.push(("messages to devices, batch tasks or backlogs", u64::from(waits)));
        found.retain(|(_, count)| *count > 0);
        found
    }
}

/// A message that later parts refer to by this number.
fn number(restore: &mut Restore, body: u64, publication: &Arc<Publication>) -> Result<(), Unfit> {
    fits(body <= restore.head.bodies_made && !restore.bodies.contains_key(&body))?;
    restore.bodies.insert_mut(body, Arc::clone(publication));
    Ok(())
}

fn fits(fits: bool) -> Result<(), Unfit> {
    if fits { Ok(()) } else { Err(Unfit) }
}
