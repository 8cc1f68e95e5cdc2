//! Tables of bytes and verdicts. Bytes are hex, with three shorthands: `~` is the remaining length of all that follows,
//! `'text'` a string with its two length bytes, `[...]` properties with their length.

mod corpus;
mod framing;
mod round_trip;
mod topics;
mod v3;
mod v5;
mod v5_properties;
mod values;

use bytes::BytesMut;

use super::write::put_varint;
use super::{DecodeError, Decoder, Role, encode};
use crate::packet::{Decoded, Packet, Version};
use crate::reason::ReasonCode;

/// What a decoder must say.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expect {
    /// A packet that is encoded to the same bytes.
    Same,
    /// A packet.
    Accept,
    Refuse(ReasonCode),
    /// More bytes.
    More,
}

pub(super) const MALFORMED: Expect = Expect::Refuse(ReasonCode::MalformedPacket);
pub(super) const PROTOCOL: Expect = Expect::Refuse(ReasonCode::ProtocolError);
pub(super) const TOPIC: Expect = Expect::Refuse(ReasonCode::TopicNameInvalid);
pub(super) const FILTER: Expect = Expect::Refuse(ReasonCode::TopicFilterInvalid);
pub(super) const VERSION: Expect = Expect::Refuse(ReasonCode::UnsupportedProtocolVersion);
pub(super) const CLIENT_ID: Expect = Expect::Refuse(ReasonCode::ClientIdentifierNotValid);
pub(super) const TOO_LARGE: Expect = Expect::Refuse(ReasonCode::PacketTooLarge);

/// On what connection the bytes arrive.
#[derive(Debug, Clone, Copy)]
pub(super) enum On {
    /// A server's, on which nothing was read.
    Fresh,
    /// A client's, on which nothing was read.
    FreshClient(Version),
    /// A server's, after CONNECT.
    Server(Version),
    /// A client's, after CONNACK.
    Client(Version),
}

impl On {
    pub(super) fn decoder(self) -> Decoder {
        match self {
            On::Fresh => Decoder::new(Role::Server, u32::MAX),
            On::FreshClient(version) => {
                let mut decoder = Decoder::new(Role::Client, u32::MAX);
                decoder.set_version(version);
                decoder
            }
            On::Server(version) => Decoder::opened(Role::Server, version, u32::MAX),
            On::Client(version) => Decoder::opened(Role::Client, version, u32::MAX),
        }
    }
}

pub(super) type Row = (&'static str, On, &'static str, Expect);

/// Every table, for the corpus.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    [v3::ROWS, v5::ROWS, v5_properties::ROWS, framing::ROWS].into_iter().flatten()
}

/// The bytes of a row.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let mut chars = text.chars();
    let out = sequence(&mut chars, None);
    assert!(chars.next().is_none(), "brackets match in {text}");
    out
}

fn sequence(chars: &mut std::str::Chars<'_>, end: Option<char>) -> Vec<u8> {
    let mut out = Vec::new();
    let prefixed = |content: Vec<u8>| {
        let mut length = BytesMut::new();
        put_varint(&mut length, content.len() as u32);
        [length.to_vec(), content].concat()
    };
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\n' => {}
            '~' => {
                out.extend(prefixed(sequence(chars, end)));
                return out;
            }
            '[' => out.extend(prefixed(sequence(chars, Some(']')))),
            '\'' => {
                let text: String = chars.by_ref().take_while(|char| *char != '\'').collect();
                out.extend((text.len() as u16).to_be_bytes());
                out.extend(text.bytes());
            }
            char if Some(char) == end => return out,
            high => {
                let low = chars.next().and_then(|low| low.to_digit(16)).expect("two hex digits");
                out.push((high.to_digit(16).expect("a hex digit") * 16 + low) as u8);
            }
        }
    }
    out
}

/// Feeds one packet, whole and byte by byte, which must not differ.
pub(super) fn decode(on: On, bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    let unwrap = |decoded: Option<Decoded>| {
        decoded.map(|decoded| match decoded {
            Decoded::Packet(packet) => packet,
            Decoded::Skipped(skipped) => panic!("{skipped:?} is no packet"),
        })
    };
    let mut buffer = BytesMut::from(bytes);
    let whole = on.decoder().decode(&mut buffer).map(unwrap);
    let mut decoder = on.decoder();
    let mut buffer = BytesMut::new();
    let mut slow = Ok(None);
    for byte in bytes {
        buffer.extend_from_slice(&[*byte]);
        slow = decoder.decode(&mut buffer).map(unwrap);
        if !matches!(slow, Ok(None)) {
            break;
        }
    }
    assert_eq!(whole, slow, "chunks make no difference");
    whole
}

/// Checks a table and reports every row that fails, not only the first.
pub(super) fn check(rows: &[Row]) {
    let mut failed = Vec::new();
    for (name, on, text, expect) in rows {
        let bytes = bytes(text);
        let found = decode(*on, &bytes);
        let good = match (expect, &found) {
            (Expect::Accept, Ok(Some(_))) | (Expect::More, Ok(None)) => true,
            (Expect::Refuse(reason), Err(error)) => *reason == error.reason,
            (Expect::Same, Ok(Some(packet))) => {
                let version = match on {
                    On::Fresh => match packet {
                        Packet::Connect(connect) => connect.version,
                        _ => panic!("only CONNECT opens a connection"),
                    },
                    On::FreshClient(version) | On::Server(version) | On::Client(version) => *version,
                };
                let mut out = BytesMut::new();
                let result = encode(packet, version, &mut out);
                if result.is_err() || out != bytes {
                    failed.push(format!("{name}: encoded {result:?} {out:02x?}"));
                }
                true
            }
            _ => false,
        };
        if !good {
            failed.push(format!("{name}: {text}\n    wanted {expect:?}, found {found:?}"));
        }
    }
    assert!(failed.is_empty(), "{} of {} rows:\n{}", failed.len(), rows.len(), failed.join("\n"));
}
