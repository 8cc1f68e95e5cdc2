//! What a session is told, and by whom.

use fulmar_broker::retained::Retained;
use fulmar_broker::session::Token;
use fulmar_broker::state::command::{News, Subscription};
use fulmar_mqtt::{DecodeError, Decoded, ReasonCode};
use fulmar_platform::Downlink;
use ractor::ActorRef;
use tokio::sync::oneshot;

use crate::cluster::Committed;
use crate::dispatch::{Outgoing, Port, Since};

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
    Accepted(Token, Option<Since>),
    /// By the log: what was proposed first, of what is awaited, is committed.
    Committed(Box<Answer>),
    /// By the replica: every node has applied what the SUBACK waits for.
    Stable,
    /// By the connection: the node was frozen until now.
    Thawed,
    /// By dispatch: a newer claim was applied.
    TakenOver,
    /// By dispatch: the run of the node has ended, and no answer will come from it.
    Fenced,
    /// By dispatch (too slow) or by the node (shutting down).
    Close(ReasonCode),
    /// By whoever has something to say to the client: see [`crate::dispatch::Dispatch::send`].
    Downlink(Box<Outgoing>),
    /// By dispatch, or by whoever has opened the session: messages may wait for the client.
    Mail,
    /// By the log: what the session has noted first, of messages that it was not told of yet, is committed; or not.
    Noted(Box<Committed>),
    /// By the log: something has become of its device, or of one behind it.
    News(News),
    /// By the log: what an uplink has asked for is committed; what is answered, and devices that it was about.
    Replies(Vec<Downlink>, Vec<Box<str>>),
    /// By whoever opened the session: it may send.
    Opened,
    /// By dispatch: a newer connection of the client waits until what this one has said is dealt with.
    HearOut(oneshot::Sender<()>),
    /// By the connection: it has read all that was there.
    HeardOut,
    /// By people: what the client has subscribed to.
    Subscriptions(Asked),
}

/// Who wants to know what a client has subscribed to.
pub struct Asked(pub(super) Box<dyn FnOnce(Vec<Subscription>) + Send>);

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

/// What a proposal came to, and the retained messages as of its commit where they were asked for.
pub struct Answer {
    pub(super) committed: Committed,
    /// Of the entry.
    pub(super) index: u64,
    pub(super) retained: Option<Retained>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("committed", &self.committed).finish_non_exhaustive()
    }
}

impl Port for ActorRef<Message> {
    fn accepted(&self, token: Token, since: Option<Since>) {
        // A session that has ended awaits nothing.
        let _ = self.cast(Message::Accepted(token, since));
    }

    fn committed(&self, committed: Committed, index: u64, retained: Option<Retained>) {
        let _ = self.cast(Message::Committed(Box::new(Answer { committed, index, retained })));
    }

    fn stable(&self) {
        let _ = self.cast(Message::Stable);
    }

    fn taken_over(&self) {
        let _ = self.cast(Message::TakenOver);
    }

    fn fenced(&self) {
        let _ = self.cast(Message::Fenced);
    }

    fn close(&self, reason: ReasonCode) {
        let _ = self.cast(Message::Close(reason));
    }

    fn downlink(&self, outgoing: Box<Outgoing>) {
        let _ = self.cast(Message::Downlink(outgoing));
    }

    fn mail(&self) {
        let _ = self.cast(Message::Mail);
    }

    fn noted(&self, committed: Committed) {
        let _ = self.cast(Message::Noted(Box::new(committed)));
    }

    fn news(&self, news: News) {
        let _ = self.cast(Message::News(news));
    }

    fn hear_out(&self, dealt_with: oneshot::Sender<()>) {
        // Whoever waits hears of a session that has ended by the same drop.
        let _ = self.cast(Message::HearOut(dealt_with));
    }

    fn subscriptions(&self, then: Box<dyn FnOnce(Vec<Subscription>) + Send>) {
        let _ = self.cast(Message::Subscriptions(Asked(then)));
    }

    fn replies(&self, downlinks: Vec<Downlink>, about: Vec<Box<str>>) {
        let _ = self.cast(Message::Replies(downlinks, about));
    }
}
