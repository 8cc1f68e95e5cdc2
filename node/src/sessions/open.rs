//! From CONNECT to CONNACK: identity, claim, machine, actor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use fulmar_broker::outbound::{Outbound, Settings};
use fulmar_broker::session::{Limits, Opening, Session, Start, expiry_s, will};
use fulmar_broker::state::command::{Claim, Claimed, Command, Outcome, Release, Subscription};
use fulmar_broker::{Epoch, SessionKey, session};
use fulmar_mqtt::packet::{Connect, OversizePolicy};
use fulmar_mqtt::{ReasonCode, encode};
use fulmar_platform::Admission;
use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;

use super::actor::{Arguments, Message, SessionActor};
use super::authenticate::{Access, Authenticator};
use super::pace::Pace;
use crate::cluster::Error;
use crate::dispatch::{Dispatch, Receiver};

/// Unacknowledged deliveries to one client, whatever it would take.
const WINDOW_MAX: u16 = 8_192;

const NOT_CLAIMED: (ReasonCode, &str) = (ReasonCode::ServerUnavailable, "the session could not be claimed");

/// What a door settles for those who come in by it.
#[derive(Debug, Clone)]
pub struct Terms {
    pub limits: Arc<Limits>,
    pub oversize: OversizePolicy,
    pub peer: std::net::SocketAddr,
    /// By when it must be known who the client is.
    pub by: tokio::time::Instant,
    /// The client's certificate in DER, if it presented one.
    pub certificate: Option<Bytes>,
}

/// A connection with a session: CONNACK waits in its way out.
#[derive(Debug)]
pub struct Opened {
    pub receiver: Arc<Receiver>,
    pub actor: ActorRef<Message>,
    pub packet_bytes_max: u32,
    pub oversize: OversizePolicy,
}

/// Why a CONNECT was refused; the door answers with the reason and closes.
#[derive(Debug)]
pub struct Refused {
    pub reason: ReasonCode,
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
        if self.leaving.load(Ordering::Acquire) {
            return Err(Refused { reason: ReasonCode::ServerUnavailable, detail: "the node is leaving", client_id });
        }
        let refuse = |reason, detail| Refused { reason, detail, client_id: client_id.clone() };
        // Only this waits for others; a claim that has begun is seen through.
        let admission = tokio::time::timeout_at(terms.by, self.authenticator.admit(&connect, &terms))
            .await
            .map_err(|_| refuse(ReasonCode::ServerBusy, "too many passwords to verify"))?
            .map_err(|refusal| refuse(refusal.reason, refusal.detail))?;
        let opened = self.claim(&connect, assigned_client_id, admission, &terms).await;
        opened.map_err(|(reason, detail)| refuse(reason, detail))
    }

    async fn claim(
        &self,
        connect: &Connect,
        assigned_client_id: Option<ByteString>,
        admission: Admission,
        terms: &Terms,
    ) -> Result<Opened, (ReasonCode, &'static str)> {
        let dispatch = &self.dispatch;
        let key = SessionKey::new(&admission.tenant, admission.dialect.as_str(), &admission.identity);
        let access: Arc<dyn session::Access> = Arc::new(Access::new(admission.dialect, admission.permissions));
        let (packet_bytes_max, oversize) =
            admission.oversize.unwrap_or((terms.limits.packet_bytes_max, terms.oversize));
        let will = will(connect, &*access, &terms.limits, dispatch.now().log)
            .map_err(|reason| (reason, "the will is not acceptable"))?;
        let expiry_s = expiry_s(connect, &terms.limits);
        let opening = Opening { assigned_client_id, expiry_s };
        if !self.pace.admits(&key, dispatch.now().mono_ms) {
            dispatch.metrics().takeovers_refused.inc();
            tracing::warn!(%key, peer = %terms.peer, "taken over too often: do two clients have one identity?");
            return Err((ReasonCode::ConnectionRateExceeded, "the session is taken over too often"));
        }
        let (claimed, index) = self.commit_claim(&key, connect, expiry_s, will).await?;
        if claimed.previous.is_some() {
            self.pace.note(&key, dispatch.now().mono_ms);
        }
        self.await_stable(&key, claimed.epoch, index).await?;
        let start = Start {
            connect,
            key: key.clone(),
            access,
            limits: terms.limits.clone(),
            claimed: &claimed,
            opening: &opening,
        };
        let (session, connack) = Session::start(start, dispatch.now());
        let persistent = session.persistent();
        let settings = Settings {
            version: connect.version,
            receive_maximum: connect.properties.receive_maximum.unwrap_or(WINDOW_MAX).min(WINDOW_MAX),
            packet_bytes_max: connect.properties.maximum_packet_size.unwrap_or(u32::MAX),
            topic_alias_maximum: connect.properties.topic_alias_maximum.unwrap_or(0),
            queue_messages_max: self.queue.messages_max,
            queue_bytes_max: self.queue.bytes_max,
        };
        let mut outbound = Outbound::new(settings, claimed.queue_floor);
        let mut first = BytesMut::new();
        encode(&connack, connect.version, &mut first)
            .map_err(|_| (ReasonCode::UnspecifiedError, "CONNACK could not be written"))?;
        outbound.control(&first);
        let id = dispatch.receiver_id();
        let receiver = Arc::new(Receiver::new(id, key, claimed.epoch, persistent, outbound));
        let arguments = Arguments { dispatch: dispatch.clone(), receiver: receiver.clone(), session };
        let (actor, _) = Actor::spawn(None, SessionActor, Box::new(arguments))
            .await
            .map_err(|_| (ReasonCode::ServerUnavailable, "the session's actor did not start"))?;
        receiver.attach(Box::new(actor.clone()));
        dispatch.register(&receiver);
        dispatch.metrics().connects.inc();
        dispatch.metrics().sessions_connected.inc();
        self.resubscribe(&receiver, &claimed.subscriptions);
        if dispatch.owner_epoch(receiver.key()) != Some(claimed.epoch) {
            // A newer claim was applied before this receiver could be found.
            dispatch.take_over(&receiver);
        }
        tracing::debug!(
            key = %receiver.key(), epoch = claimed.epoch.0, version = ?connect.version, peer = %terms.peer,
            present = claimed.session_present, "connected"
        );
        Ok(Opened { receiver, actor, packet_bytes_max, oversize })
    }

    async fn commit_claim(
        &self,
        key: &SessionKey,
        connect: &Connect,
        expiry_s: u32,
        will: Option<fulmar_broker::state::command::Will>,
    ) -> Result<(Claimed, u64), (ReasonCode, &'static str)> {
        let replica = self.dispatch.replica();
        let (node, generation) = replica.run();
        let claim = Claim { key: key.clone(), node, generation, clean_start: connect.clean_start, expiry_s, will };
        let (done, committed) = oneshot::channel();
        let dispatch = self.dispatch.clone();
        replica.propose(
            vec![Command::Claim(Box::new(claim))],
            Box::new(move |committed| {
                // Within the reply: the index of the claim's own entry.
                let _ = done.send((committed, dispatch.replica().applied()));
            }),
        );
        let (committed, index) = committed.await.unwrap_or((Err(Error::Stopped), 0));
        let outcomes = committed.map_err(|error| {
            tracing::error!(%key, %error, "claim not committed");
            NOT_CLAIMED
        })?;
        match outcomes.into_iter().next() {
            Some(Outcome::Claimed(claimed)) => Ok((*claimed, index)),
            Some(Outcome::Refused(reason)) => Err((reason, "a bound of the replicated state was reached")),
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
        let (stable, everywhere) = oneshot::channel();
        let then = Box::new(move || {
            // The connection may be gone: whoever opens it finds that out.
            let _ = stable.send(());
        });
        self.dispatch.replica().when_stable(index, then);
        if everywhere.await.is_ok() {
            return Ok(());
        }
        // It is not known any more, for this run has ended: the session must not stay with nobody.
        let (key, sent_below) = (key.clone(), None);
        let release = Release { key, epoch, discard_will: false, expiry_s: None, sent_below };
        self.dispatch.replica().propose(vec![Command::Release(release)], Box::new(|_| {}));
        Err(NOT_CLAIMED)
    }

    /// A resumed session's filters become live routes again, for what does not come from its queue.
    fn resubscribe(&self, receiver: &Arc<Receiver>, subscriptions: &[Subscription]) {
        if !subscriptions.is_empty() {
            self.dispatch.subscribe(receiver, subscriptions);
        }
    }

    /// Tells every connected client that the node is going, and lets no more in.
    pub fn close_all(&self, reason: ReasonCode) {
        self.leaving.store(true, Ordering::Release);
        for receiver in self.dispatch.receivers() {
            receiver.tell(|port| port.close(reason));
        }
    }
}
