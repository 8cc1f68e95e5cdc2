//! Changes of messages.

use std::sync::Arc;

use fulmar_platform::message::Message;

use super::super::{self as plane, Ground};
use super::{
    Answer, Cached, Change, EVICTED_MAX, Event, Failure, KEPT_S, MAIL_BYTES_MAX, MESSAGE_COST, MESSAGES_MAX, Mail,
    Mailbox, Note, Phase, Status,
};
use crate::key::{Epoch, LogTime};

impl Mail {
    pub(in crate::plane) fn apply(
        &mut self,
        change: &Change,
        ground: &dyn Ground,
        events: &mut Vec<plane::Event>,
    ) -> Answer {
        match change {
            Change::Create { device, message, ttl_min } => self.create(device, message, *ttl_min, ground, events),
            Change::Note { epoch, notes } => {
                Answer::Noted(notes.iter().map(|note| self.note(*epoch, note, ground, events)).collect())
            }
            Change::Delete { device, id } => self.delete(device, id),
            Change::Expire { device, seq } => self.expire(device, *seq, ground.now(), events),
        }
    }

    fn create(
        &mut self,
        device: &str,
        message: &Arc<Message>,
        ttl_min: u16,
        ground: &dyn Ground,
        events: &mut Vec<plane::Event>,
    ) -> Answer {
        let Some(via) = ground.registry().connected_through(device) else { return Answer::NoDevice };
        if self.of(device).iter().any(|cached| cached.message.id == message.id) {
            return Answer::Duplicate;
        }
        if !self.make_room(message.bytes() as u64 + MESSAGE_COST) {
            self.books.refused += 1;
            return Answer::NoRoom;
        }
        let now = ground.now();
        let phase = match ground.owner_of(device) {
            None if ttl_min == 0 => Phase::Failed { at: now, why: Failure::Offline },
            _ => Phase::Waiting { parked: false },
        };
        if self.of(device).len() >= MESSAGES_MAX
            && let Some(oldest) = self.of(device).first().map(|oldest| oldest.seq)
            && let Some(oldest) = self.remove(device, oldest)
        {
            match oldest.phase.open() {
                true => self.took_away(&oldest, |books| &mut books.replaced),
                false => self.books.forgotten += 1,
            }
        }
        self.seq_last += 1;
        let cached = Cached { seq: self.seq_last, created: now, ttl_min, phase, message: Arc::clone(message) };
        self.books.created += 1;
        self.count(None, phase.status());
        self.add(device, via, cached.clone());
        let device = self.boxes.get_key_value(device).map_or_else(|| device.into(), |(device, _)| Arc::clone(device));
        let answer = Answer::Created { seq: cached.seq, at: now, phase };
        events.push(plane::Event::Mail(Event { device, cached, at: now, told: true }));
        answer
    }

    /// Has finished messages give way, the oldest first, until so many bytes fit.
    fn make_room(&mut self, bytes: u64) -> bool {
        for _ in 0..EVICTED_MAX {
            if self.bytes + bytes <= MAIL_BYTES_MAX {
                break;
            }
            let Some(((_, seq), device)) = self.finished.first().map(|(key, device)| (*key, Arc::clone(device))) else {
                break;
            };
            if self.remove(&device, seq).is_some() {
                self.books.forgotten += 1;
            }
        }
        self.bytes + bytes <= MAIL_BYTES_MAX
    }

    fn note(&mut self, epoch: Epoch, note: &Note, ground: &dyn Ground, events: &mut Vec<plane::Event>) -> bool {
        let Note { device, seq, became } = note;
        // What an older connection says counts no more: the newer one looks by itself.
        if ground.owner_of(device).is_none_or(|owner| owner.epoch != epoch) {
            return false;
        }
        let Some(after) = self.find(device, *seq).and_then(|cached| cached.after(*became, ground.now())) else {
            return false;
        };
        self.turn(device, *seq, after, ground.now(), events);
        true
    }

    fn delete(&mut self, device: &str, id: &str) -> Answer {
        let Some(seq) = self.of(device).iter().find(|cached| *cached.message.id == *id).map(|cached| cached.seq) else {
            return Answer::NoMessage;
        };
        if let Some(deleted) = self.remove(device, seq) {
            self.took_away(&deleted, |books| &mut books.deleted);
        }
        Answer::Done
    }

    fn expire(&mut self, device: &str, seq: u64, now: LogTime, events: &mut Vec<plane::Event>) -> Answer {
        let Some(cached) = self.find(device, seq) else { return Answer::NoMessage };
        match cached.due_at() {
            Some(at) if at <= now => {
                let phase = cached.expired(now);
                self.turn(device, seq, phase, now, events);
            }
            None if cached.phase.finished().is_some_and(|at| at.plus_s(KEPT_S) <= now) => {
                self.remove(device, seq);
                self.books.forgotten += 1;
            }
            _ => {}
        }
        Answer::Done
    }

    /// A device is no more.
    pub(in crate::plane) fn device_deleted(&mut self, device: &str) {
        let all: Vec<u64> = self.of(device).iter().map(|cached| cached.seq).collect();
        for seq in all {
            if let Some(deleted) = self.remove(device, seq) {
                self.took_away(&deleted, |books| &mut books.deleted);
            }
        }
    }

    /// A device is reached through the connection of another one from now on.
    pub(in crate::plane) fn device_moved(&mut self, device: &str, via: &str) {
        let Some(mailbox) = self.boxes.get(device).filter(|mailbox| *mailbox.via != *via) else { return };
        for cached in Arc::clone(&mailbox.messages).iter() {
            self.unindex(device, cached);
        }
        let via = self.stored(device, via);
        if let Some(mailbox) = self.boxes.get_mut(device) {
            mailbox.via = via;
            for cached in Arc::clone(&mailbox.messages).iter() {
                self.index(device, cached);
            }
        }
    }

    /// Moves a message on. That is told where it changes the status; a message that is parked only wakes who waits for it.
    fn turn(&mut self, device: &str, seq: u64, phase: Phase, now: LogTime, events: &mut Vec<plane::Event>) {
        let Some((key, mailbox)) = self.boxes.get_key_value(device) else { return };
        let (key, mut messages) = (Arc::clone(key), Arc::clone(&mailbox.messages));
        let Ok(at) = messages.binary_search_by_key(&seq, |cached| cached.seq) else { return };
        let Some(before) = messages.get(at).filter(|before| before.phase != phase).cloned() else { return };
        self.unindex(device, &before);
        let cached = Cached { phase, ..before.clone() };
        if let Some(mailbox) = self.boxes.get_mut(device) {
            drop(messages); // so that nothing is copied where nobody else has it
            messages = Arc::default();
            std::mem::swap(&mut messages, &mut mailbox.messages);
            if let Some(slot) = Arc::make_mut(&mut messages).get_mut(at) {
                slot.phase = phase;
            }
            mailbox.messages = messages;
        }
        self.index(device, &cached);
        let told = before.phase.status() != phase.status();
        if told {
            self.count(Some(before.phase.status()), phase.status());
        }
        events.push(plane::Event::Mail(Event { device: key, cached, at: now, told }));
    }

    fn count(&mut self, before: Option<Status>, now: Status) {
        if before == Some(Status::Delivered) {
            self.books.delivered -= 1;
        }
        match now {
            Status::Pending => {}
            Status::Delivered => self.books.delivered += 1,
            Status::Timeout => self.books.timed_out += 1,
            Status::Failed => self.books.failed += 1,
        }
    }

    /// Counts what was taken away before its end.
    fn took_away(&mut self, cached: &Cached, under: impl FnOnce(&mut super::Books) -> &mut u64) {
        if cached.phase.status() == Status::Pending {
            *under(&mut self.books) += 1;
        }
    }

    // -- the maps, which always agree

    /// The one handle of an id that is stored already, if it is.
    fn stored(&self, device: &str, id: &str) -> Arc<str> {
        let own = self.boxes.get_key_value(device).map(|(key, _)| key).filter(|key| ***key == *id);
        own.or_else(|| self.boxes.get_key_value(id).map(|(key, _)| key)).map_or_else(|| id.into(), Arc::clone)
    }

    pub(super) fn add(&mut self, device: &str, via: &str, cached: Cached) {
        self.device_moved(device, via);
        self.bytes += cached.cost();
        let indexed = cached.clone();
        match self.boxes.get_mut(device) {
            Some(mailbox) => Arc::make_mut(&mut mailbox.messages).push(cached),
            None => {
                let key: Arc<str> = self.stored(device, device);
                let via = if *via == *device { Arc::clone(&key) } else { self.stored(device, via) };
                self.boxes.insert_mut(key, Mailbox { via, messages: Arc::new(vec![cached]) });
            }
        }
        self.index(device, &indexed);
    }

    /// Takes a message out; what that means for the books is the caller's.
    fn remove(&mut self, device: &str, seq: u64) -> Option<Cached> {
        let cached = self.find(device, seq)?.clone();
        self.unindex(device, &cached);
        self.bytes -= cached.cost();
        let mailbox = self.boxes.get_mut(device)?;
        Arc::make_mut(&mut mailbox.messages).retain(|other| other.seq != seq);
        if mailbox.messages.is_empty() {
            self.boxes.remove_mut(device);
        }
        Some(cached)
    }

    fn index(&mut self, device: &str, cached: &Cached) {
        let Some((key, mailbox)) = self.boxes.get_key_value(device) else { return };
        let (key, via) = (Arc::clone(key), Arc::clone(&mailbox.via));
        if let Some(at) = cached.due_at() {
            self.due.insert_mut((at, cached.seq), Arc::clone(&key));
            match self.awaited.get_mut(&via) {
                Some(awaited) => awaited.insert_mut(cached.seq, key),
                None => {
                    let awaited = rpds::RedBlackTreeMapSync::new_sync().insert(cached.seq, key);
                    self.awaited.insert_mut(via, awaited);
                }
            }
        } else if let Some(at) = cached.phase.finished() {
            self.finished.insert_mut((at, cached.seq), key);
        }
    }

    fn unindex(&mut self, device: &str, cached: &Cached) {
        if let Some(at) = cached.due_at() {
            self.due.remove_mut(&(at, cached.seq));
            let Some(via) = self.boxes.get(device).map(|mailbox| Arc::clone(&mailbox.via)) else { return };
            if let Some(awaited) = self.awaited.get_mut(&via) {
                awaited.remove_mut(&cached.seq);
                if awaited.is_empty() {
                    self.awaited.remove_mut(&via);
                }
            }
        } else if let Some(at) = cached.phase.finished() {
            self.finished.remove_mut(&(at, cached.seq));
        }
    }
}
