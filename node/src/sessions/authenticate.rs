//! Who a client is and what it may do: the platform decides, and what of a decision is slow is done here, away from the
//! threads that serve.

use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordVerifier};
use fulmar_mqtt::ReasonCode;
use fulmar_mqtt::packet::Connect;
use fulmar_platform::registry::Registry;
use fulmar_platform::{Admission, ConnectRequest, Decision, Dialect, Platform, Refusal, Verification};
use tokio::sync::Semaphore;

use super::certificate;
use super::open::Terms;
use crate::cluster::clock::wall_ms;

/// Passwords verified at one time: each takes tens of milliseconds and 19 MiB by argon2's defaults.
const VERIFICATIONS_MAX: usize = 2;

/// Decides about CONNECTs.
#[derive(Debug)]
pub struct Authenticator {
    platform: Platform,
    verifications: Arc<Semaphore>,
}

impl Authenticator {
    #[must_use]
    pub fn new(platform: Platform) -> Authenticator {
        Authenticator { platform, verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)) }
    }

    /// Lets a client in, or not, and says by which dialect. Waits while too many others are being verified; the caller
    /// bounds that wait.
    pub async fn admit(
        &self,
        connect: &Connect,
        terms: &Terms,
        registry: &Registry,
    ) -> (Dialect, Result<Admission, Refusal>) {
        let now_ms = wall_ms();
        let chain = terms.chain.as_deref().unwrap_or_default();
        let authorities = registry.authorities().map(|kept| &*kept.record);
        let shown = certificate::shown(chain, terms.authorities.as_deref(), authorities, now_ms);
        let request = ConnectRequest {
            connect,
            client_id: &connect.client_id,
            peer: terms.peer,
            encrypted: terms.encrypted,
            host: terms.host.as_deref(),
            certificate: shown.as_ref(),
            now_ms,
            entropy: rand::random(),
        };
        let (dialect, decision) = self.platform.decide(&request, registry, &terms.dialects);
        let outcome = match decision {
            Decision::Admit(admission) => Ok(*admission),
            Decision::Refuse(refusal) => Err(refusal),
            Decision::VerifyPassword(verification) => self.verify(verification).await,
        };
        (dialect, outcome)
    }

    async fn verify(&self, verification: Box<Verification>) -> Result<Admission, Refusal> {
        const BUSY: Refusal = Refusal { reason: ReasonCode::ServerBusy, detail: "passwords cannot be verified now" };
        let turn = self.verifications.clone().acquire_owned().await.map_err(|_| BUSY)?;
        // The work goes on if nobody waits for it any more, and so does its turn: or nothing would bound what is under way.
        let verified = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let verified = PasswordHash::new(verification.hash())
                .is_ok_and(|hash| argon2::Argon2::default().verify_password(verification.password(), &hash).is_ok());
            verification.finish(verified)
        });
        verified.await.map_err(|_| BUSY)?
    }
}
