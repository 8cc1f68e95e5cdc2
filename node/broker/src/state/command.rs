//! What may change the replicated state, what the proposer learns, and what every node must then do.

use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::packet::{SubscriptionIds, SubscriptionOptions};
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter, TopicName};
use fulmar_platform::registry;

use crate::key::{Epoch, Generation, LogTime, NodeId, SessionKey};
use crate::plane;
use crate::publication::Publication;
use crate::state::restore::{Discarded, Step as RestoreStep};
use crate::steer;

/// Commands of one origin, applied in order, all or none: the origin's next batch has `seq + 1`. A retry has the same seq.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub node: NodeId,
    pub generation: Generation,
    /// From 1; or 0 for a batch without number, which is applied as often as it comes: its commands are all conditional.
    pub seq: u64,
    /// The term of the log in which alone it may be applied: the judgement of a leader that has been deposed does not
    /// count. Whoever applies entries looks at it; the state machine knows no terms.
    pub term: Option<u64>,
    /// Log time at which the batch is applied; never before that of the batch before it.
    pub at: LogTime,
    pub commands: Vec<Command>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A run of a node begins; its older generations are dead from here on. Of a run that has begun already it only
    /// changes the address. Stale if that run or a newer one has ended, or if the node was removed.
    NodeUp {
        node: NodeId,
        generation: Generation,
        /// `host:port` at which the others reach it; empty if it is not known, or does not change.
        address: ByteString,
    },
    /// A run of a node has ended. O(1): what it owned is settled by later, paced commands.
    NodeDown {
        node: NodeId,
        generation: Generation,
    },
    /// A client connects. Every session is claimed, also one that ends with its socket.
    Claim(Box<Claim>),
    /// The connection of (key, epoch) has ended.
    Release(Release),
    /// Replaces or adds filters of a session. Clean sessions (expiry 0) propose only shared filters.
    Subscribe {
        key: SessionKey,
        epoch: Epoch,
        filters: Vec<Subscription>,
    },
    Unsubscribe {
        key: SessionKey,
        epoch: Epoch,
        filters: Vec<TopicFilter>,
    },
    /// A publish that is matched against the replicated subscriptions, sets retained if it says so, or both.
    Publish(Box<PublishCommand>),
    /// A message of the server's own. Every node gives it to its live receivers as it applies this; it is not retained.
    Announce(Arc<Publication>),
    /// Sets (or, with an empty payload, clears) a retained message; live receivers have been served elsewhere.
    SetRetained(Arc<Publication>),
    /// PUBREL of a persistent session: its packet id may be used again.
    ReleaseReceived {
        key: SessionKey,
        epoch: Epoch,
        packet_id: u16,
    },
    /// What receivers on a node have acknowledged, many sessions at once.
    Settle(Vec<Settlement>),
    /// Appends a page of retained messages to the queue of a persistent session.
    ReplayRetained(Box<Replay>),
    /// Fires the will of (key, epoch) if it is still due; conditional, so that repeating it is harmless.
    FireWill {
        key: SessionKey,
        epoch: Epoch,
    },
    /// Ends the session of (key, epoch) if its expiry has passed and nobody owns it.
    /// Ends a session whose clients have lost their right to it, and has its connection closed for this reason. Nothing
    /// happens if it is of another epoch by now.
    EndSession {
        key: SessionKey,
        epoch: Epoch,
        reason: ReasonCode,
    },
    ExpireSession {
        key: SessionKey,
        epoch: Epoch,
    },
    /// Clears those of these topics whose retained message has expired by then.
    ExpireRetained(Vec<TopicName>),
    /// Changes a bound that the state machine itself enforces.
    SetLimits(Limits),
    /// Filters of clean sessions that a run of a node serves, or serves no more. Stale if that run is not alive.
    LiveRoutes(Box<LiveRoutes>),
    /// The id of a node never comes back: its runs end, and whatever comes from it later is refused. Stale if it was
    /// removed before.
    RemoveNode {
        node: NodeId,
    },
    /// Removes the live routes of a run that has ended, at most [`super::ROUTES_FORGOTTEN_MAX`] of them; Stale if it is
    /// alive, or has none.
    ForgetRoutes {
        node: NodeId,
        generation: Generation,
    },
    /// Puts publishes that wait for their turn into at most [`super::EXPANSION_STEP_MAX`] queues; Stale if none waits.
    Expand,
    /// Changes the registry of products, devices and users.
    Registry(Box<registry::Change>),
    /// Changes messages to devices, batch tasks, or backlogs of rules.
    Plane(Box<plane::Change>),
    /// A step of putting a backup back.
    Restore(Box<RestoreStep>),
    /// Changes bans, settings, alarms or the audit.
    Steer(Box<steer::Change>),
}

/// What changes of the filters that a run of a node wants live messages for. Each set only grows or shrinks by name, so
/// that repeating it is harmless. Shared filters are ignored: their groups know their members.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveRoutes {
    pub node: NodeId,
    pub generation: Generation,
    pub add: Vec<TopicFilter>,
    /// After `add`: a filter in both is removed.
    pub remove: Vec<TopicFilter>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    pub key: SessionKey,
    pub node: NodeId,
    pub generation: Generation,
    pub clean_start: bool,
    /// Seconds that the session outlives its connection, already capped; 0 ends it with the socket.
    pub expiry_s: u32,
    pub will: Option<Will>,
    /// Another device of the same product that is connected with this client id is cut.
    pub exclusive_client_id: Option<ByteString>,
    /// Revision of the registry's record that the client was let in by: see [`Registry::judged_by`]. If it is another by
    /// now the claim is rejected with [`Rejection::Conflict`].
    ///
    /// [`Registry::judged_by`]: fulmar_platform::registry::Registry::judged_by
    /// [`Rejection::Conflict`]: fulmar_platform::registry::Rejection::Conflict
    pub judged_by: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Will {
    pub publication: Arc<Publication>,
    /// Message expiry in seconds, counted from when it fires.
    pub message_expiry_s: Option<u32>,
    pub delay_s: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    pub key: SessionKey,
    pub epoch: Epoch,
    /// DISCONNECT 0x00: the will is discarded. Otherwise it fires by its delay.
    pub discard_will: bool,
    /// A new session expiry from DISCONNECT, already capped.
    pub expiry_s: Option<u32>,
    /// Queue entries from here on were never written to the client, as the owner knows; `None` where nobody does.
    pub sent_below: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Whole, with its `$share/{name}/` if it has one.
    pub filter: TopicFilter,
    pub options: SubscriptionOptions,
    pub id: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PublishCommand {
    /// Its payload is copied out of the batch at apply and stored once for all receivers.
    pub publication: Arc<Publication>,
    /// QoS 2 of a persistent session: the packet id that joins its receive set in the same step.
    pub received: Option<(SessionKey, Epoch, u16)>,
    /// A downlink addressed to one session; never matched.
    pub only: Option<SessionKey>,
    /// The claim under which its origin published it: once there is a newer one, nothing is done.
    pub epoch: Option<Epoch>,
}

/// What one receiver has acknowledged. Everything below `floor` is settled, and each of `settled`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    pub key: SessionKey,
    pub epoch: Epoch,
    pub floor: u64,
    pub settled: Vec<u64>,
    /// QoS 2 entries whose PUBREC has come: after takeover they are resumed with PUBREL.
    pub received: Vec<u64>,
    /// Shared QoS 1 deliveries that the client refused (PUBACK >= 0x80), and others that it will never get
    /// (for example larger than its maximum packet size): settled, booked as dropped.
    pub refused: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    pub key: SessionKey,
    pub epoch: Epoch,
    pub filter: TopicFilter,
    pub granted: QoS,
    pub subscription_ids: SubscriptionIds,
    /// Topics of the page, as read from the state at the subscribe.
    pub topics: Vec<TopicName>,
}

/// Bounds on replicated state, the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of queues, retained messages and wills of the whole cluster. Above 80 % durable publishes are refused.
    pub replicated_bytes_max: u64,
    /// Entries and bytes of one session's queue.
    pub queue_entries_max: u32,
    pub queue_bytes_max: u64,
    /// Seconds; longer session expiries are cut to this.
    pub session_expiry_s_max: u32,
    pub sessions_max: u64,
    pub retained_max: u64,
    /// Publishes into one node's own session count: seconds a queued message is kept if it names no expiry; 0 for ever.
    pub queue_ttl_s: u32,
    /// Bytes of all backlogs of rules and applications; beyond it the oldest entries of the largest are dropped. They count
    /// for no other bound: an application that is away must not stop the devices.
    pub rule_backlog_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            replicated_bytes_max: 1 << 30,
            queue_entries_max: 10_000,
            queue_bytes_max: 64 << 20,
            session_expiry_s_max: 7 * 24 * 3600,
            sessions_max: 2_000_000,
            retained_max: 2_000_000,
            queue_ttl_s: 0,
            rule_backlog_bytes_max: 256 << 20,
        }
    }
}

/// What became of one command, in the order of the batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done,
    Claimed(Box<Claimed>),
    /// Per filter: whether the subscription existed before [v5 3.8.3.1, retain handling 1].
    Subscribed(Vec<bool>),
    /// Per filter: whether there was one to remove.
    Unsubscribed(Vec<bool>),
    /// Durable receivers that got the message.
    Published {
        receivers: u32,
    },
    /// As [`Outcome::Published`], where shared subscriptions with a persistent member matched: a member of each of these
    /// has got it, and nobody else of them is to.
    Shared {
        receivers: u32,
        groups: Vec<Arc<TopicFilter>>,
    },
    /// The epoch is not the current one: nothing was done.
    Stale,
    /// A bound was hit, or the device of the claim is not there or frozen: nothing was done.
    Refused(ReasonCode),
    /// What a change of the registry came to.
    Registry(Result<registry::Changed, registry::Rejection>),
    /// What a change of the plane came to.
    Plane(plane::Answer),
    /// What a change of bans, settings, alarms or the audit came to.
    Steer(steer::Answer),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    pub epoch: Epoch,
    pub session_present: bool,
    /// Who owned it until now, if anybody did.
    pub previous: Option<Owner>,
    /// What a resumed session had; empty for a new one.
    pub subscriptions: Vec<Subscription>,
    /// Packet ids of QoS 2 publishes that await their PUBREL.
    pub received: Vec<u16>,
    /// First queue sequence number that is not settled; the new owner reads from here.
    pub queue_floor: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub node: NodeId,
    pub generation: Generation,
    pub epoch: Epoch,
}

/// What nodes must do after an apply. A node acts on those that name it, and on all that name nobody.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// (key, epoch) has something new in its queue.
    Wake { key: SessionKey, owner: Owner },
    /// The owner's connection is to be closed as taken over [v5 MQTT-3.1.4-3].
    TakenOver { key: SessionKey, owner: Owner },
    /// A message that apply itself published (a will): each node serves its own live receivers.
    Publish(Arc<Publication>),
    /// A durable shared group chose a live QoS 0 delivery for this member.
    Deliver { key: SessionKey, owner: Owner, delivery: crate::publication::Delivery },
    /// A message did not stay in a session's queue: its bound was reached, or the message has expired. Nobody need do
    /// anything; it is told so that somebody can say why.
    Lost { key: SessionKey, owner: Option<Owner>, epoch: Epoch, publication: Arc<Publication>, expired: bool },
    /// A traced message is in a session's queue, which has so many entries now.
    Queued { key: SessionKey, owner: Option<Owner>, epoch: Epoch, publication: Arc<Publication>, depth: usize },
    /// The owner's connection is to be closed for this reason; the session stays.
    Disconnect { key: SessionKey, owner: Owner, reason: ReasonCode },
    /// The owner's session is told something of its device, or of one behind it.
    News { key: SessionKey, owner: Owner, news: News },
    /// Something happened in the registry. For all nodes; each sees the same in the same order.
    Registry(registry::Event),
    /// Something happened to a message, a task or a backlog. For all nodes; each sees the same in the same order.
    Plane(plane::Event),
    /// Something happened to bans, settings or alarms. For all nodes; each sees the same in the same order.
    Steer(steer::Event),
    /// The session and its subscriptions are gone, and its connection, if it had one.
    Ended { key: SessionKey, epoch: Epoch },
    /// A session was claimed, or let go of. For all nodes; each sees the same in the same order.
    Session(SessionEvent),
    /// A run of a node has begun, or has another address than before.
    NodeUp { node: NodeId, generation: Generation },
    /// A run of a node has ended; told before the run that follows it.
    NodeDown { node: NodeId, generation: Generation },
    /// Nothing is left of the data: a restore begins. To be let go of where that may take its time.
    Emptied(Discarded),
    /// A restore has ended: everything is as it was in the backup.
    Restored,
}

/// What becomes of a session's connection. A takeover is another `Connected` with a larger epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    Connected {
        key: SessionKey,
        owner: Owner,
        /// It outlives its connection.
        persistent: bool,
        /// There was one already.
        resumed: bool,
    },
    /// The session of this epoch has lost its connection, and stays for as long as it is to.
    Disconnected { key: SessionKey, epoch: Epoch },
}

/// What the session of a device hears of it from the log.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Something is desired of this device that it has not reported so.
    Desired(Arc<registry::Device>),
    /// A device was added behind it, or deleted.
    SubDevice { device: Arc<registry::Device>, added: bool },
    /// To be sent as it is.
    Downlink(fulmar_platform::Downlink),
}

/// How far a queued entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Queued,
    /// QoS 2, PUBREC committed: PUBREL is what remains.
    Received,
}

/// One unsettled entry of a session's queue, as its owner reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueEntry {
    /// Grows by one per entry; the packet id is `1 + seq % 65535`.
    pub seq: u64,
    pub delivery: crate::publication::Delivery,
    pub phase: Phase,
    /// It may have been sent by an earlier owner: sent again with DUP.
    pub before_claim: bool,
}
