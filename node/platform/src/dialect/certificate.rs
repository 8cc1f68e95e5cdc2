//! What a device's certificate says, and who vouches for it. Its chain and its time were checked before it came here.

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::crypto::{hex_is, sha1, sha256};
use crate::Shown;
use crate::registry::{Auth, Registry};

/// Whether an authority that may speak for devices of this product vouches for the certificate.
pub(crate) fn is_vouched_for(shown: &Shown, registry: &Registry, product_id: &str) -> bool {
    let speaks = |id: &str| {
        registry.authority(id).is_some_and(|authority| {
            authority.record.product_id.is_empty() || *authority.record.product_id == *product_id
        })
    };
    shown.trusted || shown.authorities.iter().any(|id| speaks(id))
}

/// Whether it is the one that the device is registered with, by SHA-1 or SHA-256; `None` if the device has none.
pub(crate) fn is_registered(shown: &Shown, auth: &Auth) -> Option<bool> {
    let mut registered = auth.fingerprint.iter().chain(&auth.secondary_fingerprint).peekable();
    registered.peek()?;
    let (short, long) = (sha1(&shown.certificate), sha256(&shown.certificate));
    Some(registered.any(|text| hex_is(&short, text.as_bytes()) || hex_is(&long, text.as_bytes())))
}

/// SHA-256, 64 hexadecimal digits.
pub(crate) fn fingerprint(shown: &Shown) -> Box<str> {
    hex::encode(sha256(&shown.certificate)).into()
}

/// Whether its common name or one of its alternative names is this one.
pub(crate) fn is_named(shown: &Shown, name: &str) -> bool {
    let Ok((_, certificate)) = parse_x509_certificate(&shown.certificate) else { return false };
    let common = certificate.subject().iter_common_name().any(|common| common.as_str() == Ok(name));
    let alternative = certificate.subject_alternative_name().ok().flatten();
    common
        || alternative.is_some_and(|names| {
            names.value.general_names.iter().any(|alternative| match alternative {
                GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => *text == name,
                _ => false,
            })
        })
}
