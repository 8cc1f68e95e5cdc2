//! The header of the PROXY protocol, versions 1 and 2, as its specification has it (HAProxy's `proxy-protocol.txt`). Pure:
//! it is given what has come so far, and says whether that is a header, and whose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a header of either version. The specification bounds version 1 by 107 bytes, and version 2 by 65,551, which
/// no balancer comes near: addresses take 36 bytes, and what else is said of a connection a few hundred.
pub(super) const HEADER_BYTES_MAX: usize = 4096;

const V1_SIGNATURE: &[u8] = b"PROXY";
/// Bytes of a line, its end included.
const V1_BYTES_MAX: usize = 107;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, and the length of what follows.
const V2_FIXED_BYTES: usize = 16;

const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const CRC32C: u8 = 3;

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The beginning of a header, perhaps; nothing yet is one, too.
    Part,
    /// No header, whatever comes.
    Nothing,
    Header {
        /// Bytes of it, up to [`HEADER_BYTES_MAX`].
        len: usize,
        /// The client; `None` where the balancer connects for itself, or cannot say for whom.
        source: Option<SocketAddr>,
    },
}

/// It begins as a header does, and is none: what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

/// Looks at the first bytes of a connection.
///
/// # Errors
/// They begin as a header does, and can become none.
pub(super) fn look(bytes: &[u8]) -> Result<Seen, Malformed> {
    if begins(bytes, V2_SIGNATURE) {
        return version_2(bytes);
    }
    if begins(bytes, V1_SIGNATURE) {
        return version_1(bytes);
    }
    Ok(Seen::Nothing)
}

/// Whether bytes begin with a signature, as far as they have come.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, wanted)| byte == wanted)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 56324 1883` and the end of the line.
fn version_1(bytes: &[u8]) -> Result<Seen, Malformed> {
    let whole = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = whole.windows(2).position(|pair| pair == b"\r\n") else {
        return if whole.len() == V1_BYTES_MAX { Err(Malformed("a line that does not end")) } else { Ok(Seen::Part) };
    };
    let line = whole.get(..end).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Malformed("a line that is no text"))?;
    let source = if line == "PROXY UNKNOWN" || line.starts_with("PROXY UNKNOWN ") {
        None
    } else {
        Some(line_source(line).ok_or(Malformed("a line that names no addresses"))?)
    };
    Ok(Seen::Header { len: end + 2, source })
}

fn line_source(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse().ok().map(IpAddr::V4),
            "TCP6" => text.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _destination) = (address(words.next()?)?, address(words.next()?)?);
    let (port, _port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| SocketAddr::new(source, port))
}

/// Decimal, without leading zeros or a sign.
fn port(text: &str) -> Option<u16> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    text.parse().ok().filter(|_| plain)
}

/// The fixed part, addresses by their family, and type-length-values, of which only a checksum is looked at.
fn version_2(bytes: &[u8]) -> Result<Seen, Malformed> {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED_BYTES>() else { return Ok(Seen::Part) };
    let [.., version_command, family_protocol, high, low] = *fixed;
    let (version, command) = (version_command >> 4, version_command & 0xf);
    if version != 2 || !matches!(command, LOCAL | PROXY) {
        return Err(Malformed("an unknown version or command"));
    }
    let len = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > HEADER_BYTES_MAX {
        return Err(Malformed("too many bytes"));
    }
    let Some(header) = bytes.get(..len) else { return Ok(Seen::Part) };
    // Of a connection for itself the balancer may say anything: its addresses are those of the socket.
    if command == LOCAL {
        return Ok(Seen::Header { len, source: None });
    }
    let (family, protocol) = (family_protocol >> 4, family_protocol & 0xf);
    if family > 3 || protocol > 2 {
        return Err(Malformed("an unknown address family or protocol"));
    }
    let block = header.get(V2_FIXED_BYTES..).unwrap_or_default();
    // Without a family or a protocol there are no addresses, and whoever sends some all the same says not how many.
    if family == 0 || protocol == 0 {
        return Ok(Seen::Header { len, source: None });
    }
    let addresses = [0, 12, 36, 216][usize::from(family)];
    let Some((addresses, values)) = block.split_at_checked(addresses) else {
        return Err(Malformed("fewer bytes than its addresses take"));
    };
    check_sum(header, values)?;
    // Datagrams and local sockets are none of ours.
    let source = match (addresses, protocol) {
        ([a, b, c, d, _, _, _, _, high, low, _, _], 1) => {
            Some(SocketAddr::from((Ipv4Addr::new(*a, *b, *c, *d), u16::from_be_bytes([*high, *low]))))
        }
        (addresses, 1) if family == 2 => ipv6_source(addresses),
        _ => None,
    };
    Ok(Seen::Header { len, source })
}

/// Source address, destination address, source port, destination port.
fn ipv6_source(addresses: &[u8]) -> Option<SocketAddr> {
    let source = Ipv6Addr::from(*addresses.first_chunk::<16>()?);
    let port = u16::from_be_bytes(*addresses.get(32..)?.first_chunk::<2>()?);
    Some(SocketAddr::from((source, port)))
}

/// Goes through type-length-values; if the checksum is among them, it must be that of the header with 0 in its place.
fn check_sum(header: &[u8], mut values: &[u8]) -> Result<(), Malformed> {
    const CUT: Malformed = Malformed("a value that is cut off");
    while !values.is_empty() {
        let ([kind, high, low], rest) = values.split_first_chunk::<3>().ok_or(CUT)?;
        let value_len = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(value_len).ok_or(CUT)?;
        if *kind == CRC32C {
            let told =
                value.try_into().map(u32::from_be_bytes).map_err(|_| Malformed("a checksum of a wrong length"))?;
            let after = rest.len();
            let before = header.get(..header.len() - after - value_len).unwrap_or_default();
            let all = before.iter().chain(&[0; 4]).chain(rest);
            if crc32c(all) != told {
                return Err(Malformed("a wrong checksum"));
            }
        }
        values = rest;
    }
    Ok(())
}

/// CRC-32 after Castagnoli [RFC 4960 appendix B], bit by bit: it is asked for once a connection, of few bytes.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

#[cfg(test)]
mod tests;
