//! From CONNECT to CONNACK: identity, claim, machine, actor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use bytestring::ByteString;
use fulmar_broker::outbound::{Outbound, Settings};
use fulmar_broker::session::{Limits, Opening, Session, Start, expiry_s, revoke, will};
use fulmar_broker::state::command::{Claim, Claimed, Command, LiveRoutes, Outcome, Release, Subscription};
use fulmar_broker::state::judged_by;
use fulmar_broker::steer::settings::table;
use fulmar_broker::{Epoch, SessionKey};
use fulmar_mqtt::packet::{Connect, OversizePolicy};
use fulmar_mqtt::{ReasonCode, encode};
use fulmar_platform::registry::{Change, Record, Rejection};
use fulmar_platform::{Admission, Dialect, Downlink, Voice};
use ractor::{Actor, ActorRef};
use rustls::pki_types::CertificateDer;

use super::actor::{Arguments, Message, SessionActor};
use super::authenticate::Authenticator;
use super::flapping::{Flapping, Rule};
use super::pace::Pace;
use crate::config::tls::Authorities;
use crate::dispatch::downlink::delivery;
use crate::dispatch::{Dispatch, Guest, Receiver, Shortage};

/// Unacknowledged deliveries to one client, whatever it would take.
const WINDOW_MAX: u16 = 8_192;

/// How often a CONNECT is judged while others change the record that it is judged by.
const JUDGED_MAX: usize = 4;

const CHANGED: (ReasonCode, &str) = (ReasonCode::ServerBusy, "others keep changing what the client is judged by");

const BANNED: (ReasonCode, &str) = (ReasonCode::Banned, "banned");

const NOT_CLAIMED: (ReasonCode, &str) = (ReasonCode::ServerUnavailable, "the session could not be claimed");

/// What a door settles for those who come in by it.
#[derive(Debug, Clone)]
pub struct Terms {
    pub limits: Arc<Limits>,
    pub oversize: OversizePolicy,
    /// Those that are let in, in the order in which they are asked.
    pub dialects: Arc<[Dialect]>,
    pub peer: std::net::SocketAddr,
    /// By when it must be known who the client is.
    pub by: tokio::time::Instant,
    /// Whether the client came over TLS.
    pub encrypted: bool,
    /// The host name that it asked for, without port.
    pub host: Option<Box<str>>,
    /// The client's certificates in DER, its own first. It has proven that the key is its own, and nothing else.
    pub chain: Option<Arc<[CertificateDer<'static>]>>,
    /// Who vouches for such certificates, by the listener's configuration.
    pub authorities: Option<Arc<Authorities>>,
}

/// A connection with a session: CONNACK waits in its way out.
#[derive(Debug)]
pub struct Opened {
    pub receiver: Arc<Receiver>,
    pub actor: ActorRef<Message>,
    pub packet_bytes_max: u32,
    pub oversize: OversizePolicy,
}

/// A client that is let in, and the revision of the record that said so, if one did.
struct LetIn {
    key: SessionKey,
    judged_by: Option<u64>,
    admission: Admission,
}

/// Why a CONNECT was refused; the door answers with the reason and closes.
#[derive(Debug)]
pub struct Refused {
    pub reason: ReasonCode,
    /// Of the client; generic where it has not come so far.
    pub dialect: Dialect,
    /// For the log: what was wrong, never a secret.
    pub detail: &'static str,
    pub client_id: ByteString,
}

/// Bounds of one client's way out.
#[derive(Debug, Clone, Copy)]
pub struct QueueBounds {
    pub messages_max: usize,
    pub bytes_max: usize,
}

/// Opens sessions.
pub struct Sessions {
    dispatch: Arc<Dispatch>,
    authenticator: Authenticator,
    limits: Limits,
    queue: QueueBounds,
    leaving: AtomicBool,
    pace: Pace,
    flapping: Flapping,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Sessions {
    #[must_use]
    pub fn new(
        dispatch: Arc<Dispatch>,
        authenticator: Authenticator,
        limits: Limits,
        queue: QueueBounds,
    ) -> Arc<Sessions> {
        Arc::new(Sessions {
            dispatch,
            authenticator,
            limits,
            queue,
            leaving: AtomicBool::new(false),
            pace: Pace::default(),
            flapping: Flapping::default(),
        })
    }

    #[must_use]
    pub fn dispatch(&self) -> &Arc<Dispatch> {
        &self.dispatch
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Authenticates a client, claims its session and starts its actor.
    ///
    /// # Errors
    /// The reason that CONNACK gives.
    pub async fn open(&self, mut connect: Connect, terms: Terms) -> Result<Opened, Refused> {
        let mut assigned_client_id = None;
        if connect.client_id.is_empty() {
            // [v5 MQTT-3.1.3-6] a client without an id is given one.
            let id = ByteString::from(format!("fulmar-{:016x}", rand::random::<u64>()));
            assigned_client_id = Some(id.clone());
            connect.client_id = id;
        }
        let client_id = connect.client_id.clone();
        let refuse = |dialect, reason, detail| Refused { reason, dialect, detail, client_id: client_id.clone() };
        if self.leaving.load(Ordering::Acquire) {
            return Err(refuse(Dialect::Generic, ReasonCode::ServerUnavailable, "the node is leaving"));
        }
        if self.dispatch.memory().shortage() > Shortage::None {
            self.dispatch.metrics().memory_refused.inc();
            return Err(refuse(Dialect::Generic, ReasonCode::QuotaExceeded, "the node is short of memory"));
        }
        if self.dispatch.replica().room().full() {
            return Err(refuse(Dialect::Generic, ReasonCode::QuotaExceeded, "the disk of the node is full"));
        }
        if self.dispatch.client_banned(&client_id, connect.username.as_deref(), terms.peer.ip()) {
            return Err(refuse(Dialect::Generic, BANNED.0, BANNED.1));
        }
        let mut refused = refuse(Dialect::Generic, CHANGED.0, CHANGED.1);
        for _ in 0..JUDGED_MAX {
            // A copy shares everything, so that nobody who applies entries waits for a decision.
            let registry = self.dispatch.replica().read().registry().clone();
            // Only this waits for others; a claim that has begun is seen through.
            let (dialect, admitted) =
                tokio::time::timeout_at(terms.by, self.authenticator.admit(&connect, &terms, &registry))
                    .await
                    .map_err(|_| refuse(Dialect::Generic, ReasonCode::ServerBusy, "too many passwords to verify"))?;
            let admission = admitted.map_err(|refusal| refuse(dialect, refusal.reason, refusal.detail))?;
            let key = SessionKey::new(&admission.tenant, admission.dialect.as_str(), &admission.identity);
            let judged_by = judged_by(&registry, &key);
            drop(registry);
            let let_in = LetIn { key, judged_by, admission };
            match self.claim(&connect, assigned_client_id.clone(), let_in, &terms).await {
                Ok(opened) => return Ok(opened),
                // It may have been let in by what is not so any more.
                Err(CHANGED) => refused = refuse(dialect, CHANGED.0, CHANGED.1),
                Err((reason, detail)) => return Err(refuse(dialect, reason, detail)),
            }
        }
        Err(refused)
    }

    /// Has the registry changed as an admission asks for. All or none: a client is let in with all of it. Gives the
    /// revision of the record that the session is of, where that is among what was changed.
    async fn change(&self, key: &SessionKey, changes: Vec<Change>) -> Result<Option<u64>, (ReasonCode, &'static str)> {
        if changes.is_empty() {
            return Ok(None);
        }
        let own = |change: &Change| match change {
            Change::Put { record: Record::Device(device), .. } => *device.id == *key.identity(),
            _ => false,
        };
        let own = changes.iter().rposition(own);
        let commands = changes.into_iter().map(|change| Command::Registry(Box::new(change))).collect();
        let outcomes = self.dispatch.replica().commit(commands).await.map_err(|error| {
            tracing::error!(client = %key, %error, "registration of a device not committed");
            NOT_CLAIMED
        })?;
        match outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Registry(Err(rejection)) => Some(rejection),
            _ => None,
        }) {
            None => Ok(own.and_then(|own| match outcomes.get(own) {
                Some(Outcome::Registry(Ok(changed))) => Some(changed.revision),
                _ => None,
            })),
            Some(Rejection::Conflict) => Err(CHANGED),
            Some(rejection) => {
                tracing::info!(client = %key, %rejection, "the registry has rejected what the client needs");
                Err((ReasonCode::NotAuthorized, "the registry has rejected what the client needs"))
            }
        }
    }

    async fn claim(
        &self,
        connect: &Connect,
        assigned_client_id: Option<ByteString>,
        let_in: LetIn,
        terms: &Terms,
    ) -> Result<Opened, (ReasonCode, &'static str)> {
        let dispatch = &self.dispatch;
        let LetIn { key, judged_by, admission } = let_in;
        let Admission { voice, manners, exclusive_client_id, changes, greeting, .. } = admission;
        let (packet_bytes_max, oversize) =
            admission.oversize.unwrap_or((terms.limits.packet_bytes_max, terms.oversize));
        let mut limits = terms.limits.clone();
        let session_expiry_s_max = dispatch.replica().read().limits().session_expiry_s_max;
        if session_expiry_s_max != limits.session_expiry_s_max {
            Arc::make_mut(&mut limits).session_expiry_s_max = session_expiry_s_max; // set by an admin
        }
        let will = will(connect, &*voice, &manners, &limits, dispatch.now().log)
            .map_err(|reason| (reason, "the will is not acceptable"))?;
        let expiry_s = expiry_s(connect, &manners, &limits);
        let opening = Opening { assigned_client_id, expiry_s };
        if !self.pace.admits(&key, dispatch.now().mono_ms) {
            dispatch.metrics().takeovers_refused.inc();
            tracing::warn!(client = %key, peer = %terms.peer, "taken over too often: do two clients have one identity?");
            return Err((ReasonCode::ConnectionRateExceeded, "the session is taken over too often"));
        }
        if self.flaps(&connect.client_id) {
            return Err(BANNED);
        }
        let judged_by = self.change(&key, changes).await?.or(judged_by);
        let (node, generation) = dispatch.replica().run();
        let clean_start = connect.clean_start || manners.clean;
        let key_claimed = key.clone();
        let claim =
            Claim { key: key_claimed, node, generation, clean_start, expiry_s, will, exclusive_client_id, judged_by };
        dispatch.hear_out(&key).await;
        let (mut claimed, index) = self.commit_claim(claim).await?;
        if claimed.previous.is_some() {
            self.pace.note(&key, dispatch.now().mono_ms);
        }
        self.await_stable(&key, claimed.epoch, index).await?;
        self.revoke(&key, &mut claimed, &*voice).await?;
        let start = Start { connect, key: key.clone(), voice, manners, limits, claimed: &claimed, opening: &opening };
        let (session, connack) = Session::start(start, dispatch.now());
        let persistent = session.persistent();
        let settings = Settings {
            version: connect.version,
            receive_maximum: connect.properties.receive_maximum.unwrap_or(WINDOW_MAX).min(WINDOW_MAX),
            packet_bytes_max: connect.properties.maximum_packet_size.unwrap_or(u32::MAX),
            topic_alias_maximum: connect.properties.topic_alias_maximum.unwrap_or(0),
            queue_messages_max: self.queue.messages_max,
            queue_bytes_max: self.queue.bytes_max,
            topic_prefix: manners.topic_prefix,
        };
        let mut outbound = Outbound::new(settings, claimed.queue_floor);
        let mut first = BytesMut::new();
        encode(&connack, connect.version, &mut first)
            .map_err(|_| (ReasonCode::UnspecifiedError, "CONNACK could not be written"))?;
        // [v5 MQTT-3.1.2-24]
        if connect.properties.maximum_packet_size.is_some_and(|most| first.len() > most as usize) {
            self.abandon(&key, claimed.epoch);
            return Err((ReasonCode::PacketTooLarge, "CONNACK is larger than the client takes"));
        }
        outbound.control(&first);
        let id = dispatch.receiver_id();
        let guest = Guest {
            peer: terms.peer,
            encrypted: terms.encrypted,
            connected_at: dispatch.now().log,
            client_id: (*connect.client_id != *key.identity()).then(|| Box::from(&*connect.client_id)),
            user_name: connect.username.as_deref().map(Box::from),
            keep_alive_s: connect.keep_alive_s,
            clean_start,
        };
        let receiver = Arc::new(Receiver::new(id, key, claimed.epoch, persistent, outbound, guest));
        let arguments = Arguments { dispatch: dispatch.clone(), receiver: receiver.clone(), session };
        let (actor, _) = Actor::spawn(None, SessionActor, Box::new(arguments))
            .await
            .map_err(|_| (ReasonCode::ServerUnavailable, "the session's actor did not start"))?;
        receiver.attach(Box::new(actor.clone()));
        fail::fail_point!("claim::before_register");
        dispatch.register(&receiver);
        dispatch.metrics().connects.inc();
        dispatch.metrics().sessions_connected.inc();
        let log = dispatch.now().log;
        let said = |downlink: Downlink| {
            let qos = downlink.qos;
            delivery(downlink, qos, log, None)
        };
        dispatch.downlink(&receiver, greeting.into_iter().map(said).collect(), None);
        if let Err(refused) = self.resubscribe(&receiver, &actor, &claimed.subscriptions).await {
            // No connection will say so; an actor that has ended knows.
            let _ = actor.cast(Message::Disconnected);
            return Err(refused);
        }
        dispatch.look_for_mail(&receiver);
        let _ = actor.cast(Message::Opened);
        // A newer claim, or a cut, may have been applied before this receiver could be found.
        dispatch.catch_up(&receiver);
        if dispatch.client_banned(&connect.client_id, connect.username.as_deref(), terms.peer.ip()) {
            receiver.tell(|port| port.close(ReasonCode::AdministrativeAction));
        }
        tracing::debug!(
            client = %receiver.key(), epoch = claimed.epoch.0, version = ?connect.version, peer = %terms.peer,
            present = claimed.session_present, "connected"
        );
        Ok(Opened { receiver, actor, packet_bytes_max, oversize })
    }

    /// Counts a client that is let in. Returns whether it comes too often; then it is banned.
    fn flaps(&self, client_id: &ByteString) -> bool {
        let settings = self.dispatch.settings();
        if !settings.flag(table::FLAPPING_ENABLED).unwrap_or(false) {
            return false;
        }
        let connects_max = self.dispatch.number_set(table::FLAPPING_CONNECTS_MAX);
        let window_s = self.dispatch.number_set(table::FLAPPING_WINDOW_S);
        let rule = Rule { connects_max, window_ms: window_s * 1_000 };
        let flaps = self.flapping.connects(client_id, rule, self.dispatch.now().mono_ms);
        if flaps {
            self.dispatch.ban_flapping(client_id, connects_max + 1, window_s);
        }
        flaps
    }

    async fn commit_claim(&self, claim: Claim) -> Result<(Claimed, u64), (ReasonCode, &'static str)> {
        let key = claim.key.clone();
        let (committed, index) = self.dispatch.replica().commit_at(vec![Command::Claim(Box::new(claim))]).await;
        let outcomes = committed.map_err(|error| {
            tracing::error!(client = %key, %error, "claim not committed");
            NOT_CLAIMED
        })?;
        match outcomes.into_iter().next() {
            Some(Outcome::Claimed(claimed)) => Ok((*claimed, index)),
            Some(Outcome::Registry(Err(Rejection::Conflict))) => Err(CHANGED),
            Some(Outcome::Refused(reason)) => {
                Err((reason, "a bound of the replicated state, or a device that is frozen or gone"))
            }
            Some(Outcome::Stale) => {
                self.dispatch.metrics().stale_refused.inc();
                Err(NOT_CLAIMED)
            }
            _ => Err(NOT_CLAIMED),
        }
    }

    /// Until every node has applied the claim: from then on no older owner acknowledges anything.
    async fn await_stable(&self, key: &SessionKey, epoch: Epoch, index: u64) -> Result<(), (ReasonCode, &'static str)> {
        fail::fail_point!("claim::no_wait", |_| Ok(()));
        if !self.dispatch.links().connected() {
            return Ok(());
        }
        if self.dispatch.replica().stable(index).await {
            return Ok(());
        }
        // It is not known any more, for this run has ended.
        Err(self.abandon(key, epoch))
    }

    /// A session that was claimed must not stay with nobody. The will of a CONNECT that is not accepted is none.
    fn abandon(&self, key: &SessionKey, epoch: Epoch) -> (ReasonCode, &'static str) {
        let (key, sent_below) = (key.clone(), None);
        let release = Release { key, epoch, discard_will: true, expiry_s: None, sent_below };
        self.dispatch.replica().propose(vec![Command::Release(release)], Box::new(|_| {}));
        NOT_CLAIMED
    }

    /// Ends those of a resumed session's subscriptions that its client would not be granted now.
    async fn revoke(
        &self,
        key: &SessionKey,
        claimed: &mut Claimed,
        voice: &dyn Voice,
    ) -> Result<(), (ReasonCode, &'static str)> {
        let filters = revoke(claimed, voice);
        if filters.is_empty() {
            return Ok(());
        }
        tracing::info!(client = %key, filters = filters.len(), "subscriptions of the session are not allowed any more");
        let command = Command::Unsubscribe { key: key.clone(), epoch: claimed.epoch, filters };
        match self.dispatch.replica().commit(vec![command]).await.as_deref() {
            Ok([Outcome::Unsubscribed(_)]) => Ok(()),
            _ => Err(self.abandon(key, claimed.epoch)),
        }
    }

    /// A resumed session's filters become live routes again, for what does not come from its queue. If it is to end with
    /// its socket nothing comes from there: then the other nodes must know of them before the client hears of its session.
    async fn resubscribe(
        &self,
        receiver: &Arc<Receiver>,
        actor: &ActorRef<Message>,
        subscriptions: &[Subscription],
    ) -> Result<(), (ReasonCode, &'static str)> {
        if subscriptions.is_empty() {
            return Ok(());
        }
        let announcing = self.dispatch.announce(receiver, subscriptions);
        let mut index = announcing.index;
        if !announcing.add.is_empty() {
            let ((node, generation), add) = (self.dispatch.replica().run(), announcing.add.clone());
            let routes = LiveRoutes { node, generation, add, remove: Vec::new() };
            let (committed, at) = self.dispatch.replica().commit_at(vec![Command::LiveRoutes(Box::new(routes))]).await;
            match committed.as_deref() {
                Ok([Outcome::Done]) => self.dispatch.announced(&announcing, at),
                _ => return Err(NOT_CLAIMED),
            }
            index = index.max(at);
        }
        if index == 0 {
            return Ok(());
        }
        let stable = self.dispatch.replica().stable(index).await;
        // Nobody could hear the client meanwhile; an actor that has ended need not know.
        let _ = actor.cast(Message::Thawed);
        if stable { Ok(()) } else { Err(NOT_CLAIMED) }
    }

    /// Lets no more clients in: the node is going.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }
}
