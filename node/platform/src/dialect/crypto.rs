//! Digests, ciphers and comparisons, as the vendors' firmware uses them.

use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockModeEncrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// A digest that firmware signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    Md5,
    Sha1,
    Sha256,
}

/// HMAC of a message, under a key of any length.
#[must_use]
pub fn hmac(digest: Digest, key: &[u8], message: &[u8]) -> Vec<u8> {
    fn of<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
        let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(message);
        mac.finalize().into_bytes().to_vec()
    }
    match digest {
        Digest::Md5 => of::<Hmac<Md5>>(key, message),
        Digest::Sha1 => of::<Hmac<Sha1>>(key, message),
        Digest::Sha256 => of::<Hmac<Sha256>>(key, message),
    }
}

#[must_use]
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whether `given` is `expected` in hexadecimal, in either case. Takes the same time wherever they differ.
#[must_use]
pub fn hex_is(expected: &[u8], given: &[u8]) -> bool {
    hex::encode(expected).as_bytes().ct_eq(&given.to_ascii_lowercase()).into()
}

/// AES-CBC of whole blocks, with a key of 16 or 32 bytes; `None` for another length of either.
#[must_use]
pub fn aes_cbc_encrypt(key: &[u8], iv: &[u8; 16], padded: &[u8]) -> Option<Vec<u8>> {
    fn of<C: BlockModeEncrypt + KeyIvInit>(key: &[u8], iv: &[u8; 16], padded: &[u8]) -> Option<Vec<u8>> {
        let mut blocks = padded.to_vec();
        let cipher = C::new_from_slices(key, iv).ok()?;
        cipher.encrypt_padded::<NoPadding>(&mut blocks, padded.len()).ok()?;
        Some(blocks)
    }
    match key.len() {
        16 => of::<cbc::Encryptor<aes::Aes128>>(key, iv, padded),
        32 => of::<cbc::Encryptor<aes::Aes256>>(key, iv, padded),
        _ => None,
    }
}

/// Letters and digits, without those that people take for each other.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// `length` characters made from entropy, 5 bits each; at most 51 of 32 bytes.
#[must_use]
pub fn random_text(entropy: &[u8; 32], length: usize) -> String {
    // Not the bytes themselves: whoever sees the text learns nothing about what else is made of them.
    let seed = [sha256(entropy), sha256(&sha256(entropy))].concat();
    seed.iter().take(length).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        // RFC 2202 2 and 3, RFC 4231 4.3: the second case of each.
        let (key, message) = (b"Jefe", b"what do ya want for nothing?");
        for (digest, expected) in [
            (Digest::Md5, "750c783e6ab0b503eaa86e310a5db738"),
            (Digest::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (Digest::Sha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ] {
            assert_eq!(hex::encode(hmac(digest, key, message)), expected, "{digest:?}");
            assert!(hex_is(&hmac(digest, key, message), expected.to_uppercase().as_bytes()));
            assert!(!hex_is(&hmac(digest, key, message), b""));
        }
        // NIST SP 800-38A F.2.1 and F.2.5, the first block.
        let iv: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let plain = hex::decode("6bc1bee22e409f96e93d7e117393172a").unwrap();
        for (key, expected) in [
            ("2b7e151628aed2a6abf7158809cf4f3c", "7649abac8119b246cee98e9b12e9197d"),
            ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "f58c4c04d6e5f1ba779eabfb5f7bfbd6"),
        ] {
            let encrypted = aes_cbc_encrypt(&hex::decode(key).unwrap(), &iv, &plain).unwrap();
            assert_eq!(hex::encode(encrypted), expected);
        }
        assert_eq!(aes_cbc_encrypt(&[0; 16], &iv, b"no block"), None);
        assert_eq!(aes_cbc_encrypt(&[0; 15], &iv, &plain), None);
    }
}
