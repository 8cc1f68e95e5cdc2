//! Who calls: by token, or by a signature with a pair of keys.

use std::net::IpAddr;

use actix_web::HttpRequest;
use fulmar_platform::Secret;
use fulmar_platform::registry::Role;

use super::signature::{self, Signed};
use super::{Api, Fault, now_ms, token};

/// Someone who was let in.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) role: Role,
}

impl Api {
    /// Password hash and role of a user: of the configuration, else of the registry.
    pub(super) fn user(&self, name: &str) -> Option<(Secret, Role)> {
        let configured = self.settings.users.get(name).cloned();
        configured.or_else(|| {
            self.operations
                .read(|registry| registry.user(name).map(|user| (user.record.password_hash.clone(), user.record.role)))
        })
    }

    /// Secret key and user of an access key.
    fn access_key(&self, ak: &str) -> Option<(Secret, String)> {
        let configured = self.settings.access_keys.get(ak).cloned();
        configured.or_else(|| {
            self.operations.read(|registry| {
                registry.access_key(ak).map(|key| (key.record.sk.clone(), key.record.user.to_string()))
            })
        })
    }
}

/// Finds out who calls.
///
/// # Errors
/// 401 whatever is wrong.
pub(super) fn identify(api: &Api, request: &HttpRequest, body: &[u8], peer: IpAddr) -> Result<Caller, Fault> {
    // A header that is there twice is none: who signed and who reads might mean different ones.
    let header = |name: &str| -> Option<String> {
        let mut values = request.headers().get_all(name);
        let value = values.next()?.to_str().ok()?.to_owned();
        values.next().is_none().then_some(value)
    };
    if let Some(authorization) = header("authorization") {
        return by_signature(api, request, &header, &authorization, body, peer);
    }
    let token = header("x-auth-token").ok_or_else(Fault::unauthenticated)?;
    let key = api.operations.read(|registry| registry.key().cloned()).ok_or_else(Fault::unauthenticated)?;
    let claims = token::verify(&key, &token, now_ms() / 1000, |user| api.user(user).map(|(hash, _)| hash));
    let claims = claims.map_err(|why| {
        tracing::debug!(%peer, ?why, "a token was refused");
        Fault::unauthenticated()
    })?;
    let (_, role) = api.user(&claims.user).ok_or_else(Fault::unauthenticated)?;
    Ok(Caller { name: claims.user, role })
}

fn by_signature(
    api: &Api,
    request: &HttpRequest,
    header: &dyn Fn(&str) -> Option<String>,
    authorization: &str,
    body: &[u8],
    peer: IpAddr,
) -> Result<Caller, Fault> {
    let refused = |why: signature::Bad, access_key: &str| {
        tracing::info!(%peer, access_key, %why, "a signature was refused");
        Fault::unauthenticated()
    };
    let signed = Signed::read(authorization).map_err(|why| refused(why, ""))?;
    let known = api.access_key(&signed.access_key);
    let there = known.is_some();
    let (secret_key, user) = known.unwrap_or_default();
    let seen = signature::Request {
        method: request.method().as_str(),
        path: request.uri().path(),
        query: request.uri().query().unwrap_or_default(),
        header,
        body,
    };
    // Nobody is locked for signatures: a secret key is not to be guessed, and others could lock its owner out.
    let verified = signed.verify(&seen, &secret_key, now_ms() / 1000);
    if !there {
        return Err(refused(signature::Bad::Signature, &signed.access_key));
    }
    verified.map_err(|why| refused(why, &signed.access_key))?;
    if Signed::unsigned_body(&seen) {
        // No operation takes what is not JSON, and JSON is signed.
        return Err(refused(signature::Bad::Content, &signed.access_key));
    }
    let (_, role) = api.user(&user).ok_or_else(Fault::unauthenticated)?;
    Ok(Caller { name: user, role })
}
