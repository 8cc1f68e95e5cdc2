//! What names, texts and ids may look like. Each error names the parameter.

use fulmar_platform::Dialect;

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

/// First levels of topics of Aliyun's platform: a product of such a name would have its custom topics there.
const ALIYUN_TAKEN: [&str; 5] = ["sys", "ext", "ota", "shadow", "broadcast"];

/// The id of a new product, as its dialect's firmware can use it.
pub(super) fn product_id(parameter: &str, dialect: Dialect, id: &str) -> Result<(), Error> {
    match dialect {
        // Client ids are product id and device name in one; the first ten characters are the product's.
        Dialect::Tencent if id.len() != 10 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            Err(Error::invalid(parameter, "must be 10 letters or digits"))
        }
        Dialect::Aliyun if ALIYUN_TAKEN.contains(&id) => {
            Err(Error::invalid(parameter, format!("must not be one of {}", ALIYUN_TAKEN.join(", "))))
        }
        _ => word(parameter, id, 36, ""),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_products_are_such_as_firmware_can_use() {
        for (dialect, id, fits) in [
            (Dialect::Tencent, "ABCDE12345", true),
            (Dialect::Tencent, "ABCDE1234", false),
            (Dialect::Tencent, "ABCDE123456", false),
            (Dialect::Tencent, "ABCDE-1234", false),
            (Dialect::Tencent, "ABCDE1234\u{e9}", false),
            (Dialect::Aliyun, "a1B2c3D4e5F", true),
            (Dialect::Aliyun, "sys", false),
            (Dialect::Aliyun, "ext", false),
            (Dialect::Aliyun, "ota", false),
            (Dialect::Aliyun, "shadow", false),
            (Dialect::Aliyun, "broadcast", false),
            (Dialect::Huawei, "sys", true),
            (Dialect::Huawei, "a/b", false),
        ] {
            assert_eq!(product_id("product_id", dialect, id).is_ok(), fits, "{dialect} {id}");
        }
    }
}
