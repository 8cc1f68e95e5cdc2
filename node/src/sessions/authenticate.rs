//! Who a client is and what it may do: the platform decides, and what of a decision is slow is done here, away from the
//! threads that serve.

use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordVerifier};
use fulmar_broker::session;
use fulmar_mqtt::packet::Connect;
use fulmar_mqtt::{ReasonCode, TopicFilter, TopicName};
use fulmar_platform::{
    Admission, ConnectRequest, Decision, Dialect, Permissions, Platform, Refusal, Verification, terminates,
};
use tokio::sync::Semaphore;

use super::open::Terms;

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

    /// Lets a client in, or not. Waits while too many others are being verified; the caller bounds that wait.
    ///
    /// # Errors
    /// Why the client is not let in.
    pub async fn admit(&self, connect: &Connect, terms: &Terms) -> Result<Admission, Refusal> {
        let request = ConnectRequest {
            connect,
            client_id: &connect.client_id,
            peer: terms.peer,
            certificate: terms.certificate.as_ref(),
        };
        match self.platform.admit(&request) {
            Decision::Admit(admission) => Ok(*admission),
            Decision::Refuse(refusal) => Err(refusal),
            Decision::VerifyPassword(verification) => self.verify(verification).await,
        }
    }

    async fn verify(&self, verification: Box<Verification>) -> Result<Admission, Refusal> {
        const BUSY: Refusal = Refusal { reason: ReasonCode::ServerBusy, detail: "passwords cannot be verified now" };
        let _turn = self.verifications.acquire().await.map_err(|_| BUSY)?;
        let verified = tokio::task::spawn_blocking(move || {
            let verified = PasswordHash::new(verification.hash())
                .is_ok_and(|hash| argon2::Argon2::default().verify_password(verification.password(), &hash).is_ok());
            verification.finish(verified)
        });
        verified.await.map_err(|_| BUSY)?
    }
}

/// What an admitted client may do, as its session asks.
#[derive(Debug)]
pub struct Access {
    dialect: Dialect,
    permissions: Permissions,
}

impl Access {
    #[must_use]
    pub fn new(dialect: Dialect, permissions: Permissions) -> Access {
        Access { dialect, permissions }
    }
}

impl session::Access for Access {
    fn may_publish(&self, topic: &TopicName) -> bool {
        self.permissions.may_publish(topic) && terminates(self.dialect, topic).is_none()
    }

    fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        self.permissions.may_subscribe(filter)
    }
}
