//! What keeps this node from taking part, in words: for the probes, and for whoever reads them.

use std::sync::Arc;

use parking_lot::Mutex;

/// See the module. A clone is another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Waits(Arc<Mutex<Option<String>>>);

impl Waits {
    /// Says what it is now, or that it is nothing; whether that is news.
    pub(super) fn note(&self, why: Option<String>) -> bool {
        let mut noted = self.0.lock();
        let news = *noted != why;
        *noted = why;
        news
    }

    /// What was said last.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.0.lock().clone()
    }
}
