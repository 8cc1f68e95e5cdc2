//! What rules and actions have done on this node since they came to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 512;

/// A counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The last error, and when it was.
#[derive(Debug, Default)]
pub struct LastError(Mutex<Option<(Arc<str>, u64)>>);

impl LastError {
    /// `at_ms`: milliseconds since 1970.
    pub fn set(&self, error: &str, at_ms: u64) {
        let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
        *self.0.lock() = Some((error.into(), at_ms));
    }

    pub fn get(&self) -> Option<(Arc<str>, u64)> {
        self.0.lock().clone()
    }
}

/// Of a rule: events of its subject and scope are matched, not matched, failed, or were dropped before.
#[derive(Debug, Default)]
pub struct RuleFigures {
    pub matched: Count,
    pub unmatched: Count,
    pub failed: Count,
    pub dropped: Count,
    pub error: LastError,
}

/// Of an action: what its rule made is passed, refused by the sink for good, or was dropped.
#[derive(Debug, Default)]
pub struct ActionFigures {
    pub passed: Count,
    pub refused: Count,
    /// Times that the sink was asked again.
    pub retried: Count,
    pub dropped: Count,
    pub error: LastError,
}
