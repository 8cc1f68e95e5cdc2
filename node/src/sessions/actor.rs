//! The actor: turns messages into inputs of the session machine, and carries out its outputs. Thin, and it never waits.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use fulmar_broker::outbound::DropReason;
use fulmar_broker::session::{Input, Output, Session, Token};
use fulmar_broker::state::command::{Command, Outcome, Release, Subscription};
use fulmar_broker::{Now, Publication};
use fulmar_mqtt::{DecodeError, Decoded, Packet, QoS, ReasonCode, TopicFilter, encode};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::dispatch::{Accepted, Dispatch, Offer, Port, Receiver, RouteCache, Routes};

/// All complete packets of one read, and what followed them if that was no MQTT.
#[derive(Debug)]
pub struct Batch {
    pub packets: Vec<Decoded>,
    pub error: Option<DecodeError>,
}

/// What a session is told.
#[derive(Debug)]
pub enum Message {
    /// By the connection; at most [`crate::dispatch::receiver::BATCHES_MAX`] are under way.
    Batch(Batch),
    /// By the connection's timer.
    Tick,
    /// By the connection: the transport has ended.
    Disconnected,
    /// By dispatch: a publication that waited has been taken.
    Accepted(Token),
    /// By dispatch: a newer claim was applied.
    TakenOver,
    /// By dispatch (too slow) or by the node (shutting down).
    Close(ReasonCode),
}

impl Port for ActorRef<Message> {
    fn accepted(&self, token: Token) {
        // A session that has ended awaits nothing.
        let _ = self.cast(Message::Accepted(token));
    }

    fn taken_over(&self) {
        let _ = self.cast(Message::TakenOver);
    }

    fn close(&self, reason: ReasonCode) {
        let _ = self.cast(Message::Close(reason));
    }
}

/// The actor's kind; what it is about is its state.
#[derive(Debug)]
pub struct SessionActor;

/// What the actor is spawned with.
pub struct Arguments {
    pub dispatch: Arc<Dispatch>,
    pub receiver: Arc<Receiver>,
    pub session: Session,
}

/// The actor's state. Dropping it, also after a panic, ends the connection and the routes.
pub struct State {
    dispatch: Arc<Dispatch>,
    receiver: Arc<Receiver>,
    session: Session,
    cache: RouteCache,
    /// Batches whose permits are kept while the session is paused.
    kept_permits: u32,
    released: bool,
}

impl Actor for SessionActor {
    type Msg = Message;
    type State = State;
    type Arguments = Box<Arguments>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Message>,
        arguments: Box<Arguments>,
    ) -> Result<State, ActorProcessingErr> {
        let Arguments { dispatch, receiver, session } = *arguments;
        receiver.set_deadline_ms(session.deadline());
        Ok(State { dispatch, receiver, session, cache: RouteCache::default(), kept_permits: 0, released: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if state.take(message) {
            myself.stop(None);
        }
        Ok(())
    }
}

/// The handling of one message: what the machine left, on its way out.
struct Work {
    now: Now,
    versions: (u64, u64),
    /// What the machine left, in order. Carrying out an output may leave more: it goes to the end.
    queue: VecDeque<Output>,
    control: BytesMut,
    /// Publications in a row that resolve to the same routes.
    run: Vec<Offer>,
    routes: Option<Arc<Routes>>,
    /// Why a slow receiver is cut, for the books.
    booked: DropReason,
}

impl State {
    /// Takes one message; `true` once the session's connection is over.
    fn take(&mut self, message: Message) -> bool {
        let mut work = Work {
            now: self.dispatch.now(),
            versions: self.dispatch.route_versions(),
            queue: VecDeque::new(),
            control: BytesMut::new(),
            run: Vec::new(),
            routes: None,
            booked: DropReason::SessionEnded,
        };
        match message {
            Message::Batch(batch) => {
                self.kept_permits += 1;
                self.take_batch(batch, &mut work);
            }
            Message::Tick => self.input(Input::Tick, &mut work),
            Message::Disconnected => self.input(Input::Disconnected, &mut work),
            Message::Accepted(token) => self.input(Input::Accepted { token, reason: ReasonCode::Success }, &mut work),
            Message::TakenOver => self.input(Input::TakenOver, &mut work),
            Message::Close(reason) => {
                if reason == ReasonCode::QuotaExceeded {
                    work.booked = DropReason::SlowReceiver;
                }
                self.input(Input::Close(reason), &mut work);
            }
        }
        self.finish(&mut work);
        self.write_control(&mut work);
        // While a full ring pauses the client, nothing more is read.
        if !self.session.paused() {
            for _ in 0..std::mem::take(&mut self.kept_permits) {
                self.receiver.batch_done();
            }
        }
        self.receiver.set_deadline_ms(self.session.deadline());
        self.session.ended()
    }

    fn take_batch(&mut self, batch: Batch, work: &mut Work) {
        self.session.heard(work.now);
        let mut received = [0u64; 3];
        let mut packets = batch.packets.into_iter().peekable();
        while let Some(decoded) = packets.next() {
            match decoded {
                Decoded::Packet(packet) if is_ack(&packet) => {
                    let mut outbound = self.receiver.outbound();
                    outbound.acknowledge(&packet, work.now.mono_ms, &mut work.control);
                    while let Some(Decoded::Packet(packet)) =
                        packets.next_if(|next| matches!(next, Decoded::Packet(packet) if is_ack(packet)))
                    {
                        outbound.acknowledge(&packet, work.now.mono_ms, &mut work.control);
                    }
                    let more = outbound.ready() || outbound.wants().is_some();
                    drop(outbound);
                    if more {
                        self.receiver.signal();
                    }
                }
                Decoded::Packet(packet) => {
                    if let Packet::Publish(publish) = &packet {
                        received[publish.qos as usize] += 1;
                        // What was taken at once frees its slot before the next one needs it.
                        if publish.qos != QoS::AtMostOnce && self.session.crowded() {
                            self.finish(work);
                        }
                    }
                    self.input(Input::Packet(packet), work);
                }
                Decoded::Skipped(skipped) => {
                    self.finish(work);
                    self.input(Input::Skipped(skipped), work);
                }
            }
            self.carry_out_all(work);
        }
        for (qos, count) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().zip(received) {
            if count > 0 {
                self.dispatch.metrics().received(qos, count);
            }
        }
        if let Some(error) = batch.error {
            self.input(Input::Malformed(error), work);
        }
    }

    /// Gives the machine an input; what it leaves is queued.
    fn input(&mut self, input: Input, work: &mut Work) {
        let mut outputs = Vec::new();
        self.session.handle(work.now, input, &mut outputs);
        work.queue.extend(outputs);
    }

    /// Carries out what is queued, in order. Publications stay in the run.
    fn carry_out_all(&mut self, work: &mut Work) {
        while let Some(output) = work.queue.pop_front() {
            self.carry_out(output, work);
        }
    }

    /// Carries out everything, the run and what its answers leave included.
    fn finish(&mut self, work: &mut Work) {
        loop {
            self.carry_out_all(work);
            if work.routes.is_none() {
                return;
            }
            self.route_run(work);
        }
    }

    fn carry_out(&mut self, output: Output, work: &mut Work) {
        match output {
            Output::Send(packet) => self.send(&packet, work),
            Output::Publish { token, publication, packet_id } => self.offer(token, publication, packet_id, work),
            Output::Subscribe { token, subscriptions, existed } => {
                self.route_run(work);
                self.subscribe(token, subscriptions, existed, work);
            }
            Output::Unsubscribe { token, filters, existed } => {
                self.route_run(work);
                self.unsubscribe(token, filters, existed, work);
            }
            Output::Replay(subscription) => {
                // The SUBACK is on its way before anything that its subscription brings.
                self.write_control(work);
                self.dispatch.replay(&self.receiver, subscription);
            }
            Output::ReleaseReceived { packet_id } => {
                self.route_run(work);
                let command = Command::ReleaseReceived {
                    key: self.receiver.key().clone(),
                    epoch: self.receiver.epoch(),
                    packet_id,
                };
                if self.commit(vec![command], work).is_some() {
                    self.input(Input::Released { packet_id }, work);
                }
            }
            Output::End { discard_will, expiry_s, reason, taken_over } => {
                self.route_run(work);
                tracing::debug!(key = %self.receiver.key(), epoch = self.receiver.epoch().0, %reason, "connection ends");
                self.dispatch.metrics().disconnected(reason);
                if reason == ReasonCode::ServerShuttingDown {
                    // What is queued is written first; the DISCONNECT that was put together here is the last of it.
                    self.receiver.outbound().close_after_queue(&work.control);
                    work.control.clear();
                    self.receiver.signal();
                } else {
                    self.write_control(work);
                }
                let booked = (reason != ReasonCode::ServerShuttingDown).then_some(work.booked);
                self.release(discard_will, expiry_s, taken_over, booked);
            }
        }
    }

    fn send(&self, packet: &Packet, work: &mut Work) {
        if let Err(error) = encode(packet, self.session.version(), &mut work.control) {
            tracing::error!(key = %self.receiver.key(), %error, "packet not sent");
        }
    }

    /// Adds a publication to the run, after routing the run before it if that goes elsewhere.
    fn offer(&mut self, token: Option<Token>, publication: Publication, packet_id: u16, work: &mut Work) {
        let routes = self.dispatch.routes_cached(&mut self.cache, work.versions, &publication.topic);
        if work.routes.as_ref().is_some_and(|current| !Arc::ptr_eq(current, &routes)) {
            self.route_run(work);
        }
        work.routes = Some(routes);
        let received = (self.session.persistent() && publication.qos == QoS::ExactlyOnce)
            .then(|| (self.receiver.key().clone(), self.receiver.epoch(), packet_id));
        work.run.push(Offer { publication: Arc::new(publication), token, received });
    }

    /// Routes the run, and lets the machine answer what was taken at once.
    fn route_run(&mut self, work: &mut Work) {
        let Some(routes) = work.routes.take() else { return };
        let run = std::mem::take(&mut work.run);
        let mut answers = Vec::with_capacity(run.len());
        self.dispatch.offer(&self.receiver, &routes, &run, &mut answers);
        for (offer, answer) in run.iter().zip(answers) {
            if let (Some(token), Accepted::Now(reason)) = (offer.token, answer) {
                self.input(Input::Accepted { token, reason }, work);
            }
        }
    }

    /// Commits commands of this session; a failure ends the connection, so that nothing is acknowledged.
    fn commit(&mut self, commands: Vec<Command>, work: &mut Work) -> Option<Vec<Outcome>> {
        let failure = match self.dispatch.propose(commands) {
            Ok(outcomes) => match outcomes.iter().find_map(refusal) {
                None => return Some(outcomes),
                Some(reason) => reason,
            },
            Err(error) => {
                tracing::error!(key = %self.receiver.key(), %error, "command not committed");
                ReasonCode::UnspecifiedError
            }
        };
        self.input(Input::Close(failure), work);
        None
    }

    fn subscribe(&mut self, token: Token, subscriptions: Vec<Subscription>, known: Vec<bool>, work: &mut Work) {
        let persistent = self.session.persistent();
        // A clean session's filters end with its socket; only shared ones must be known to all.
        let logged: Vec<Subscription> =
            subscriptions.iter().filter(|s| persistent || s.filter.shared().is_some()).cloned().collect();
        let mut existed = known;
        if !logged.is_empty() {
            let (key, epoch) = (self.receiver.key().clone(), self.receiver.epoch());
            let Some(outcomes) = self.commit(vec![Command::Subscribe { key, epoch, filters: logged }], work) else {
                return;
            };
            if let (true, Some(Outcome::Subscribed(applied))) = (persistent, outcomes.into_iter().next()) {
                existed = applied;
            }
        }
        // Until the retained messages are on their way, nothing live overtakes them.
        self.receiver.outbound().set_replaying(true);
        self.dispatch.subscribe(&self.receiver, &subscriptions);
        work.versions = self.dispatch.route_versions();
        let mut outputs = Vec::new();
        self.session.handle(work.now, Input::Subscribed { token, existed }, &mut outputs);
        // SUBACK and replays, before what else is queued: that is how long live messages are held.
        for output in outputs {
            self.carry_out(output, work);
        }
        self.write_control(work);
        self.dispatch.release_hold(&self.receiver);
    }

    fn unsubscribe(&mut self, token: Token, filters: Vec<TopicFilter>, known: Vec<bool>, work: &mut Work) {
        let persistent = self.session.persistent();
        self.dispatch.unsubscribe(self.receiver.id(), &filters);
        let logged: Vec<TopicFilter> =
            filters.into_iter().filter(|filter| persistent || filter.shared().is_some()).collect();
        let mut existed = known;
        if !logged.is_empty() {
            let (key, epoch) = (self.receiver.key().clone(), self.receiver.epoch());
            let Some(outcomes) = self.commit(vec![Command::Unsubscribe { key, epoch, filters: logged }], work) else {
                return;
            };
            if let (true, Some(Outcome::Unsubscribed(applied))) = (persistent, outcomes.into_iter().next()) {
                existed = applied;
            }
        }
        work.versions = self.dispatch.route_versions();
        self.input(Input::Unsubscribed { token, existed }, work);
    }

    /// Hands control bytes to the way out, after committing what the client has acknowledged.
    fn write_control(&mut self, work: &mut Work) {
        if self.session.ended() {
            // Behind a DISCONNECT no PUBREL may come.
            self.dispatch.settle(&self.receiver, &mut BytesMut::new());
        } else {
            self.dispatch.settle(&self.receiver, &mut work.control);
        }
        if work.control.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut work.control);
        self.receiver.outbound().control(&bytes);
        self.receiver.signal();
    }

    /// Ends the connection's part of the session, once. `booked`: why what is queued is dropped, if it is at once.
    fn release(&mut self, discard_will: bool, expiry_s: Option<u32>, taken_over: bool, booked: Option<DropReason>) {
        if std::mem::replace(&mut self.released, true) {
            return;
        }
        let (key, epoch) = (self.receiver.key().clone(), self.receiver.epoch());
        let sent_below = Some(self.receiver.outbound().sent_below());
        self.dispatch.unsubscribe(self.receiver.id(), self.session.filters());
        if let Some(booked) = booked {
            self.dispatch.close_receiver(&self.receiver, None, booked);
        }
        self.dispatch.unregister(&self.receiver);
        self.dispatch.metrics().sessions_connected.dec();
        if !taken_over {
            let release = Release { key, epoch, discard_will, expiry_s, sent_below };
            if let Err(error) = self.dispatch.propose(vec![Command::Release(release)]) {
                tracing::error!(key = %self.receiver.key(), %error, "end of connection not committed");
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.release(false, None, false, Some(DropReason::SessionEnded));
    }
}

fn is_ack(packet: &Packet) -> bool {
    matches!(packet, Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_))
}

fn refusal(outcome: &Outcome) -> Option<ReasonCode> {
    match outcome {
        Outcome::Refused(reason) => Some(*reason),
        Outcome::Stale => Some(ReasonCode::SessionTakenOver),
        _ => None,
    }
}
