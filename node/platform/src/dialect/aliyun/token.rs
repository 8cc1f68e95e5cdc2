//! `iotToken`: what pre-authentication on one node is proven with on any other. Nothing is stored: whoever has the
//! cluster's key can check it.

use subtle::ConstantTimeEq;

use crate::Secret;
use crate::dialect::crypto::{Digest, hmac};
use crate::registry::{Device, Kept};

/// Seconds that a token is good for.
const LIFE_S: u64 = 7 * 24 * 3600;

/// Characters: 8 of the time, then the signature. Firmware has room for 64.
const CHARS: usize = 64;
const TIME_CHARS: usize = 8;

/// 64 hexadecimal digits: seconds since 1970, then a signature over device, time and the device's secrets. So it ends with
/// either of them, too.
pub(super) fn issue(key: &Secret, device: &Kept<Device>, now_ms: u64) -> String {
    let seconds = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
    sealed(key, device, &format!("{seconds:08x}"))
}

/// Whether it is a token of this device that was issued less than seven days ago. One from the future is good: clocks of
/// nodes differ.
pub(super) fn is_valid(key: &Secret, device: &Kept<Device>, token: &[u8], now_ms: u64) -> bool {
    let time = token.get(..TIME_CHARS).and_then(|time| std::str::from_utf8(time).ok());
    let Some((time, seconds)) = time.and_then(|time| Some((time, u64::from_str_radix(time, 16).ok()?))) else {
        return false;
    };
    let right = bool::from(sealed(key, device, time).as_bytes().ct_eq(token));
    right && (now_ms / 1000).saturating_sub(seconds) < LIFE_S
}

fn sealed(key: &Secret, device: &Kept<Device>, time: &str) -> String {
    let auth = &device.record.auth;
    let [first, second] =
        [&auth.secret, &auth.secondary_secret].map(|secret| secret.as_ref().map_or("", Secret::expose));
    // The purpose comes first: the key signs other tokens, too.
    let message = format!("iotToken|{}|{time}|{}|{first}|{second}", device.oid, first.len());
    let mut token = time.to_owned() + &hex::encode(hmac(Digest::Sha256, key.expose().as_bytes(), message.as_bytes()));
    token.truncate(CHARS);
    token
}
