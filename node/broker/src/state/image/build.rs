//! Parts back to a snapshot. Everything is checked; what is derived is made anew, and must amount to what the head says.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fulmar_mqtt::{QoS, TopicFilter};
use fulmar_platform::registry::{Filed, Restoring};
use thiserror::Error;

use super::detach::{detached, kept};
use super::{DepotPart, EntryPart, ExpansionPart, FallenPart, Head, LiveRoutesPart, OriginPart, Part};
use super::{ResultsPart, RetainedPart, SessionPart};
use crate::key::{NodeId, SessionKey};
use crate::plane;
use crate::publication::Publication;
use crate::state::Snapshot;
use crate::state::command::{Limits, Outcome, Phase, Subscription, Will};
use crate::state::expansion::Expansion;
use crate::state::ledger::{Ledger, SOLE};
use crate::state::origins::{RESULTS_KEPT, Run};
use crate::state::publish::Receiver;
use crate::state::queue::{Entry, NEVER, Queue, SPAN_MAX};
use crate::state::restore::Restore;
use crate::state::session::{Place, Session};
use crate::state::shared::{Group, Member};
use crate::state::subscriptions::Route;
use crate::steer;

/// Why parts are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("part {number} ({part}): {field} {problem}")]
pub struct ImageError {
    /// From 0.
    pub number: u64,
    pub part: &'static str,
    pub field: &'static str,
    pub problem: String,
}

/// A field and what is wrong with it.
type Refusal = (&'static str, String);

fn check(good: bool, field: &'static str, problem: impl FnOnce() -> String) -> Result<(), Refusal> {
    if good { Ok(()) } else { Err((field, problem())) }
}

fn misplaced() -> Refusal {
    ("it", "is out of place".to_owned())
}

/// How far the parts have come; they never go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Start,
    Origins,
    Fallen,
    LiveRoutes,
    Registry,
    Retained,
    Sessions,
    Expansions,
    Plane,
    Steer,
    Ended,
}

/// Takes the parts of [`Snapshot::parts`] in their order. What it keeps pins none of the buffers that a part was read
/// from.
pub struct Builder {
    stage: Stage,
    /// Parts that came.
    number: u64,
    head: Head,
    snapshot: Snapshot,
    /// What the parts have amounted to so far.
    ledger: Ledger,
    /// The origin or the session that may go on.
    open: Open,
    /// Messages with a number.
    bodies: HashMap<u64, Arc<Publication>>,
    /// One handle for each key, however often it is named; and one for each shared filter, with its members by key.
    keys: HashSet<SessionKey>,
    groups: HashMap<Arc<TopicFilter>, Vec<Member>>,
    epochs: Vec<u64>,
    registry: Restoring,
    plane: plane::Restoring,
    steer: steer::Restoring,
}

enum Open {
    Nothing,
    Origin { node: NodeId, run: Run, seq: u64, results: Vec<Vec<Outcome>> },
    Session { key: SessionKey, session: Session, subscriptions: Vec<Subscription>, depot: Option<(Queue, Vec<u16>)> },
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            stage: Stage::Start,
            number: 0,
            head: Head::default(),
            snapshot: Snapshot::empty(Limits::default()),
            ledger: Ledger::default(),
            open: Open::Nothing,
            bodies: HashMap::new(),
            keys: HashSet::new(),
            groups: HashMap::new(),
            epochs: Vec::new(),
            registry: Restoring::default(),
            plane: plane::Restoring::default(),
            steer: steer::Restoring::default(),
        }
    }
}

impl Builder {
    /// Takes the next part. After an error the builder is of no more use.
    ///
    /// # Errors
    /// The part does not belong here, or a field of it or of the one that it ends cannot be.
    pub fn add(&mut self, part: Part) -> Result<(), ImageError> {
        let (number, name) = (self.number, part.name());
        let error = |(field, problem)| ImageError { number, part: name, field, problem };
        self.take(part).map_err(error)?;
        self.number += 1;
        Ok(())
    }

    /// The snapshot.
    ///
    /// # Errors
    /// Parts are missing, or do not amount to what the head says.
    pub fn finish(mut self) -> Result<Snapshot, ImageError> {
        let number = self.number;
        self.complete().map_err(|(field, problem)| ImageError { number, part: "end", field, problem })?;
        Ok(self.snapshot)
    }

    fn take(&mut self, part: Part) -> Result<(), Refusal> {
        match part {
            Part::Results(part) => self.results(part),
            Part::Subscriptions(subscriptions) => self.subscriptions(subscriptions),
            Part::Queue(entries) => entries.into_iter().try_for_each(|entry| self.entry(entry)),
            Part::Head(head) => self.head(*head),
            Part::Origin(part) => self.origin(&part),
            Part::Fallen(part) => self.fallen(&part),
            Part::LiveRoutes(part) => self.live_routes(part),
            Part::Registry(filed) => self.registry(*filed),
            Part::Retained(part) => self.retained(part),
            Part::Session(part) => self.session(*part),
            Part::Expansion(part) => self.expansion(part),
            Part::Plane(filed) => self.proceed(Stage::Plane).and_then(|()| self.plane.add(*filed)),
            Part::Steer(filed) => self.proceed(Stage::Steer).and_then(|()| self.steer.add(*filed)),
            Part::End => self.proceed(Stage::Ended),
        }
    }

    /// Ends what was open, and goes on to a stage.
    fn proceed(&mut self, to: Stage) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => {}
            Open::Origin { node, mut run, seq, results } => {
                let whole = results.is_empty() || seq == run.applied;
                check(whole, "seq", || format!("of the origin's last results is {seq}, not {}", run.applied))?;
                run.results = results.into_iter().map(Arc::new).collect();
                self.snapshot.origins.restore_run(node, run);
            }
            Open::Session { key, mut session, subscriptions, depot } => {
                self.join_groups(&key, &session, &subscriptions);
                session.refill(subscriptions, depot);
                self.snapshot.sessions.insert_mut(key, session);
            }
        }
        if self.stage == Stage::Start || self.stage == Stage::Ended || to < self.stage {
            return Err(misplaced());
        }
        self.stage = to;
        Ok(())
    }

    fn head(&mut self, head: Head) -> Result<(), Refusal> {
        if self.stage != Stage::Start {
            return Err(misplaced());
        }
        self.stage = Stage::Origins;
        check(head.routes_at <= head.position, "routes_at", || format!("is {}, after the position", head.routes_at))?;
        check(head.books.unaccounted() == 0, "books", || "do not balance".to_owned())?;
        let snapshot = &mut self.snapshot;
        (snapshot.configured, snapshot.now, snapshot.epoch_last) = (head.limits, head.now, head.epoch_last);
        (snapshot.position, snapshot.routes_at) = (head.position, head.routes_at);
        check(head.removed.is_sorted_by(|one, next| one < next), "removed", || "are not in order".to_owned())?;
        head.removed.iter().for_each(|node| snapshot.origins.restore_removed(*node));
        self.registry = Restoring::new(head.registry_key.clone(), head.registry_last);
        self.head = head;
        Ok(())
    }

    fn origin(&mut self, part: &OriginPart) -> Result<(), Refusal> {
        self.proceed(Stage::Origins)?;
        let new = self.snapshot.origins.generation_of(part.node).is_none();
        check(new, "node", || format!("{:016x} has come before", part.node.0))?;
        let OriginPart { node, generation, alive, applied, ref address } = *part;
        check(!self.snapshot.origins.removed(node), "node", || format!("{:016x} was removed", node.0))?;
        let run = Run { generation, alive, applied, results: Vec::new(), address: (**address).into() };
        self.open = Open::Origin { node, run, seq: 0, results: Vec::new() };
        Ok(())
    }

    fn results(&mut self, part: ResultsPart) -> Result<(), Refusal> {
        let outcomes: Vec<Outcome> = part.outcomes.into_iter().map(detached).collect();
        let Open::Origin { run, seq, results, .. } = &mut self.open else {
            return Err(misplaced());
        };
        match results.last_mut() {
            Some(last) if part.seq == *seq => {
                last.extend(outcomes);
                return Ok(());
            }
            Some(_) => check(part.seq == seq.saturating_add(1), "seq", || format!("is {}, after {seq}", part.seq))?,
            None => check(part.seq > 0, "seq", || "is 0".to_owned())?,
        }
        let (applied, count) = (run.applied, results.len());
        check(part.seq <= applied, "seq", || format!("is {}, the origin's last is {applied}", part.seq))?;
        check(count < RESULTS_KEPT, "seq", || format!("is one more than the {RESULTS_KEPT} that are kept"))?;
        *seq = part.seq;
        results.push(outcomes);
        Ok(())
    }

    fn fallen(&mut self, part: &FallenPart) -> Result<(), Refusal> {
        self.proceed(Stage::Fallen)?;
        let FallenPart { node, generation, at } = *part;
        let origins = &mut self.snapshot.origins;
        let ended = origins.has_begun(node, generation) && !origins.alive(node, generation);
        check(ended, "generation", || format!("{} has not ended", generation.0))?;
        check(origins.fell_at(node, generation).is_none(), "generation", || {
            format!("{} has come before", generation.0)
        })?;
        origins.restore_fallen(node, generation, at);
        Ok(())
    }

    fn live_routes(&mut self, part: LiveRoutesPart) -> Result<(), Refusal> {
        self.proceed(Stage::LiveRoutes)?;
        let LiveRoutesPart { node, generation, filters } = part;
        let begun = self.snapshot.origins.has_begun(node, generation);
        check(begun, "run", || format!("{} of {:016x} is unknown", generation.0, node.0))?;
        for filter in filters {
            check(filter.shared().is_none(), "filters", || format!("have the shared {filter}"))?;
            let ascends = self.snapshot.live_routes.restore(node, generation, &filter);
            check(ascends, "filters", || "are not in order".to_owned())?;
        }
        Ok(())
    }

    fn registry(&mut self, filed: Filed) -> Result<(), Refusal> {
        self.proceed(Stage::Registry)?;
        let (epoch, last) = (filed.presence.as_ref().map_or(0, |presence| presence.epoch), self.head.epoch_last);
        check(epoch <= last, "presence", || format!("has the epoch {epoch}; the last one given was {last}"))?;
        self.registry.add(filed)
    }

    fn retained(&mut self, part: RetainedPart) -> Result<(), Refusal> {
        self.proceed(Stage::Retained)?;
        check(!part.publication.payload.is_empty(), "payload", || "is empty".to_owned())?;
        let publication = self.publication(part.publication);
        if part.body != SOLE {
            self.number(part.body, &publication)?;
        }
        self.ledger.restore_retained(&publication, part.body);
        if let Some(at) = publication.expires_at {
            self.snapshot.retained_due.insert_mut((at, publication.topic.clone()), ());
        }
        let before = self.snapshot.retained.set(publication);
        check(before.is_none(), "topic", || "has come before".to_owned())
    }

    fn session(&mut self, part: SessionPart) -> Result<(), Refusal> {
        self.proceed(Stage::Sessions)?;
        let key = self.key(part.key);
        check(!self.snapshot.sessions.contains_key(&key), "key", || format!("{key} has come before"))?;
        let (epoch, last) = (part.epoch.0, self.head.epoch_last);
        check((1..=last).contains(&epoch), "epoch", || format!("is {epoch}; the last one given was {last}"))?;
        self.epochs.push(epoch);
        if let Place::Owned { node, generation } = part.place {
            let origins = &self.snapshot.origins;
            let known = origins.alive(node, generation) || origins.fell_at(node, generation).is_some();
            check(known, "place", || format!("is run {} of {:016x}, which is unknown", generation.0, node.0))?;
        }
        let will = part.will.map(|will| self.will(will));
        let depot = part.depot.map(depot).transpose()?;
        let mut session = Session::restored(part.epoch, part.place, part.expiry_s, will);
        session.cut = part.cut;
        self.open = Open::Session { key, session, subscriptions: Vec::new(), depot };
        self.subscriptions(part.subscriptions)
    }

    fn will(&mut self, mut will: Arc<Will>) -> Arc<Will> {
        let kept = Arc::make_mut(&mut will);
        kept.publication = self.publication(Arc::clone(&kept.publication));
        self.ledger.will_set(&will);
        will
    }

    /// More subscriptions of the session or of the claim that came last.
    fn subscriptions(&mut self, more: Vec<Subscription>) -> Result<(), Refusal> {
        let list = match &mut self.open {
            Open::Session { subscriptions, .. } => subscriptions,
            Open::Origin { results, .. } => match results.last_mut().and_then(|outcomes| outcomes.last_mut()) {
                Some(Outcome::Claimed(claimed)) => &mut claimed.subscriptions,
                _ => return Err(misplaced()),
            },
            Open::Nothing => return Err(misplaced()),
        };
        list.reserve_exact(more.len());
        for subscription in more {
            let ascends = list.last().is_none_or(|last| last.filter < subscription.filter);
            check(ascends, "subscriptions", || "are not in order".to_owned())?;
            list.push(kept(subscription));
        }
        Ok(())
    }

    fn entry(&mut self, part: EntryPart) -> Result<(), Refusal> {
        let publication = self.mentioned(part.publication, part.body)?;
        let group = part.group.map(|filter| self.group(&filter));
        let shared = group.as_ref().is_none_or(|filter| filter.shared().is_some());
        check(shared, "group", || "is no shared filter".to_owned())?;
        check(part.qos > QoS::AtMostOnce, "qos", || "is 0".to_owned())?;
        let begun = part.phase == Phase::Queued || part.qos == QoS::ExactlyOnce;
        check(begun, "phase", || "is received, without QoS 2".to_owned())?;
        let Open::Session { depot: Some((queue, _)), .. } = &mut self.open else {
            return Err(misplaced());
        };
        let (seq, next) = (part.seq, queue.next_seq);
        let ends = queue.ends();
        let ascends = ends.is_none_or(|(_, last)| last < seq) && seq < next;
        check(ascends, "seq", || format!("{seq} is not in order, or not below {next}"))?;
        let first = ends.map_or(seq, |(first, _)| first);
        check(next - first <= SPAN_MAX, "seq", || format!("{seq} is too far below {next}"))?;
        self.ledger.restore_entry(&publication, part.body);
        let entry = Entry {
            publication,
            body: part.body,
            expires_at: part.expires_at.unwrap_or(NEVER),
            subscription_ids: part.subscription_ids,
            group,
            qos: part.qos,
            retain: part.retain,
            phase: part.phase,
        };
        queue.put(seq, entry);
        Ok(())
    }

    /// A message that is in this part, or was in an earlier one with this number.
    fn mentioned(&mut self, publication: Option<Arc<Publication>>, body: u64) -> Result<Arc<Publication>, Refusal> {
        match publication {
            Some(publication) => {
                let publication = self.publication(publication);
                if body != SOLE {
                    self.number(body, &publication)?;
                }
                Ok(publication)
            }
            None => match self.bodies.get(&body) {
                Some(publication) => Ok(Arc::clone(publication)),
                None => Err(("body", format!("{body} has not come before"))),
            },
        }
    }

    fn expansion(&mut self, part: ExpansionPart) -> Result<(), Refusal> {
        let begun = self.stage == Stage::Expansions;
        self.proceed(Stage::Expansions)?;
        check(!part.receivers.is_empty(), "receivers", || "are none".to_owned())?;
        if !part.continues {
            let publication = self.mentioned(part.publication, part.body)?;
            let (expires_at, receivers) = (part.expires_at.unwrap_or(NEVER), Arc::default());
            self.snapshot.expansions.push(Expansion { publication, body: part.body, expires_at, receivers });
        } else if !begun {
            return Err(misplaced());
        }
        for receiver in part.receivers {
            let key = self.key(receiver.key);
            check(self.snapshot.sessions.contains_key(&key), "receivers", || format!("have {key}, which is unknown"))?;
            check(receiver.qos > QoS::AtMostOnce, "qos", || "is 0".to_owned())?;
            let group = receiver.group.map(|filter| self.group(&filter));
            let shared = group.as_ref().is_none_or(|filter| filter.shared().is_some());
            check(shared, "group", || "is no shared filter".to_owned())?;
            let Some(expansion) = self.snapshot.expansions.last_mut() else {
                return Err(misplaced());
            };
            let descends = expansion.receivers.last().is_none_or(|last| last.key >= key);
            check(descends, "receivers", || "are not in order".to_owned())?;
            self.ledger.restore_entry(&expansion.publication, expansion.body);
            Arc::make_mut(&mut expansion.receivers).push(Receiver {
                key,
                qos: receiver.qos,
                retain_as_published: receiver.retain_as_published,
                subscription_ids: receiver.subscription_ids,
                group,
            });
        }
        Ok(())
    }

    /// A message that later parts refer to by this number.
    fn number(&mut self, body: u64, publication: &Arc<Publication>) -> Result<(), Refusal> {
        let made = self.head.bodies_made;
        check(body <= made, "body", || format!("is {body}; the last one given was {made}"))?;
        let before = self.bodies.insert(body, Arc::clone(publication));
        check(before.is_none(), "body", || format!("{body} has come before"))
    }

    fn join_groups(&mut self, key: &SessionKey, session: &Session, subscriptions: &[Subscription]) {
        for subscription in subscriptions.iter().filter(|subscription| subscription.filter.shared().is_some()) {
            let (route, persistent) = (Route::of(subscription), session.persistent());
            let name = self.group(&subscription.filter);
            let member = Member { key: key.clone(), route, persistent };
            self.groups.entry(name).or_default().push(member);
        }
    }

    /// The one handle of a shared filter.
    fn group(&mut self, filter: &TopicFilter) -> Arc<TopicFilter> {
        if let Some((name, _)) = self.groups.get_key_value(filter) {
            return Arc::clone(name);
        }
        let name = Arc::new(filter.detached());
        self.groups.insert(Arc::clone(&name), Vec::new());
        name
    }

    /// The one handle of a key.
    fn key(&mut self, key: SessionKey) -> SessionKey {
        if let Some(known) = self.keys.get(&key) {
            return known.clone();
        }
        self.keys.insert(key.clone());
        key
    }

    fn publication(&mut self, mut publication: Arc<Publication>) -> Arc<Publication> {
        let kept = Arc::make_mut(&mut publication); // in place, where nobody else holds it
        *kept = kept.detached();
        kept.origin = kept.origin.take().map(|origin| self.key(origin));
        publication
    }

    fn complete(&mut self) -> Result<(), Refusal> {
        check(self.stage == Stage::Ended, "it", || "is missing".to_owned())?;
        let (registry, plane) = (std::mem::take(&mut self.registry), std::mem::take(&mut self.plane));
        (self.snapshot.registry, self.snapshot.plane) = match self.head.restoring {
            Some(_) => (registry.unfinished(), plane.unfinished()),
            None => (registry.finish()?, plane.finish()?),
        };
        self.snapshot.steer = std::mem::take(&mut self.steer).finish();
        self.snapshot.limits = self.snapshot.steer.settings.over(self.snapshot.configured);
        let (part, bodies) = (self.head.restoring.clone(), std::mem::take(&mut self.bodies));
        self.snapshot.restoring = part.map(|part| Restore::of(*part, bodies));
        let (head, ledger) = (&self.head, &mut self.ledger);
        for (field, said, found) in [
            ("sessions", head.sessions, self.snapshot.sessions.size() as u64),
            ("retained", head.retained, self.snapshot.retained.len() as u64),
            ("devices", head.devices, self.snapshot.registry.device_count() as u64),
            ("books.queued", head.books.queued, ledger.books.queued),
            ("bytes", head.bytes, ledger.bytes),
        ] {
            check(said == found, field, || format!("are {found}; the head says {said}"))?;
        }
        // A retained message comes before the queues that refer to it.
        let unheld = ledger.unheld().filter(|_| self.snapshot.restoring.is_none());
        check(unheld.is_none(), "body", || format!("{} is in no queue", unheld.unwrap_or_default()))?;
        self.epochs.sort_unstable();
        check(!self.epochs.windows(2).any(|pair| pair.first() == pair.last()), "epoch", || {
            "is that of two sessions".to_owned()
        })?;
        ledger.restored(head.books, head.bodies_made);
        self.snapshot.ledger = std::mem::take(ledger);
        for (name, members) in self.groups.drain().filter(|(_, members)| !members.is_empty()) {
            self.snapshot.groups.insert_mut(name, Group::of(members));
        }
        Ok(())
    }
}

fn depot(part: DepotPart) -> Result<(Queue, Vec<u16>), Refusal> {
    let DepotPart { next_seq, offered, expires_next, received } = part;
    check(offered <= next_seq, "offered", || format!("is {offered}, above {next_seq}"))?;
    let ascends = received.is_sorted_by(|one, next| one < next) && received.first() != Some(&0);
    check(ascends, "received", || "is not in order, or has 0".to_owned())?;
    Ok((Queue::restored(next_seq, offered, expires_next.unwrap_or(NEVER)), received))
}
