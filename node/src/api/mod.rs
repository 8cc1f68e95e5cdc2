//! What people and programs may ask of a node, as named calls that take and give JSON: one table (`routes`) for REST, gRPC
//! and the console, with one check of roles and one audit. A door finds out who calls, makes a [`Call`] of what came, and
//! writes the [`Answer`] in its own form. Absent here: HTTP, gRPC, and what a call does, which is `operations`' business.

mod access;
mod alarms;
mod apps;
mod attempts;
mod audit;
mod authorities;
mod backups;
mod bans;
mod batch_tasks;
mod call;
mod cluster;
mod commands;
mod devices;
mod diagnosis;
mod fault;
mod iam;
mod messages;
mod openapi;
mod pace;
mod people;
mod products;
mod recent;
mod retained;
mod routes;
mod rules;
mod sensoro;
mod sessions;
mod settings;
mod shadows;
mod streams;
mod subscriptions;
mod token;
mod topics;
mod traces;
mod tunables;
mod verify;

use std::net::IpAddr;
use std::sync::Arc;

use fulmar_broker::steer::audit::Entry;
use fulmar_broker::{LogTime, NodeId};
use fulmar_platform::Secret;
use fulmar_platform::registry::Role;
use subtle::ConstantTimeEq;

use crate::cluster::clock::wall_ms;
use crate::config::units;
use crate::operations::Operations;
use crate::telemetry::spans::{self, Kind};
pub use access::{Access, Socket};
use attempts::Attempts;
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

/// The name of whoever shows the configured token.
pub const ADMIN_TOKEN: &str = "admin-token";

/// The calls of a node.
pub struct Api {
    operations: Operations,
    settings: Settings,
    verifier: Verifier,
    /// Tokens that were wrong, by address.
    tokens: Attempts,
    registrations: pace::Pace,
    /// Calls that return or change secrets.
    sensitive: pace::Pace,
    auditor: audit::Auditor,
    /// What a password is verified against where there is no such user, so that time does not tell who exists.
    decoy: Secret,
}

/// Who makes a call, for the audit.
struct Who {
    caller: Caller,
    peer: IpAddr,
    door: &'static str,
}

impl Who {
    /// Its time and node are those of whoever notes it.
    fn entry(&self, operation: &str, about: &str, status: u16, code: &str, request_id: &str) -> Entry {
        let text = audit::text;
        let role = if self.caller.name.is_empty() { "" } else { role_name(self.caller.role) };
        Entry {
            at: LogTime::default(),
            node: NodeId(0),
            user: text(&self.caller.name),
            role: role.into(),
            address: self.peer.to_canonical().to_string().into(),
            door: self.door.into(),
            operation: operation.into(),
            about: text(about),
            status,
            code: code.into(),
            request_id: text(request_id),
        }
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// # Errors
    /// No password can be hashed.
    ///
    /// Must be called on a runtime.
    pub fn new(operations: Operations, settings: Settings) -> anyhow::Result<Arc<Api>> {
        let nobodys: u128 = rand::random();
        let decoy = Secret::new(&crate::operations::hash_password(&nobodys.to_string())?);
        let verifier = Verifier::new(settings.sign_in);
        let tokens = Attempts::new(settings.sign_in.of_addresses());
        let registrations = pace::Pace::new(pace::REGISTRATIONS, pace::REGISTRATION_EVERY_MS);
        let sensitive = pace::Pace::new(pace::SENSITIVE, pace::SENSITIVE_EVERY_MS);
        let auditor = audit::Auditor::start(&operations);
        Ok(Arc::new(Api { operations, settings, verifier, tokens, registrations, sensitive, auditor, decoy }))
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

    /// Who shows a token at a door: the configured one, which is an admin's, or one of `iam.create_token`. An address that
    /// shows too many wrong ones is not listened to for a time.
    ///
    /// # Errors
    /// 401 without a token or with a wrong one, 429 if the address is locked.
    pub fn by_bearer(&self, shown: Option<&str>, configured: &units::Secret, peer: IpAddr) -> Result<Caller, Fault> {
        let shown = shown.ok_or_else(Fault::no_token)?;
        if !self.tokens.begin("", peer, now_ms()) {
            return Err(Fault::locked());
        }
        let caller = if bool::from(shown.as_bytes().ct_eq(configured.expose().as_bytes())) {
            Ok(Caller { name: ADMIN_TOKEN.to_owned(), role: Role::Admin })
        } else {
            self.by_token(shown, peer).map_err(|_| Fault::wrong_token())
        };
        match &caller {
            Ok(_) => self.tokens.succeeded("", peer, now_ms()),
            Err(_) => {
                let locks = self.tokens.failed("", peer, now_ms());
                tracing::warn!(%peer, locks, "a wrong token was shown");
            }
        }
        caller
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
        self.audited(route, call, request_id, handler).await
    }

    /// Makes a call that takes many requests, the first of which is its own.
    ///
    /// # Errors
    /// What the call says.
    pub async fn upload(
        &self,
        route: &'static Route,
        call: Call,
        parts: Uploads,
        request_id: &str,
    ) -> Result<Answer, Fault> {
        let Handler::Upload(handler) = route.handler else {
            return Err(Fault::invalid(&format!("{} is no upload", route.name)));
        };
        self.audited(route, call, request_id, |call| handler(call, parts)).await
    }

    /// Begins a call that gives many answers.
    ///
    /// # Errors
    /// The role does not allow it, or the node does not serve.
    pub fn stream(&self, route: &'static Route, call: Call) -> Result<Streaming, Fault> {
        let Handler::Stream(handler) = route.handler else {
            return Err(Fault::invalid(&format!("{} is no stream", route.name)));
        };
        let begun = self.may_begin(route, &call.caller);
        if route.changes {
            let outcome = begun.clone().and_then(|()| Answer::empty());
            let who = Who { caller: call.caller.clone(), peer: call.peer, door: call.door };
            self.audit(route, &who, &call.about(), &outcome, "");
        }
        begun.map(|()| handler(call))
    }

    /// Whether a call may be made, and made here and now.
    fn may_begin(&self, route: &Route, caller: &Caller) -> Result<(), Fault> {
        self.allow(route, caller)?;
        // Only a restore gets the cluster out of one that has broken off.
        let spared = route.without_lease || matches!(route.needs, Needs::Nothing) || route.name == "backups.restore";
        if !spared && self.operations.restoring() {
            return Err(crate::operations::Error::from(crate::operations::backups::Failed::Restoring).into());
        }
        if self.operations.serves() || route.without_lease {
            Ok(())
        } else {
            Err(crate::operations::Error::Unavailable.into())
        }
    }

    async fn audited(
        &self,
        route: &'static Route,
        call: Call,
        request_id: &str,
        handler: impl FnOnce(Call) -> Answering,
    ) -> Result<Answer, Fault> {
        let began = std::time::Instant::now();
        let who = Who { caller: call.caller.clone(), peer: call.peer, door: call.door };
        let about = call.about();
        let mut span = spans::root(route.name, Kind::Server);
        let outcome = match self.may_begin(route, &call.caller).and_then(|()| self.paced(route, &who)) {
            Ok(()) => span.during(handler(call)).await,
            Err(fault) => Err(fault),
        };
        let status = outcome.as_ref().map_or_else(|fault| fault.status, |answer| answer.status);
        self.operations.metrics().calls_answered.answered(who.door, route.room(), status, began.elapsed());
        if span.recorded() {
            span.set("fulmar.door", who.door);
            span.set("fulmar.request_id", request_id);
            span.set("fulmar.about", about.as_str());
            span.set("http.response.status_code", u64::from(status));
            if let Err(fault) = outcome.as_ref().as_ref()
                && fault.status >= 500
            {
                span.fail(fault.code);
            }
        }
        drop(span);
        if route.sensitive() && outcome.is_ok() {
            // What was refused has told and changed nothing. Whoever came meanwhile may be one too many.
            let _ = self.sensitive.takes(&who.caller.name, who.peer, now_ms());
        }
        if route.changes {
            self.audit(route, &who, &about, &outcome, request_id);
        }
        outcome
    }

    /// Writes down that somebody has changed something, or tried to.
    fn audit(&self, route: &Route, who: &Who, about: &str, outcome: &Result<Answer, Fault>, request_id: &str) {
        let made = outcome.as_ref().ok().and_then(|answer| answer.about.as_deref());
        let (status, code) = match outcome {
            Ok(answer) => (answer.status, ""),
            Err(fault) => (fault.status, fault.code),
        };
        let about = made.unwrap_or(about);
        let (user, peer, door) = (&who.caller.name, who.peer, who.door);
        tracing::info!(user, %peer, door, operation = route.name, about, status, code, request_id, "changed");
        self.auditor.note(who.entry(route.name, about, status, code, request_id));
    }

    /// Writes down that somebody could not sign in.
    fn audit_sign_in(&self, call: &Call, user: &str, status: u16) {
        let caller = Caller { name: user.to_owned(), ..Caller::nobody() };
        let who = Who { caller, peer: call.peer, door: call.door };
        let entry = who.entry("iam.create_token", user, status, "", "");
        self.auditor.note_sign_in(Entry { role: "".into(), ..entry });
    }

    /// Whether a caller makes calls that return or change secrets slowly enough.
    fn paced(&self, route: &Route, who: &Who) -> Result<(), Fault> {
        if !route.sensitive() || self.sensitive.has(&who.caller.name, who.peer, now_ms()) {
            Ok(())
        } else {
            Err(Fault::throttled())
        }
    }
}

/// Milliseconds since 1970, as clients know the time.
fn now_ms() -> u64 {
    wall_ms()
}
