//! What names, texts and ids may look like. Each error names the parameter.

use super::Error;

/// Bytes of an `extension_info`.
pub(super) const EXTENSION_BYTES_MAX: usize = 1024;

/// Characters of a text for people.
pub(super) const DESCRIPTION_CHARS_MAX: usize = 2048;

/// Letters, digits, `_`, `-` and whatever else is named.
pub(super) fn word(parameter: &str, text: &str, chars_max: usize, also: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || also.contains(c);
    if text.is_empty() || text.chars().count() > chars_max || !text.chars().all(plain) {
        let also: String = also.chars().flat_map(|c| [' ', c]).collect();
        return Err(Error::invalid(
            parameter,
            format!("must be 1 to {chars_max} letters, digits or signs of _ -{also}"),
        ));
    }
    Ok(())
}

/// Any text without control characters, from `chars_min` to `chars_max` of them.
pub(super) fn text(parameter: &str, text: &str, chars_min: usize, chars_max: usize) -> Result<(), Error> {
    let chars = text.chars().count();
    if chars < chars_min || chars > chars_max {
        return Err(Error::invalid(parameter, format!("must have {chars_min} to {chars_max} characters")));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(Error::invalid(parameter, "must not contain control characters"));
    }
    Ok(())
}

/// SHA-1 or SHA-256 of a certificate in hex; in lower case, as it is kept.
pub(super) fn fingerprint(parameter: &str, text: &str) -> Result<Box<str>, Error> {
    let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || !matches!(text.len(), 40 | 64) {
        return Err(Error::invalid(parameter, "must be 40 or 64 hexadecimal digits"));
    }
    Ok(text.to_ascii_lowercase().into())
}

/// A host name or address, with a port that is not 0.
pub(super) fn endpoint(parameter: &str, host: &str, port: u16) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.:_".contains(c);
    if host.is_empty() || host.len() > 253 || !host.chars().all(plain) || port == 0 {
        return Err(Error::invalid(parameter, "must be a host name and a port from 1 to 65535"));
    }
    Ok(())
}

/// A topic filter of a class of custom topics.
pub(super) fn topic_class(parameter: &str, filter: &str) -> Result<(), Error> {
    let sound = filter.len() <= 128 && fulmar_mqtt::TopicFilter::new(filter.to_owned()).is_ok();
    if !sound || filter.starts_with(['$', '/']) {
        return Err(Error::invalid(
            parameter,
            "must be a topic filter of at most 128 bytes, relative to the device's own space: without / or $ at its start",
        ));
    }
    Ok(())
}
