//! What people and programs may ask of a node, as named calls that take and give JSON: one table (`routes`) for REST, gRPC
//! and the console, with one check of roles and one audit. A door finds out who calls, makes a [`Call`] of what came, and
//! writes the [`Answer`] in its own form. Absent here: HTTP, gRPC, and what a call does, which is `operations`' business.

mod apps;
mod attempts;
mod authorities;
mod batch_tasks;
mod call;
mod cluster;
mod commands;
mod devices;
mod fault;
mod iam;
mod messages;
mod openapi;
mod pace;
mod people;
mod products;
mod recent;
mod routes;
mod rules;
mod sensoro;
mod settings;
mod shadows;
mod token;
mod verify;

use std::net::IpAddr;
use std::sync::Arc;

use fulmar_platform::Secret;
use fulmar_platform::registry::Role;

use crate::cluster::clock::wall_ms;
use crate::operations::Operations;
pub use call::{Answer, Body, Call, Caller};
pub use fault::Fault;
pub use people::role_name;
pub use routes::{Answering, Found, Handler, Http, Needs, ROUTES, Route, Streaming, Uploads, all, find, named};
pub use settings::Settings;
use verify::Verifier;

/// Bytes of a call's body.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Of one that names many devices.
const LONG_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The calls of a node.
pub struct Api {
    operations: Operations,
    settings: Settings,
    verifier: Verifier,
    registrations: pace::Pace,
    /// What a password is verified against where there is no such user, so that time does not tell who exists.
    decoy: Secret,
    drain: Drain,
}

/// Has this node leave, as SIGTERM does.
pub type Drain = Arc<dyn Fn() + Send + Sync>;

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// # Errors
    /// No password can be hashed.
    pub fn new(operations: Operations, settings: Settings, drain: Drain) -> anyhow::Result<Arc<Api>> {
        let nobodys: u128 = rand::random();
        let decoy = Secret::new(&crate::operations::hash_password(&nobodys.to_string())?);
        let verifier = Verifier::new(settings.sign_in);
        Ok(Arc::new(Api { operations, settings, verifier, registrations: pace::Pace::new(), decoy, drain }))
    }

    #[must_use]
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether one more device of a product may register itself from an address. `product`: of the registry; empty for all
    /// that it does not know.
    #[must_use]
    pub fn may_register(&self, product: &str, address: IpAddr) -> bool {
        self.registrations.takes(product, address, now_ms())
    }

    /// Password hash and role of a user: of the configuration, else of the registry.
    fn user(&self, name: &str) -> Option<(Secret, Role)> {
        let configured = self.settings.users.get(name).cloned();
        configured.or_else(|| {
            self.operations
                .read(|registry| registry.user(name).map(|user| (user.record.password_hash.clone(), user.record.role)))
        })
    }

    /// Whom a name stands for.
    #[must_use]
    pub fn caller(&self, user: &str) -> Option<Caller> {
        self.user(user).map(|(_, role)| Caller { name: user.to_owned(), role })
    }

    /// Secret key and user of an access key.
    #[must_use]
    pub fn access_key(&self, ak: &str) -> Option<(Secret, String)> {
        let configured = self.settings.access_keys.get(ak).cloned();
        configured.or_else(|| {
            self.operations.read(|registry| {
                registry.access_key(ak).map(|key| (key.record.sk.clone(), key.record.user.to_string()))
            })
        })
    }

    /// Who shows a token that `iam.create_token` has issued, on whatever node.
    ///
    /// # Errors
    /// 401 whatever is wrong.
    pub fn by_token(&self, token: &str, peer: IpAddr) -> Result<Caller, Fault> {
        let key = self.operations.read(|registry| registry.key().cloned()).ok_or_else(Fault::unauthenticated)?;
        let claims = token::verify(&key, token, now_ms() / 1000, |user| self.user(user).map(|(hash, _)| hash));
        let claims = claims.map_err(|why| {
            tracing::debug!(%peer, ?why, "a token was refused");
            Fault::unauthenticated()
        })?;
        self.caller(&claims.user).ok_or_else(Fault::unauthenticated)
    }

    /// Whether a caller may make a call.
    ///
    /// # Errors
    /// 403, if the role does not allow it.
    pub fn allow(&self, route: &Route, caller: &Caller) -> Result<(), Fault> {
        match route.needs {
            Needs::Role(role) if caller.role < role => {
                Err(Fault::forbidden(&format!("The role of {} does not allow this.", caller.name)))
            }
            Needs::Role(_) | Needs::Nothing => Ok(()),
        }
    }

    /// Makes a call that is answered once, whoever may make it: looks at the role first, and writes changes to the audit.
    ///
    /// # Errors
    /// What the call says.
    pub async fn answer(&self, route: &'static Route, call: Call, request_id: &str) -> Result<Answer, Fault> {
        let Handler::Once(handler) = route.handler else {
            return Err(Fault::invalid(&format!("{} is a stream", route.name)));
        };
        let (caller, peer) = (call.caller.name.clone(), call.peer);
        let about = call.about();
        let outcome = match self.allow(route, &call.caller) {
            Ok(()) if self.operations.serves() || route.without_lease => handler(call).await,
            Ok(()) => Err(crate::operations::Error::Unavailable.into()),
            Err(fault) => Err(fault),
        };
        if route.changes {
            self.audit(route, &caller, peer, &about, &outcome, request_id);
        }
        outcome
    }

    /// Writes down that somebody has changed something, or tried to.
    fn audit(
        &self,
        route: &Route,
        caller: &str,
        peer: IpAddr,
        about: &str,
        outcome: &Result<Answer, Fault>,
        request_id: &str,
    ) {
        let made = outcome.as_ref().ok().and_then(|answer| answer.about.as_deref());
        let (status, code) = match outcome {
            Ok(answer) => (answer.status, ""),
            Err(fault) => (fault.status, fault.code),
        };
        let about = made.unwrap_or(about);
        tracing::info!(user = caller, %peer, operation = route.name, about, status, code, request_id, "changed");
    }
}

/// Milliseconds since 1970, as clients know the time.
fn now_ms() -> u64 {
    wall_ms()
}
