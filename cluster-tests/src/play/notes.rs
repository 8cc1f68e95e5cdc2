//! What happens while a cluster is played: told as it happens if asked for, and what should not have happened.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Problems that are kept.
const PROBLEMS_MAX: usize = 12;

/// See the module.
#[derive(Debug)]
pub(super) struct Notes {
    begun: Instant,
    /// Told on standard error as it happens.
    aloud: bool,
    problems: Mutex<Vec<String>>,
    longest_leave: Mutex<Duration>,
}

impl Notes {
    pub(super) fn new(aloud: bool) -> Notes {
        Notes { begun: Instant::now(), aloud, problems: Mutex::default(), longest_leave: Mutex::default() }
    }

    pub(super) fn say(&self, text: String) {
        if self.aloud {
            eprintln!("{:8.1} s  {text}", self.begun.elapsed().as_secs_f64());
        }
    }

    pub(super) fn wrong(&self, text: String) {
        self.say(format!("WRONG: {text}"));
        let mut problems = lock(&self.problems);
        if problems.len() < PROBLEMS_MAX {
            problems.push(text);
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        lock(&self.problems).clone()
    }

    /// A pod has left by itself, so long after it was told to.
    pub(super) fn left(&self, took: Duration) {
        let mut longest = lock(&self.longest_leave);
        *longest = took.max(*longest);
    }

    pub(super) fn longest_leave(&self) -> Duration {
        *lock(&self.longest_leave)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
