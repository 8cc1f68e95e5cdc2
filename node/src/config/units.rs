//! Values that carry a unit: byte counts, spans of time, and addresses, each with an error that says what is allowed.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

const BYTE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const BYTES_ALLOWED: &str = "a whole number of bytes, or one with a unit: B, KiB, MiB, GiB or TiB, as in \"256KiB\"";

const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const TIME_ALLOWED: &str = "a span of time with a unit: ms, s, m, h or d, as in \"500ms\", \"10s\" or \"1h30m\"";

/// The longest span of time that is accepted: ten years. A longer one is a slip of the hand.
const TIME_MS_MAX: u64 = 3650 * 86_400_000;

/// A number of bytes: `65536` or `"64KiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

impl ByteCount {
    #[must_use]
    pub const fn new(bytes: u64) -> ByteCount {
        ByteCount(bytes)
    }

    #[must_use]
    pub const fn kib(count: u64) -> ByteCount {
        ByteCount(count << 10)
    }

    #[must_use]
    pub const fn mib(count: u64) -> ByteCount {
        ByteCount(count << 20)
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The count as an index; saturates where `usize` is narrower.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The count as MQTT's four-byte numbers; saturates. Ranges are checked when the configuration is loaded.
    #[must_use]
    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl FromStr for ByteCount {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ByteCount, &'static str> {
        let text = text.trim();
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text.strip_prefix(digits).unwrap_or_default().trim();
        let unit = if unit.is_empty() { "B" } else { unit };
        let factor = BYTE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(BYTES_ALLOWED)?.1;
        let count: u64 = digits.parse().map_err(|_| BYTES_ALLOWED)?;
        count.checked_mul(factor).map(ByteCount).ok_or(BYTES_ALLOWED)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |factor: u64| self.0 >= factor && self.0.is_multiple_of(factor);
        let (unit, factor) = BYTE_UNITS.into_iter().find(|(_, factor)| fits(*factor)).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A span of time: `"10s"`, `"500ms"`, `"1h30m"`. Whole milliseconds, at most ten years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(u64);

impl TimeSpan {
    pub const ZERO: TimeSpan = TimeSpan(0);

    #[must_use]
    pub const fn ms(count: u64) -> TimeSpan {
        TimeSpan(count)
    }

    #[must_use]
    pub const fn s(count: u64) -> TimeSpan {
        TimeSpan(count * 1000)
    }

    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// Whole seconds, rounded up, so that a short span never turns into 0, which often means "off".
    #[must_use]
    pub fn as_s(self) -> u32 {
        u32::try_from(self.0.div_ceil(1000)).unwrap_or(u32::MAX)
    }

    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The span, or `None` where 0 says "off".
    #[must_use]
    pub fn unless_zero(self) -> Option<Duration> {
        (self.0 > 0).then(|| self.duration())
    }
}

impl From<TimeSpan> for Duration {
    fn from(span: TimeSpan) -> Duration {
        span.duration()
    }
}

impl FromStr for TimeSpan {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<TimeSpan, &'static str> {
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(TimeSpan::ZERO);
        }
        let mut total_ms: u64 = 0;
        let mut part_before = u64::MAX;
        while !rest.is_empty() || part_before == u64::MAX {
            let after_digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let digits = rest.strip_suffix(after_digits).unwrap_or_default();
            let after_unit = after_digits.trim_start_matches(|c: char| c.is_ascii_alphabetic());
            let unit = after_digits.strip_suffix(after_unit).unwrap_or_default();
            let factor = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or(TIME_ALLOWED)?.1;
            // Larger units come first and none twice, so that a slip such as "1s1s" is not summed silently.
            if factor >= part_before {
                return Err(TIME_ALLOWED);
            }
            part_before = factor;
            let count: u64 = digits.parse().map_err(|_| TIME_ALLOWED)?;
            total_ms = count.checked_mul(factor).and_then(|ms| total_ms.checked_add(ms)).ok_or(TIME_ALLOWED)?;
            rest = after_unit;
        }
        if total_ms > TIME_MS_MAX {
            return Err("a span of time of at most ten years (3650d)");
        }
        Ok(TimeSpan(total_ms))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let (unit, factor) =
            TIME_UNITS.into_iter().find(|(_, factor)| self.0.is_multiple_of(*factor)).unwrap_or(("ms", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

struct ByteCountVisitor;

impl Visitor<'_> for ByteCountVisitor {
    type Value = ByteCount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(BYTES_ALLOWED)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<ByteCount, E> {
        Ok(ByteCount(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<ByteCount, E> {
        u64::try_from(value).map(ByteCount).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<ByteCount, E> {
        value.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
    }
}

struct TimeSpanVisitor;

impl Visitor<'_> for TimeSpanVisitor {
    type Value = TimeSpan;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TIME_ALLOWED)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<TimeSpan, E> {
        if value == 0 { Ok(TimeSpan::ZERO) } else { Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)) }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<TimeSpan, E> {
        if value == 0 { Ok(TimeSpan::ZERO) } else { Err(E::invalid_value(de::Unexpected::Signed(value), &self)) }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<TimeSpan, E> {
        value.parse().map_err(|allowed| E::invalid_value(de::Unexpected::Str(value), &allowed))
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteCount, D::Error> {
        deserializer.deserialize_any(ByteCountVisitor)
    }
}

impl Serialize for ByteCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteCount {
    fn schema_name() -> Cow<'static, str> {
        "ByteCount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": BYTES_ALLOWED,
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB|TiB)?$" },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TimeSpan, D::Error> {
        deserializer.deserialize_any(TimeSpanVisitor)
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for TimeSpan {
    fn schema_name() -> Cow<'static, str> {
        "TimeSpan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": TIME_ALLOWED,
            "type": "string",
            "pattern": "^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$",
        })
    }
}

/// Reads `"IP:port"` into a socket address, for fields marked `#[serde(deserialize_with = "units::address")]`.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    struct AddressVisitor;

    impl Visitor<'_> for AddressVisitor {
        type Value = SocketAddr;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an IP address and a port, as in \"0.0.0.0:1883\" or \"[::]:1883\"")
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<SocketAddr, E> {
            value.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
        }
    }

    deserializer.deserialize_str(AddressVisitor)
}

/// As [`address`], for a key that may be absent.
pub(super) fn optional_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Address(#[serde(deserialize_with = "address")] SocketAddr);

    Ok(Option::<Address>::deserialize(deserializer)?.map(|Address(address)| address))
}

/// What is wrong with `host:port` as an address that others dial; the host is a name, an IPv4 address, or an IPv6 address
/// in brackets.
///
/// # Errors
/// What is allowed.
pub fn check_host_port(text: &str) -> Result<(), &'static str> {
    const ALLOWED: &str = "a host and a port from 1 to 65535, as in \"fulmar-0.example:7400\" or \"[fd00::1]:7400\"";
    let (host, port) = text.rsplit_once(':').ok_or(ALLOWED)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| digits && *port > 0);
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let well = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        None => (1..=253).contains(&host.len()) && host.bytes().all(named),
    };
    (port.is_some() && well).then_some(()).ok_or(ALLOWED)
}

/// A value that must not be shown: `Debug` and serialising write a mark instead of it.
#[derive(Clone, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

/// What stands for a secret wherever it is shown.
pub const REDACTED: &str = "(redacted)";

impl Secret {
    #[must_use]
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The secret itself. Whoever calls this neither logs nor prints it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_parse_and_print() {
        for (text, bytes, printed) in [
            ("0", 0, "0B"),
            ("1000", 1000, "1000B"),
            ("64B", 64, "64B"),
            ("256KiB", 256 << 10, "256KiB"),
            ("1 MiB", 1 << 20, "1MiB"),
            ("1024KiB", 1 << 20, "1MiB"),
            ("3TiB", 3 << 40, "3TiB"),
        ] {
            let count: ByteCount = text.parse().unwrap();
            assert_eq!((count.get(), count.to_string().as_str()), (bytes, printed), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5MiB", "1KB", "1kib", "99999999TiB", "1 2", "é", "1é"] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }

    #[test]
    fn time_spans_parse_and_print() {
        for (text, ms, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("500ms", 500, "500ms"),
            ("10s", 10_000, "10s"),
            ("90s", 90_000, "90s"),
            ("1h30m", 5_400_000, "90m"),
            ("7d", 604_800_000, "7d"),
            ("1m500ms", 60_500, "60500ms"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!((span.as_ms(), span.to_string().as_str()), (ms, printed), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "1s1s", "1s1h", "1w", "99999d", "1é", "é"] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
        assert_eq!(TimeSpan::ms(1).as_s(), 1);
    }

    #[test]
    fn hosts_with_ports_are_told_from_others() {
        for text in ["a:1", "fulmar-0.fulmar.svc:7400", "10.0.0.1:65535", "[::1]:7400", "a_b:1"] {
            assert_eq!(check_host_port(text), Ok(()), "{text}");
        }
        for text in ["", "a", ":1", "a:", "a:0", "a:65536", "a:+1", "::1:7400", "[a]:1", "a b:1", "http://a:1", "é:1"]
        {
            assert!(check_host_port(text).is_err(), "{text}");
        }
    }
}
