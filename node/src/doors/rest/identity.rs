//! Who calls: by token, or by a signature with a pair of keys.

use std::net::IpAddr;

use actix_web::HttpRequest;

use super::now_ms;
use super::signature::{self, Signed};
use crate::api::{Api, Caller, Fault};

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
    api.by_token(&token, peer)
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
    api.caller(&user).ok_or_else(Fault::unauthenticated)
}
