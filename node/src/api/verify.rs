//! Passwords of the API: verified a few at a time, and each attempt counted, also where the client does not wait for the
//! outcome.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::{PasswordHash, PasswordVerifier};
use fulmar_platform::Secret;
use tokio::sync::Semaphore;

use super::attempts::{Attempts, Rules};
use super::now_ms;

/// Passwords verified at one time: each takes tens of milliseconds and 19 MiB by argon2's defaults.
const VERIFICATIONS_MAX: usize = 2;

/// Time to wait for one's turn to have a password verified.
const TURN: Duration = Duration::from_secs(5);

/// Why a password was not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unverified {
    /// After too many that were wrong.
    Locked,
    /// Too many others wait.
    Busy,
}

/// Who tries to sign in.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) user: String,
    pub(super) peer: IpAddr,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Verifier {
    attempts: Arc<Attempts>,
    turns: Arc<Semaphore>,
}

impl Verifier {
    pub(super) fn new(rules: Rules) -> Verifier {
        Verifier { attempts: Arc::new(Attempts::new(rules)), turns: Arc::new(Semaphore::new(VERIFICATIONS_MAX)) }
    }

    /// Whether the password is the hash's.
    ///
    /// # Errors
    /// It was not looked at.
    pub(super) async fn verify(&self, attempt: Attempt, hash: Secret, password: String) -> Result<bool, Unverified> {
        let is_right = move || {
            PasswordHash::new(hash.expose())
                .is_ok_and(|hash| argon2::Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        };
        self.attempt(attempt, is_right).await
    }

    async fn attempt(
        &self,
        attempt: Attempt,
        is_right: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool, Unverified> {
        let Attempt { user, peer } = &attempt;
        if self.attempts.locked(user, *peer, now_ms()) {
            return Err(Unverified::Locked);
        }
        let turn = tokio::time::timeout(TURN, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Unverified::Busy) };
        // While this one waited, others may have failed.
        if !self.attempts.begin(user, *peer, now_ms()) {
            return Err(Unverified::Locked);
        }
        let attempts = self.attempts.clone();
        // The work goes on if the client goes away, and so does its turn: or nothing would bound what is under way.
        let verified = tokio::task::spawn_blocking(move || {
            let (right, Attempt { user, peer }) = (is_right(), attempt);
            if right {
                attempts.succeeded(&user, peer, now_ms());
            } else if attempts.failed(&user, peer, now_ms()) {
                tracing::warn!(%peer, user, "locked after failed sign-ins");
            }
            drop(turn);
            right
        });
        Ok(verified.await.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const RULES: Rules = Rules { failures_max: 3, window_ms: 600_000, lock_ms: 600_000 };

    fn attempt(user: &str) -> Attempt {
        Attempt { user: user.to_owned(), peer: IpAddr::from([192, 0, 2, 1]) }
    }

    #[tokio::test]
    async fn a_client_that_goes_away_keeps_its_turn_until_the_work_is_done() {
        let verifier = Verifier::new(RULES);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let work = move || {
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
            false
        };
        tokio::select! {
            _ = verifier.attempt(attempt("a"), work) => panic!("it waits for us"),
            begun = has_begun => begun.unwrap(),
        }
        assert_eq!(verifier.turns.available_permits(), VERIFICATIONS_MAX - 1, "the client is gone, its work is not");
        go_on.send(()).unwrap();
        let all = verifier.turns.acquire_many(VERIFICATIONS_MAX as u32);
        drop(tokio::time::timeout(Duration::from_secs(30), all).await.unwrap().unwrap());
        for _ in 0..2 {
            assert_eq!(verifier.attempt(attempt("a"), || false).await, Ok(false));
        }
        assert_eq!(verifier.attempt(attempt("a"), || true).await, Err(Unverified::Locked), "the abandoned one counts");
    }

    #[tokio::test]
    async fn many_at_a_time_get_no_more_tries_than_one_by_one() {
        let verifier = Arc::new(Verifier::new(RULES));
        let (tries, tried) = mpsc::channel();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (verifier, tries) = (verifier.clone(), tries.clone());
            all.spawn(async move { verifier.attempt(attempt("a"), move || tries.send(()).is_err()).await });
        }
        let outcomes = all.join_all().await;
        assert_eq!(tried.try_iter().count(), RULES.failures_max as usize);
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err(Unverified::Locked)).count(), 47);
    }

    #[tokio::test]
    async fn passwords_are_told_apart() {
        let verifier = Verifier::new(RULES);
        let hash = Secret::new(&crate::operations::hash_password("right horse").unwrap());
        assert_eq!(verifier.verify(attempt("a"), hash.clone(), "wrong horse".to_owned()).await, Ok(false));
        assert_eq!(verifier.verify(attempt("a"), hash, "right horse".to_owned()).await, Ok(true));
    }
}
