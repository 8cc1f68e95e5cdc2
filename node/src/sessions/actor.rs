//! The actor: turns messages into inputs of the session machine, and carries out its outputs. Thin, and it never waits.

mod changes;
mod counts;
mod downlinks;
mod faults;
mod leaving;
mod mail;
mod message;
mod news;
mod reports;
mod rights;
mod shadow;
mod steps;
mod uplinks;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use fulmar_broker::outbound::DropReason;
use fulmar_broker::retained::Retained;
use fulmar_broker::session::{Input, Output, Session, Token};
use fulmar_broker::state::command::{Command, Release};
use fulmar_broker::{Delivery, Now, Publication};
use fulmar_mqtt::{Decoded, Packet, QoS, ReasonCode, Version, encode};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use self::counts::{is_ack, is_answer, type_of};
use self::faults::{acknowledges_early, forgets_ids};
use self::message::Answer;
pub use self::message::{Batch, Message};
use self::steps::{Step, Subscribed};
use crate::cluster::{Committed, PROPOSAL_BYTES_MAX};
use crate::dispatch::{Accepted, Admission, Dispatch, Durable, Offer, Receiver, RouteCache, Routes, Since};
use crate::telemetry::metrics::PacketCounts;

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
    /// What the machine left and is not carried out yet, in order. Carrying out an output may leave more: it goes to
    /// the end.
    queue: VecDeque<Output>,
    /// Steps that wait for the log, or behind one that does, in order.
    awaiting: VecDeque<Step>,
    /// Publications among them.
    awaited_offers: usize,
    /// Those of QoS 0 among them.
    awaited_qos_0: usize,
    /// A publication was refused that MQTT 3.x has no word for: the connection ends.
    unsayable: bool,
    /// What ends the connection in the log, behind everything that is awaited.
    last: Option<Release>,
    /// Why the queue is not carried out further.
    hold: Hold,
    /// A subscribe that is committed and waits until every node has it.
    settling: Option<Box<Subscribed>>,
    /// Batches whose permits are kept while nothing more should be read.
    kept_permits: u32,
    released: bool,
    /// Newer connections of the client, until what this one has said is dealt with.
    hearing_out: Vec<oneshot::Sender<()>>,
    uplinks: uplinks::Books,
    mail: mail::Desk,
    reported: reports::Reported,
    shadow: shadow::Reports,
    changes: changes::Changes,
}

/// What keeps the session from carrying out more outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Nothing,
    /// A subscribe or unsubscribe awaits its commit, and that every node has it: what follows must see it.
    Commit,
    /// The first publication of the queue finds no room since then, in milliseconds of the monotonic clock.
    Room(u64),
}

/// Publications that may wait for the log before nothing more is read; those of QoS 0 are not bounded by the ring.
const AWAITED_OFFERS_MAX: usize = 1_024;

/// Milliseconds between two looks for room.
const ROOM_EVERY_MS: u64 = 100;

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
        Ok(State {
            dispatch,
            receiver,
            session,
            cache: RouteCache::default(),
            queue: VecDeque::new(),
            awaiting: VecDeque::new(),
            awaited_offers: 0,
            awaited_qos_0: 0,
            unsayable: false,
            last: None,
            hold: Hold::Nothing,
            settling: None,
            kept_permits: 0,
            released: false,
            hearing_out: Vec::new(),
            uplinks: uplinks::Books::default(),
            mail: mail::Desk::default(),
            reported: reports::Reported::default(),
            shadow: shadow::Reports::default(),
            changes: changes::Changes::default(),
        })
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
    control: BytesMut,
    /// Publications in a row that resolve to the same routes.
    run: Vec<Offer>,
    run_bytes: usize,
    routes: Option<Arc<Routes>>,
    /// What the platform answers.
    downlinks: Vec<Delivery>,
    /// As of the commit of the subscribe that is being answered.
    retained: Option<Retained>,
    /// The next publication that finds no room is refused.
    gives_up: bool,
    /// Why a slow receiver is cut, for the books.
    booked: DropReason,
}

impl State {
    /// Takes one message; `true` once the session's connection is over.
    fn take(&mut self, message: Message) -> bool {
        let mut work = Work {
            now: self.dispatch.now(),
            versions: self.dispatch.route_versions(),
            control: BytesMut::new(),
            run: Vec::new(),
            run_bytes: 0,
            routes: None,
            downlinks: Vec::new(),
            retained: None,
            gives_up: false,
            booked: DropReason::SessionEnded,
        };
        match message {
            Message::Batch(batch) => {
                self.kept_permits += 1;
                self.take_batch(batch, &mut work);
            }
            // A client that is not read cannot be heard: its keep alive does not run.
            Message::Tick if self.hold != Hold::Nothing => self.look_for_room(&mut work),
            Message::Tick => self.input(Input::Tick, &mut work),
            Message::Disconnected => self.input(Input::Disconnected, &mut work),
            Message::Accepted(token, _) if self.waits_on(token) => {}
            Message::Accepted(token, since) => {
                self.note_acks(since, work.now, 1);
                self.input(Input::Accepted { token, reason: ReasonCode::Success }, &mut work);
            }
            Message::Committed(answer) => self.committed(*answer, &mut work),
            Message::Stable => self.stable(&mut work),
            Message::Thawed => self.thawed(work.now),
            Message::TakenOver => self.input(Input::TakenOver, &mut work),
            Message::Fenced => {
                self.abandon();
                self.input(Input::TakenOver, &mut work);
            }
            Message::Close(reason) => {
                if reason == ReasonCode::QuotaExceeded {
                    work.booked = DropReason::SlowReceiver;
                }
                self.input(Input::Close(reason), &mut work);
            }
            Message::Downlink(outgoing) => self.asked(*outgoing, work.now),
            Message::Mail => self.look_for_mail(work.now),
            Message::Noted(committed) => self.noted(*committed, work.now),
            Message::News(news) => self.news(news, &mut work),
            Message::Replies(downlinks, about) => self.replies(downlinks, &about, &mut work),
            Message::Opened => self.opened(&mut work),
            Message::HearOut(dealt_with) => self.hear_out(dealt_with),
            Message::HeardOut => self.heard_out(),
            Message::Subscriptions(asked) => (asked.0)(self.session.subscriptions().collect()),
        }
        if self.session.ended() && (self.hold != Hold::Commit || self.settling.take().is_some()) {
            self.hold = Hold::Nothing; // who has gone is not told that it is subscribed
        }
        self.tend_mail(work.now);
        self.finish(&mut work);
        self.write_control(&mut work);
        self.send_downlinks(&mut work);
        // While a full ring pauses the client, or the log is behind, nothing more is read.
        if !self.session.paused() && self.queue.is_empty() && self.awaited_offers < AWAITED_OFFERS_MAX {
            for _ in 0..std::mem::take(&mut self.kept_permits) {
                self.receiver.batch_done();
            }
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new(); // an idle session owns no memory for what it does
        }
        if self.awaiting.is_empty() {
            self.awaiting = VecDeque::new();
            self.propose_last();
        }
        let reports = self.keep_reports(work.now);
        let room = matches!(self.hold, Hold::Room(_)).then(|| work.now.mono_ms + ROOM_EVERY_MS);
        let deadline = if self.hold == Hold::Nothing { self.session.deadline() } else { room };
        self.receiver.set_deadline_ms(deadline.into_iter().chain(self.mail.deadline_ms()).chain(reports).min());
        // What it published before it left is still seen through.
        self.session.ended() && self.released && self.awaiting.is_empty()
    }

    fn take_batch(&mut self, batch: Batch, work: &mut Work) {
        self.session.heard(work.now);
        let mut received = [0u64; 3];
        let mut types = PacketCounts::default();
        let mut packets = batch.packets.into_iter().peekable();
        while let Some(decoded) = packets.next() {
            match decoded {
                Decoded::Packet(packet) if is_ack(&packet) => {
                    let mut outbound = self.receiver.outbound();
                    types[type_of(&packet)] += 1;
                    outbound.acknowledge(&packet, work.now.mono_ms, &mut work.control);
                    while let Some(Decoded::Packet(packet)) =
                        packets.next_if(|next| matches!(next, Decoded::Packet(packet) if is_ack(packet)))
                    {
                        types[type_of(&packet)] += 1;
                        outbound.acknowledge(&packet, work.now.mono_ms, &mut work.control);
                    }
                    let more = outbound.ready() || outbound.wants().is_some();
                    let tags = outbound.take_acknowledged();
                    let notes = outbound.take_notes();
                    drop(outbound);
                    self.dispatch.tell_notes(&self.receiver, notes, work.now.mono_ms);
                    self.acknowledged(&tags);
                    if more {
                        self.receiver.signal();
                    }
                }
                Decoded::Packet(packet) => {
                    types[type_of(&packet)] += 1;
                    if let Packet::Publish(publish) = &packet {
                        received[publish.qos as usize] += 1;
                        // What was taken at once frees its slot before the next one needs it.
                        if publish.qos != QoS::AtMostOnce && self.session.crowded() {
                            self.finish(work);
                        }
                    }
                    if matches!(packet, Packet::Subscribe(_)) {
                        self.renew_voice();
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
        self.note_received(&types, received);
        if let Some(error) = batch.error {
            self.input(Input::Malformed(error), work);
        }
    }

    /// What may be subscribed to may have come to be since the client was let in.
    fn renew_voice(&mut self) {
        let voice = self.session.voice().renewed(self.dispatch.replica().read().registry());
        if let Some(voice) = voice {
            self.session.speak(voice);
        }
    }

    /// Gives the machine an input; what it leaves is queued.
    fn input(&mut self, input: Input, work: &mut Work) {
        let mut outputs = Vec::new();
        self.session.handle(work.now, input, &mut outputs);
        self.queue.extend(outputs);
    }

    /// Carries out what is queued, in order, as far as nothing holds it. Publications stay in the run.
    fn carry_out_all(&mut self, work: &mut Work) {
        while self.hold == Hold::Nothing
            && let Some(output) = self.queue.pop_front()
        {
            self.carry_out(output, work);
        }
        if self.hold != Hold::Nothing {
            // What answers earlier packets, and pings, is in order anyhow.
            let (answers, rest) = std::mem::take(&mut self.queue).into_iter().partition(is_answer);
            self.queue = rest;
            for answer in answers {
                self.carry_out(answer, work);
            }
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
            Output::Publish { token, publication, .. } if self.has_lost(&publication.topic) => {
                self.refuse_lost(token, publication.topic, work);
            }
            Output::Publish { token, publication, packet_id } => self.offer(token, publication, packet_id, work),
            Output::Uplink { token, topic, payload } => self.uplink(token, &topic, &payload, work),
            Output::Denied(denial) => self.denied(&denial),
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
                self.dispatch.replay(&self.receiver, subscription, work.retained.as_ref());
            }
            Output::ReleaseReceived { packet_id } => {
                self.route_run(work);
                let command = Command::ReleaseReceived {
                    key: self.receiver.key().clone(),
                    epoch: self.receiver.epoch(),
                    packet_id,
                };
                self.propose(vec![command], Step::Released { packet_id }, false);
            }
            Output::End { discard_will, expiry_s, reason, taken_over } => {
                self.route_run(work);
                tracing::debug!(client = %self.receiver.key(), epoch = self.receiver.epoch().0, %reason, "connection ends");
                self.dispatch.metrics().disconnected(reason);
                self.note_end(reason);
                let moves = matches!(reason, ReasonCode::ServerShuttingDown | ReasonCode::UseAnotherServer);
                if moves {
                    // What is queued is written first; the DISCONNECT that was put together here is the last of it.
                    self.receiver.outbound().close_after_queue(&work.control);
                    work.control.clear();
                    self.receiver.signal();
                } else {
                    self.write_control(work);
                }
                let booked = (!moves).then_some(work.booked);
                self.release(discard_will, expiry_s, taken_over, booked);
            }
        }
    }

    fn send(&self, packet: &Packet, work: &mut Work) {
        if let Err(error) = encode(packet, self.session.version(), &mut work.control) {
            tracing::error!(client = %self.receiver.key(), %error, "packet not sent");
        }
    }

    /// Adds a publication to the run, after routing the run before it if that goes elsewhere. One that finds no room
    /// goes back, and holds what follows, until there is some or it has waited for too long.
    fn offer(&mut self, token: Option<Token>, mut publication: Publication, packet_id: u16, work: &mut Work) {
        let routes = self.dispatch.routes_cached(&mut self.cache, work.versions, &publication.topic);
        if self.dispatch.insight().armed() {
            self.trace(&mut publication, packet_id, &routes);
        }
        let at_most_once = publication.qos == QoS::AtMostOnce;
        if self.unsayable && !at_most_once {
            return; // behind one that was refused without a word nothing is taken: the client sends both again, in order
        }
        let remembered = self.session.persistent() && publication.qos == QoS::ExactlyOnce && !forgets_ids();
        let (refused, may_wait) = match self.dispatch.admit(&routes, &publication, remembered) {
            Admission::Open => (None, false),
            Admission::Congested => (Some(ReasonCode::QuotaExceeded), true),
            // MQTT 3.x has no word for it: the acknowledgement is withheld, and the client not read.
            Admission::Refused(reason) => {
                (Some(reason), reason == ReasonCode::QuotaExceeded && self.session.version() != Version::V5)
            }
        };
        if may_wait && publication.qos != QoS::AtMostOnce && !work.gives_up && !self.session.ended() {
            self.queue.push_front(Output::Publish { token, publication, packet_id });
            self.hold = Hold::Room(work.now.mono_ms);
            return;
        }
        work.gives_up = false;
        self.unsayable |= refused.is_some() && !at_most_once && self.session.version() != Version::V5;
        if work.routes.as_ref().is_some_and(|current| !Arc::ptr_eq(current, &routes)) {
            self.route_run(work);
        }
        work.routes = Some(routes);
        let received = remembered.then(|| (self.receiver.key().clone(), self.receiver.epoch(), packet_id));
        work.run_bytes += publication.bytes();
        let since = Since { at_ms: work.now.mono_ms, durable: false };
        work.run.push(Offer { publication: Arc::new(publication), token, received, refused, since });
        if work.run_bytes >= PROPOSAL_BYTES_MAX {
            self.route_run(work);
        }
    }

    /// Has what the run needs committed, or delivers it at once if that is nothing and nothing before it waits.
    fn route_run(&mut self, work: &mut Work) {
        let Some(routes) = work.routes.take() else { return };
        work.run_bytes = 0;
        let mut run = std::mem::take(&mut work.run);
        let Durable { commands, of } = self.dispatch.durable(&self.receiver, &routes, &run);
        run.iter_mut().for_each(|offer| offer.since.durable = !commands.is_empty());
        let qos_0 = run.iter().filter(|offer| offer.publication.qos == QoS::AtMostOnce).count();
        if !commands.is_empty() && acknowledges_early() {
            self.dispatch.replica().propose(commands, Box::new(|_| {}));
            self.deliver(&run, &routes, &[], (Ok(Vec::new()), 0), work);
        } else if !commands.is_empty() {
            self.awaited_offers += run.len();
            self.awaited_qos_0 += qos_0;
            self.propose(commands, Step::Run { run, routes, proposed: Some(of) }, false);
        } else if self.awaiting.is_empty() || (qos_0 == run.len() && self.awaited_qos_0 == 0) {
            self.deliver(&run, &routes, &[], (Ok(Vec::new()), 0), work);
        } else {
            // Within a QoS the order of a topic is that in which it was published [v5 MQTT-4.6.0-6].
            self.awaited_offers += run.len();
            self.awaited_qos_0 += qos_0;
            self.awaiting.push_back(Step::Run { run, routes, proposed: None });
        }
    }

    /// Gives a run to its live receivers, and lets the machine answer what was taken at once.
    fn deliver(
        &mut self,
        run: &[Offer],
        routes: &Arc<Routes>,
        of: &[usize],
        committed: (Committed, u64),
        work: &mut Work,
    ) {
        let mut answers = Vec::with_capacity(run.len());
        self.dispatch.offer(&self.receiver, routes, run, of, committed, &mut answers);
        let mut at_once = 0;
        for (offer, answer) in run.iter().zip(answers) {
            if let (Some(token), Accepted::Now(reason)) = (offer.token, answer) {
                at_once += 1;
                self.input(Input::Accepted { token, reason }, work);
            }
        }
        // All of a run were read, and asked the log, at the same time.
        self.note_acks(run.first().map(|first| first.since), work.now, at_once);
    }

    /// Hands control bytes to the way out, and proposes what the client has acknowledged.
    fn write_control(&mut self, work: &mut Work) {
        self.dispatch.settle(&self.receiver);
        if !work.control.is_empty() {
            self.receiver.outbound().control(&std::mem::take(&mut work.control));
            self.receiver.signal();
        }
    }
}
