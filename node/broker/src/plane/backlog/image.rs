//! Backlogs as pieces of a snapshot, and back.

use std::sync::Arc;

use super::{Backlog, Backlogs, Filed};
use crate::state::image::PART_BYTES;

impl Backlogs {
    pub(in crate::plane) fn pieces(&self) -> impl Iterator<Item = Filed> {
        let head = (self.last > 0).then_some(Filed::Head { last: self.last, counts: self.counts });
        head.into_iter().chain(self.backlogs.iter().flat_map(|(name, backlog)| {
            let (owner, counts) = (backlog.owner, backlog.counts);
            let first = Filed::Backlog { name: (**name).into(), owner, counts };
            let mut entries = backlog.entries.iter().peekable();
            let pages = std::iter::from_fn(move || {
                let (mut page, mut bytes) = (Vec::new(), 0);
                while let Some((seq, entry)) = entries.next_if(|_| bytes < PART_BYTES as u64) {
                    bytes += entry.cost();
                    page.push((*seq, entry.clone()));
                }
                (!page.is_empty()).then_some(Filed::Entries(page))
            });
            std::iter::once(first).chain(pages)
        }))
    }

    pub(in crate::plane) fn restore(&mut self, piece: Filed) -> Result<(), (&'static str, String)> {
        match piece {
            Filed::Head { last, counts } => {
                if self.last > 0 || last == 0 {
                    return Err(("last", format!("is {last}, after {}", self.last)));
                }
                (self.last, self.counts) = (last, counts);
            }
            Filed::Backlog { name, owner, counts } => {
                if self.backlogs.last().is_some_and(|(before, _)| **before >= *name) {
                    return Err(("name", format!("{name} is not in order")));
                }
                if owner.is_some_and(|owner| owner.epoch.0 > self.last) {
                    return Err(("owner", "has an epoch that was never given".to_owned()));
                }
                let name = Arc::from(name);
                self.by_bytes.insert_mut((0, Arc::clone(&name)), ());
                self.backlogs.insert_mut(name, Backlog { owner, counts, ..Backlog::default() });
            }
            Filed::Entries(entries) => {
                let Some((name, backlog)) = self.backlogs.last() else {
                    return Err(("entries", "are of no backlog".to_owned()));
                };
                let (name, mut before) = (Arc::clone(name), backlog.entries.last().map_or(0, |(seq, _)| *seq));
                for (seq, _) in &entries {
                    if *seq <= before || *seq > self.last {
                        return Err(("seq", format!("is {seq}, after {before} and at most {}", self.last)));
                    }
                    before = *seq;
                }
                self.change(&name, |backlog| {
                    entries.iter().for_each(|(seq, entry)| backlog.push(*seq, entry.detached()));
                });
            }
        }
        Ok(())
    }

    /// Whether what was restored is whole.
    pub(in crate::plane) fn check(&self) -> Result<(), (&'static str, String)> {
        let mut waiting = 0;
        for (name, backlog) in &self.backlogs {
            let entries = backlog.entries.size() as u64;
            waiting += entries;
            if backlog.counts.waiting() != entries {
                let said = backlog.counts.waiting();
                return Err(("entries", format!("of {name} are {entries}, not {said}")));
            }
        }
        let said = self.counts.waiting();
        if said == waiting { Ok(()) } else { Err(("entries", format!("are {waiting}, not {said}"))) }
    }
}
