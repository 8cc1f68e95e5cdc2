//! Tokens: who was let in, until when, under which password; signed with the cluster's key, so that every node takes
//! those of every other, and none keeps any.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fulmar_platform::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

/// What a token starts with; another form would have another.
const FORM: &str = "f1";

/// Bytes of a token that is looked at.
const TOKEN_BYTES_MAX: usize = 1024;

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) user: String,
    pub(super) issued_s: u64,
    pub(super) expires_s: u64,
}

/// Why a token is not taken. For the log: the caller is told nothing but that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    Malformed,
    Signature,
    Expired,
}

fn signature(key: &Secret, signed: &str, password_hash: &Secret) -> Vec<u8> {
    // A key of any length will do for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()) else { return Vec::new() };
    mac.update(b"fulmar rest token\n");
    mac.update(signed.as_bytes());
    mac.update(b"\n");
    // Another password makes another signature: tokens of the old one are void.
    mac.update(&Sha256::digest(password_hash.expose().as_bytes()));
    mac.finalize().into_bytes().to_vec()
}

/// Makes a token for a user whose password was right.
#[must_use]
pub(super) fn issue(key: &Secret, claims: &Claims, password_hash: &Secret) -> String {
    let user = URL_SAFE_NO_PAD.encode(&claims.user);
    let signed = format!("{FORM}.{user}.{}.{}", claims.issued_s, claims.expires_s);
    let signature = URL_SAFE_NO_PAD.encode(signature(key, &signed, password_hash));
    format!("{signed}.{signature}")
}

/// Reads a token. `password_hash` gives that of a user, if there is one.
///
/// # Errors
/// It is none of ours, or its time is over.
pub(super) fn verify(
    key: &Secret,
    token: &str,
    now_s: u64,
    password_hash: impl FnOnce(&str) -> Option<Secret>,
) -> Result<Claims, Bad> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Bad::Malformed);
    }
    let (signed, given) = token.rsplit_once('.').ok_or(Bad::Malformed)?;
    let parts: Vec<&str> = signed.split('.').collect();
    let [FORM, user, issued, expires] = parts.as_slice() else { return Err(Bad::Malformed) };
    let user = URL_SAFE_NO_PAD.decode(user).ok().and_then(|user| String::from_utf8(user).ok()).ok_or(Bad::Malformed)?;
    let given = URL_SAFE_NO_PAD.decode(given).map_err(|_| Bad::Malformed)?;
    let (issued_s, expires_s) = issued.parse().ok().zip(expires.parse().ok()).ok_or(Bad::Malformed)?;
    let hash = password_hash(&user);
    let there = hash.is_some();
    let expected = signature(key, signed, &hash.unwrap_or_default());
    if expected.is_empty() || !there || !bool::from(expected.ct_eq(&given)) {
        return Err(Bad::Signature);
    }
    if now_s >= expires_s { Err(Bad::Expired) } else { Ok(Claims { user, issued_s, expires_s }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims { user: "demo.user".into(), issued_s: 1_000, expires_s: 2_000 }
    }

    #[test]
    fn a_token_is_taken_until_its_time_is_over() {
        let (key, hash) = (Secret::new("k"), Secret::new("h"));
        let token = issue(&key, &claims(), &hash);
        let verify =
            |token: &str, now_s| verify(&key, token, now_s, |user| (user == "demo.user").then(|| hash.clone()));
        assert_eq!(verify(&token, 1_999), Ok(claims()));
        assert_eq!(verify(&token, 2_000), Err(Bad::Expired));
    }

    #[test]
    fn a_changed_one_is_not() {
        let (key, hash) = (Secret::new("k"), Secret::new("h"));
        let token = issue(&key, &claims(), &hash);
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            // The last character of base64 has bits that count for nothing; such a form is refused too.
            assert!(verify(&key, &changed, 1_500, |_| Some(hash.clone())).is_err(), "{at}: {changed}");
        }
        let later = token.replace(".2000.", ".9000.");
        assert_eq!(verify(&key, &later, 1_500, |_| Some(hash.clone())), Err(Bad::Signature));
        for none in ["", ".", "f1", "f1.a.b.c.d", "f2.ZGVtbw.1.2.AA", "é.é.é.é.é", &"a".repeat(5_000)] {
            assert_eq!(verify(&key, none, 1_500, |_| Some(hash.clone())), Err(Bad::Malformed), "{none}");
        }
    }

    #[test]
    fn another_key_password_or_user_makes_it_void() {
        let (key, hash) = (Secret::new("k"), Secret::new("h"));
        let token = issue(&key, &claims(), &hash);
        assert_eq!(verify(&Secret::new("other"), &token, 1_500, |_| Some(hash.clone())), Err(Bad::Signature));
        assert_eq!(verify(&key, &token, 1_500, |_| Some(Secret::new("new"))), Err(Bad::Signature));
        assert_eq!(verify(&key, &token, 1_500, |_| None), Err(Bad::Signature));
        let other = issue(&key, &claims(), &Secret::default());
        assert_eq!(verify(&key, &other, 1_500, |_| None), Err(Bad::Signature), "nobody's password is not empty");
    }
}
