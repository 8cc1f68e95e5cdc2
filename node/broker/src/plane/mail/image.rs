//! Messages as a snapshot keeps them.

use super::{Filed, MESSAGES_MAX, Mail};

impl Mail {
    pub(in crate::plane) fn pieces(&self) -> impl Iterator<Item = Filed> {
        let books = (self.seq_last > 0).then_some(Filed::Books { books: self.books, seq_last: self.seq_last });
        let messages = self.boxes.iter().flat_map(|(device, mailbox)| {
            mailbox.messages.iter().map(|cached| Filed::Message {
                device: (&**device).into(),
                via: (&*mailbox.via).into(),
                cached: cached.clone(),
            })
        });
        books.into_iter().chain(messages)
    }

    pub(in crate::plane) fn restore(&mut self, piece: Filed) -> Result<(), (&'static str, String)> {
        match piece {
            Filed::Books { .. } if self.seq_last > 0 => Err(("books", "are there twice".to_owned())),
            Filed::Books { seq_last: 0, .. } => Err(("seq_last", "is 0".to_owned())),
            Filed::Books { books, seq_last } => {
                (self.books, self.seq_last) = (books, seq_last);
                Ok(())
            }
            Filed::Message { device, via, cached } => {
                let messages = self.of(&device);
                if messages.last().is_some_and(|last| last.seq >= cached.seq) {
                    return Err(("seq", format!("{} is not ascending", cached.seq)));
                }
                if cached.seq > self.seq_last {
                    return Err(("seq", format!("{} is above the last one given", cached.seq)));
                }
                if messages.len() >= MESSAGES_MAX {
                    return Err(("device", format!("{device} has more than {MESSAGES_MAX} messages")));
                }
                if messages.iter().any(|other| other.message.id == cached.message.id) {
                    return Err(("id", format!("{} is there twice", cached.message.id)));
                }
                if self.boxes.get(&*device).is_some_and(|mailbox| *mailbox.via != *via) {
                    return Err(("via", format!("{via} is not that of the device's other messages")));
                }
                self.add(&device, &via, cached);
                Ok(())
            }
        }
    }
}
