//! Ids and secrets that are made here, and hashes of passwords.

use argon2::password_hash::{PasswordHasher, SaltString};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fulmar_platform::Dialect;
use rand::Rng as _;

use super::Error;

const LETTERS_AND_DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Characters of a password.
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=128;

pub(super) fn hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    rand::rng().fill(random.as_mut_slice());
    hex::encode(random)
}

pub(super) fn alphanumeric(length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| char::from(LETTERS_AND_DIGITS[random.random_range(0..LETTERS_AND_DIGITS.len())])).collect()
}

/// 16 random bytes in base64, as Tencent's devices decode them.
fn base64_16() -> String {
    STANDARD.encode(rand::random::<[u8; 16]>())
}

/// An id for a new product, in the form that the dialect's firmware knows.
pub(super) fn product_id(dialect: Dialect) -> String {
    match dialect {
        Dialect::Aliyun => alphanumeric(11),
        Dialect::Tencent => alphanumeric(10).to_ascii_uppercase(),
        _ => hex(12),
    }
}

/// What devices of a product register themselves with.
pub(super) fn product_secret(dialect: Dialect) -> String {
    if dialect == Dialect::Tencent { alphanumeric(24) } else { alphanumeric(16) }
}

pub(super) fn device_secret(dialect: Dialect) -> String {
    match dialect {
        Dialect::Tencent => base64_16(),
        Dialect::Aliyun => alphanumeric(32),
        _ => hex(16),
    }
}

/// Whether a device's secret can be used in its dialect.
pub(super) fn check_device_secret(parameter: &str, dialect: Dialect, secret: &str) -> Result<(), Error> {
    match dialect {
        Dialect::Tencent if STANDARD.decode(secret).is_ok_and(|key| (8..=64).contains(&key.len())) => Ok(()),
        Dialect::Tencent => Err(Error::invalid(parameter, "must be 8 to 64 bytes in base64")),
        _ if (8..=32).contains(&secret.len()) => super::check::word(parameter, secret, 32, ""),
        _ => Err(Error::invalid(parameter, "must be 8 to 32 letters, digits or signs of _ -")),
    }
}

/// Argon2, as a PHC string. Takes tens of milliseconds: not on a thread that serves.
///
/// # Errors
/// The password is too short or too long.
pub fn hash_password(password: &str) -> Result<String, Error> {
    if !PASSWORD_CHARS.contains(&password.chars().count()) {
        let (min, max) = (PASSWORD_CHARS.start(), PASSWORD_CHARS.end());
        return Err(Error::invalid("password", format!("must have {min} to {max} characters")));
    }
    let unusable = |_| Error::invalid("password", "cannot be hashed");
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(unusable)?;
    let hash = argon2::Argon2::default().hash_password(password.as_bytes(), &salt).map_err(unusable)?;
    Ok(hash.to_string())
}
