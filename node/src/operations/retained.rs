//! Retained messages as people see them: a page of those that match, one of them, its end, and all of them as a stream.

use std::sync::Arc;

use bytes::Bytes;
use fulmar_broker::Publication;
use fulmar_broker::retained::{Cursor, Retained};
use fulmar_broker::state::command::{Command, Outcome};
use fulmar_mqtt::{QoS, TopicFilter, TopicName};
use tokio::sync::mpsc;

use super::{COMMIT, Error, Operations};

/// Messages that are looked at for one page.
const LOOKED_MAX: usize = 20_000;

/// Of a stream, at a time; and pieces that wait for whoever reads them.
const STEP: usize = 100;
const PARTS_MAX: usize = 4;

/// A page, in the order of the topics' levels.
#[derive(Debug, Clone, Default)]
pub struct RetainedPage {
    pub messages: Vec<Arc<Publication>>,
    /// Of all that are retained.
    pub count: usize,
    /// What the next page is asked for with; `None`: there is none.
    pub marker: Option<String>,
}

impl Operations {
    /// A page of retained messages whose topics match.
    #[must_use]
    pub fn list_retained(&self, filter: &TopicFilter, marker: Option<&str>, limit: usize) -> RetainedPage {
        let (retained, now) = self.retained();
        let mut page = RetainedPage { count: retained.len(), ..RetainedPage::default() };
        let (mut cursor, mut looked) = (marker.map(Cursor::at), 0);
        loop {
            let steps = limit - page.messages.len();
            let step = retained.walk(filter, cursor.as_ref(), steps);
            looked += steps;
            page.messages.extend(step.found.into_iter().filter(|message| !message.expired(now)));
            cursor = step.next;
            if cursor.is_none() || page.messages.len() >= limit || looked >= LOOKED_MAX {
                page.marker = cursor.map(|cursor| cursor.as_str().to_owned());
                return page;
            }
        }
    }

    fn retained(&self) -> (Retained, fulmar_broker::LogTime) {
        // A clone costs nothing, and nobody waits for it.
        (self.dispatch.replica().read().retained().clone(), self.dispatch.now().log)
    }

    /// The retained message of a topic.
    ///
    /// # Errors
    /// There is none.
    pub fn show_retained(&self, topic: &TopicName) -> Result<Arc<Publication>, Error> {
        let (retained, now) = self.retained();
        let found = retained.get(topic).filter(|message| !message.expired(now)).cloned();
        found.ok_or_else(|| Error::NotRetained { topic: topic.as_str().to_owned() })
    }

    /// Forgets the retained message of a topic. Those who have received it are not told.
    ///
    /// # Errors
    /// There is none, or the log takes nothing.
    pub async fn delete_retained(&self, topic: &TopicName) -> Result<(), Error> {
        self.show_retained(topic)?;
        let replica = self.dispatch.replica();
        // An empty payload clears it.
        let empty = Publication::of_server(topic.detached(), Bytes::new(), QoS::AtMostOnce, self.dispatch.now().log);
        let clear = Command::SetRetained(Arc::new(Publication { retain: true, ..empty }));
        let finish = async {
            let (outcomes, index) = replica.commit_at(vec![clear]).await;
            let done = outcomes.ok()?.first() == Some(&Outcome::Done);
            (done && (!self.dispatch.links().connected() || replica.stable(index).await)).then_some(())
        };
        tokio::time::timeout(COMMIT, finish).await.ok().flatten().ok_or(Error::Unavailable)
    }

    /// Every retained message that matches, as they are now, some at a time.
    #[must_use]
    pub fn export_retained(&self, filter: TopicFilter) -> mpsc::Receiver<Vec<Arc<Publication>>> {
        let (parts, messages) = mpsc::channel(PARTS_MAX);
        let (retained, now) = self.retained();
        tokio::spawn(async move {
            let mut cursor = None;
            loop {
                let mut step = retained.walk(&filter, cursor.as_ref(), STEP);
                step.found.retain(|message| !message.expired(now));
                if !step.found.is_empty() && parts.send(step.found).await.is_err() {
                    return; // nobody listens any more
                }
                cursor = step.next;
                if cursor.is_none() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        messages
    }
}
