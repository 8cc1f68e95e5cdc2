//! What people and programs do to the registry: between the doors, which speak HTTP or gRPC, and the replicated log.
//! Checks what comes in, makes ids and secrets, and answers once every live node has applied the change. Absent here:
//! wire formats, and who may do what.

mod apps;
pub mod backups;
mod begin;
mod certificates;
mod check;
mod commands;
mod devices;
mod ending;
mod import;
pub mod input;
mod insight;
mod messages;
mod nodes;
pub mod notices;
mod people;
mod products;
mod rebalance;
mod retained;
mod rules;
mod secrets;
mod sensoro;
mod sessions;
mod shadows;
mod steer;
mod subscriptions;
mod tasks;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::state::command::{Command, Outcome};
use fulmar_platform::registry::{Change, Changed, Expect, Kind, ObjectId, Record, Registry, Rejection};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::cluster::Replica;
use crate::dispatch::Dispatch;
use crate::rule_engine::RuleEngine;

pub use apps::NewAccessCode;
pub use certificates::{Issued, NewAuthority, NewCa};
pub use commands::{Called, NewCommand};
pub use devices::{DeviceChange, DeviceFilter, DeviceView, NewDevice, Paging, SecretReset, Which};
pub use import::{ImportError, Seed};
pub use insight::{Findings, NewTrace, Question, SlowReceiver, TracePage};
pub use messages::{Broadcast, NewMessage, Sent};
pub use nodes::{Leaving, Report, node_name, node_of};
pub use people::{NewAccessKey, NewUser};
pub use products::{NewProduct, ProductChange, access_name, registration_name};
pub use rebalance::{Balance, RATE as REBALANCE_RATE, Share};
pub use retained::RetainedPage;
pub use rules::{ActionChange, ActionFilter, NewAction, NewRule, RuleChange, RuleFilter, RuleStatus, RuleTrial, Tried};
pub use secrets::hash_password;
pub use sensoro::{NewSensoroApp, SensoroChange};
pub use sessions::{SessionDetail, SessionFilter, SessionPage, SessionRow, key_of};
pub use subscriptions::{SUBSCRIPTIONS_MAX, SubscriptionList, SubscriptionQuery, SubscriptionRow, subscription_json};
pub use tasks::{NewTask, Redone, TaskFilter, TaskRun};
pub use watch::{Watch, WatchEnd, Watched, alarm_json, past_json};

/// Time for a change to be committed and applied everywhere.
const COMMIT: Duration = Duration::from_secs(10);

/// How often a record that others change at the same time is read again before giving up.
const TRIES_MAX: usize = 8;

/// Why an operation did nothing. `Display` is for whoever asked: it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    #[error("{parameter} {problem}")]
    Invalid { parameter: String, problem: String },
    #[error("{} {id} does not exist", name(*kind))]
    Missing { kind: Kind, id: String },
    #[error("{} {id} already exists", name(*kind))]
    Exists { kind: Kind, id: String },
    #[error("{} {id} is used by a {}", name(*kind), name(*by))]
    InUse { kind: Kind, id: String, by: Kind },
    #[error("others keep changing {} {id}", name(*kind))]
    Contended { kind: Kind, id: String },
    /// It may have been done all the same, where the log has stopped in between.
    #[error("the cluster does not take changes now")]
    Unavailable,
    #[error("there is no room for it")]
    Full,
    #[error("there is too little room on the disks")]
    DiskFull,
    #[error("device {device} has a message {id} already")]
    MessageExists { device: String, id: String },
    #[error("device {device} has no message {id}")]
    MessageMissing { device: String, id: String },
    #[error("there is no room for more messages")]
    NoRoomForMessages,
    #[error("the shadow of device {id} has another version by now")]
    Version { id: String },
    #[error("certificates cannot be made: {0}")]
    Certificate(String),
    #[error("there is no ban of {0}")]
    NoBan(String),
    #[error("there is no alarm {0}")]
    NoAlarm(String),
    /// The version of the last change.
    #[error("settings have been changed meanwhile; their version is {0}")]
    SettingsVersion(u64),
    #[error("batch task {0} does not exist")]
    NoTask(String),
    #[error("batch task {id} is {status}, which does not allow it")]
    TaskStatus { id: String, status: &'static str },
    /// The product model has no such service or command.
    #[error("{parameter} {problem}")]
    NotInModel { parameter: String, problem: String },
    /// The product model has no such property that may be set.
    #[error("{parameter} {problem}")]
    NotWritable { parameter: String, problem: String },
    #[error("Operation not allowed. The device is not online.")]
    Offline,
    #[error("the gateway {gateway} of the device is not online")]
    GatewayOffline { gateway: String },
    #[error("the device {device} is frozen")]
    Frozen { device: String },
    #[error("the device {device} has not subscribed to the topic")]
    NotSubscribed { device: String },
    /// Nothing was sent.
    #[error("too many requests to the device {device} wait, or it does not take what it is sent")]
    Busy { device: String },
    /// Nothing was sent.
    #[error("the connection of the device {device} is moving, or its node does nothing now; try again")]
    Unreached { device: String },
    #[error("the node of the device was lost; the device may have got the request")]
    Lost,
    #[error("session {session} does not exist")]
    SessionMissing { session: String },
    #[error("session {session} has no connection")]
    NotConnected { session: String },
    #[error("topic {topic} has no retained message")]
    NotRetained { topic: String },
    #[error("node {node} was not reached: {problem}")]
    NodeUnreached { node: String, problem: String },
    #[error("a rebalance is under way already")]
    Rebalancing,
    #[error(transparent)]
    Backup(#[from] backups::Failed),
}

impl Error {
    fn invalid(parameter: &str, problem: impl Into<String>) -> Error {
        Error::Invalid { parameter: parameter.to_owned(), problem: problem.into() }
    }

    fn missing(kind: Kind, id: &str) -> Error {
        Error::Missing { kind, id: id.to_owned() }
    }

    /// As the REST API says it, and what a batch task notes: the status, and the vendor's code or, where the vendor's
    /// documents are silent, our own.
    #[must_use]
    pub fn rest(&self) -> (u16, &'static str) {
        match self {
            Error::Invalid { .. } => (400, "IOTDA.000006"),
            Error::Missing { kind: Kind::Device, .. } => (404, "IOTDA.014000"),
            Error::Missing { kind: Kind::App, .. } => (403, "IOTDA.001000"),
            Error::Missing { .. } | Error::NoTask(_) | Error::NoBan(_) | Error::NoAlarm(_) => (404, "FULMAR.000001"),
            Error::Exists { kind: Kind::Device, .. } => (400, "IOTDA.014031"),
            Error::Exists { .. } => (409, "FULMAR.000002"),
            Error::InUse { .. } => (409, "FULMAR.000003"),
            Error::Contended { .. } => (409, "FULMAR.000004"),
            Error::Unavailable => (503, "FULMAR.000005"),
            Error::Full => (503, "FULMAR.000006"),
            Error::DiskFull => (503, "FULMAR.000008"),
            Error::NoRoomForMessages => (503, "FULMAR.000020"),
            Error::MessageExists { .. } => (409, "FULMAR.000021"),
            Error::MessageMissing { .. } => (404, "FULMAR.000022"),
            Error::SettingsVersion(_) => (409, "FULMAR.000078"),
            Error::Version { .. } => (409, "FULMAR.000060"),
            Error::Certificate(_) => (500, "FULMAR.000007"),
            Error::NotInModel { .. } => (400, "IOTDA.013002"),
            Error::NotWritable { .. } => (400, "IOTDA.000029"),
            Error::Offline => (403, "IOTDA.014016"),
            Error::GatewayOffline { .. } => (400, "IOTDA.014028"),
            Error::NotSubscribed { .. } => (403, "IOTDA.014112"),
            Error::Lost => (503, "FULMAR.000010"),
            Error::Busy { .. } => (503, "FULMAR.000011"),
            Error::Unreached { .. } => (503, "FULMAR.000012"),
            Error::Frozen { .. } => (403, "FULMAR.000013"),
            Error::TaskStatus { .. } => (409, "FULMAR.000053"),
            Error::SessionMissing { .. } => (404, "FULMAR.000071"),
            Error::NotConnected { .. } => (409, "FULMAR.000072"),
            Error::NotRetained { .. } => (404, "FULMAR.000073"),
            Error::NodeUnreached { .. } => (503, "FULMAR.000074"),
            Error::Rebalancing => (409, "FULMAR.000079"),
            Error::Backup(failed) => failed.rest(),
        }
    }
}

/// A kind of record in words.
#[must_use]
pub fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::App => "resource space",
        Kind::Product => "product",
        Kind::Device => "device",
        Kind::User => "user",
        Kind::AccessKey => "access key",
        Kind::AccessCode => "access code",
        Kind::Authority => "authority",
        Kind::SensoroApp => "sensoro app",
        Kind::Rule => "rule",
        Kind::RuleAction => "rule action",
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Operations {
    dispatch: Arc<Dispatch>,
    /// How long a device is waited for.
    command_timeout: Duration,
    models: commands::Models,
    rules: Arc<RuleEngine>,
    /// One permit for each that watches.
    watches: Arc<Semaphore>,
    /// One backup at a time is made or taken here.
    backups: Arc<Semaphore>,
    rebalances: Arc<rebalance::Turns>,
}

/// What a change of one record is about.
struct Target<'a> {
    kind: Kind,
    id: &'a str,
}

impl Operations {
    #[must_use]
    pub fn new(dispatch: Arc<Dispatch>, rules: Arc<RuleEngine>, command_timeout: Duration) -> Operations {
        let (models, watches) = (commands::Models::default(), Arc::new(Semaphore::new(watch::WATCHES_MAX)));
        let (backups, rebalances) = (Arc::new(Semaphore::new(1)), Arc::default());
        Operations { dispatch, rules, command_timeout, models, watches, backups, rebalances }
    }

    /// Reads what this node has applied. Held only for as long as the read takes.
    pub fn read<T>(&self, read: impl FnOnce(&Registry) -> T) -> T {
        read(self.dispatch.replica().read().registry())
    }

    #[must_use]
    pub fn metrics(&self) -> &crate::telemetry::Metrics {
        self.dispatch.metrics()
    }

    /// The node's part in its cluster.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        self.dispatch.replica()
    }

    /// Whether this node may answer: without its lease what it knows may be old.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.dispatch.replica().acts()
    }

    /// Counts entries that are not in the audit.
    pub fn count_unaudited(&self, count: u64) {
        self.dispatch.metrics().unaudited.inc_by(count);
    }

    /// Milliseconds since 1970, by the node's clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.dispatch.now().log.0
    }

    /// What adds to the log and can be refused is, while the disks have too little room. Changes and deletions go on: they are
    /// how people make room, or steer.
    fn has_room(&self) -> Result<(), Error> {
        if self.replica().has_room() { Ok(()) } else { Err(Error::DiskFull) }
    }

    /// Commits one change, and waits until every live node has applied it.
    async fn commit(&self, change: Change) -> Result<Result<Changed, Rejection>, Error> {
        self.commit_together([change]).await?.into_iter().next().ok_or(Error::Unavailable)
    }

    /// As [`Operations::commit`], of changes that no crash comes between. Each is accepted or rejected by itself.
    async fn commit_together(
        &self,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<Vec<Result<Changed, Rejection>>, Error> {
        let replica = self.dispatch.replica();
        let commands = changes.into_iter().map(|change| Command::Registry(Box::new(change))).collect();
        let finish = async {
            let (outcomes, index) = replica.commit_at(commands).await;
            let of_registry = |outcome| match outcome {
                Outcome::Registry(outcome) => Some(outcome),
                _ => None,
            };
            let outcomes: Vec<_> = outcomes.ok()?.into_iter().map(of_registry).collect::<Option<_>>()?;
            // What was made at one node is known to all.
            let changed = outcomes.iter().any(Result::is_ok);
            let done = !changed || !self.dispatch.links().connected() || replica.stable(index).await;
            done.then_some(outcomes)
        };
        tokio::time::timeout(COMMIT, finish).await.ok().flatten().ok_or(Error::Unavailable)
    }

    /// Commits changes that a dialect asks for, in order, and waits until every live node has applied them.
    ///
    /// # Errors
    /// One was rejected; those after it were not tried.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<(), Error> {
        for change in changes {
            let (kind, id) = about(&change);
            let rejected = self.commit(change).await?;
            rejected.map_err(|rejection| said(&Target { kind, id: &id }, &rejection))?;
        }
        Ok(())
    }

    async fn create(&self, target: Target<'_>, record: Record) -> Result<Changed, Error> {
        self.has_room()?;
        let rejected = self.commit(Change::Put { record, expect: Expect::Absent }).await?;
        rejected.map_err(|rejection| said(&target, &rejection))
    }

    /// Reads a record and puts it changed, again and again while others change it in between. `revise` gives the record
    /// and the revision that it was made from, and whatever else the caller wants of it.
    async fn revise<T>(
        &self,
        target: Target<'_>,
        mut revise: impl FnMut(&Registry) -> Result<(Record, u64, T), Error>,
    ) -> Result<T, Error> {
        for _ in 0..TRIES_MAX {
            let (record, revision, kept) = self.read(&mut revise)?;
            match self.commit(Change::Put { record, expect: Expect::Revision(revision) }).await? {
                Ok(_) => return Ok(kept),
                Err(Rejection::Conflict) => {}
                Err(rejection) => return Err(said(&target, &rejection)),
            }
        }
        Err(Error::Contended { kind: target.kind, id: target.id.to_owned() })
    }

    /// Deletes a record as it is now.
    ///
    /// # Errors
    /// It is not there, or others refer to it.
    pub async fn delete(&self, kind: Kind, id: &str) -> Result<(), Error> {
        let target = Target { kind, id };
        let change = Change::Delete { kind, id: id.into(), expect: Expect::Anything };
        let rejected = self.commit(change).await?;
        rejected.map(|_| ()).map_err(|rejection| said(&target, &rejection))
    }

    /// Closes a device's connection, if it has one.
    async fn disconnect(&self, device: &str) -> Result<(), Error> {
        // One that is gone has no connection.
        self.commit(Change::Disconnect { device: device.into() }).await.map(|_| ())
    }
}

/// What a change is about; the key is the cluster's own.
fn about(change: &Change) -> (Kind, String) {
    match change {
        Change::Put { record, .. } => (record.kind(), record.id().to_owned()),
        Change::Delete { kind, id, .. } => (*kind, id.to_string()),
        Change::Disconnect { device }
        | Change::Shadow { device, .. }
        | Change::SubDevice { device, .. }
        | Change::Tell { device, .. } => (Kind::Device, device.to_string()),
        Change::DisconnectApplication { access_key } => (Kind::AccessCode, access_key.to_string()),
        Change::Key(_) => (Kind::AccessKey, String::new()),
    }
}

/// The member by which another record refers to one of this kind.
fn member(kind: Kind) -> &'static str {
    match kind {
        Kind::App => "app_id",
        Kind::Product => "product_id",
        Kind::Device => "gateway_id",
        Kind::User => "user",
        Kind::Rule => "rule_id",
        Kind::SensoroApp => "sensoro_app_id",
        Kind::AccessKey | Kind::AccessCode | Kind::Authority | Kind::RuleAction => "id",
    }
}

fn said(target: &Target<'_>, rejection: &Rejection) -> Error {
    let (kind, id) = (target.kind, target.id.to_owned());
    match rejection {
        Rejection::Exists => Error::Exists { kind, id },
        Rejection::Missing => Error::Missing { kind, id },
        Rejection::Conflict => Error::Contended { kind, id },
        Rejection::Dangling(other) => {
            Error::invalid(member(*other), format!("names a {} that does not exist", name(*other)))
        }
        Rejection::InUse(by) => Error::InUse { kind, id, by: *by },
        Rejection::Full | Rejection::TooLarge => Error::Full,
    }
}

/// One page of what is ordered from new to old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Of everything that was asked for, on whatever page.
    pub count: usize,
    /// The last of this page: what the next one is asked for with.
    pub marker: Option<ObjectId>,
}

/// Cuts a page out of everything, whose order is newest first.
fn page<T>(all: impl Iterator<Item = (ObjectId, T)>, paging: &Paging) -> Page<T> {
    let (mut items, mut count, mut marker, mut passed) = (Vec::new(), 0, None, 0);
    for (oid, item) in all {
        count += 1;
        if oid >= paging.marker || items.len() >= paging.limit {
            continue;
        }
        if passed < paging.offset {
            passed += 1;
            continue;
        }
        marker = Some(oid);
        items.push(item);
    }
    Page { items, count, marker }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(number: u64) -> ObjectId {
        ObjectId::new(7, number)
    }

    #[test]
    fn pages_walk_from_new_to_old_without_overlap() {
        let all = || (1..=23).rev().map(|number| (oid(number), number));
        let mut paging = Paging { limit: 10, marker: ObjectId([0xff; 12]), offset: 0 };
        let mut seen = Vec::new();
        for size in [10, 10, 3, 0] {
            let page = page(all(), &paging);
            assert_eq!((page.items.len(), page.count), (size, 23));
            assert_eq!(page.marker, page.items.last().map(|last| oid(*last)));
            paging.marker = page.marker.unwrap_or(paging.marker);
            seen.extend(page.items);
        }
        assert_eq!(seen, (1..=23).rev().collect::<Vec<_>>());
        let passed = page(all(), &Paging { limit: 2, marker: oid(21), offset: 3 });
        assert_eq!((passed.items, passed.marker), (vec![17, 16], Some(oid(16))));
    }
}
