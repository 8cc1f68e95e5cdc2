//! Which reason code which packet may carry [v5 2.4], as sets of bytes.

use crate::codec::{DecodeError, EncodeError};
use crate::reason::ReasonCode;

/// A set of reason codes: bits 0 to 63 are the codes 0x00 to 0x3F, bits 64 to 127 the codes 0x80 to 0xBF.
pub(super) type Set = u128;

const fn bit(code: u8) -> Set {
    1 << (code & 0x3F | (code & 0x80) >> 1)
}

const fn set(codes: &[u8]) -> Set {
    let mut set = 0;
    let mut at = 0;
    while at < codes.len() {
        set |= bit(codes[at]);
        at += 1;
    }
    set
}

pub(super) const CONNACK: Set = set(&[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B,
    0x9C, 0x9D, 0x9F,
]);
/// PUBACK and PUBREC.
pub(super) const PUBACK: Set = set(&[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
/// PUBREL and PUBCOMP.
pub(super) const PUBREL: Set = set(&[0x00, 0x92]);
pub(super) const SUBACK: Set = set(&[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]);
pub(super) const UNSUBACK: Set = set(&[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]);
pub(super) const DISCONNECT_FROM_CLIENT: Set =
    set(&[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99]);
pub(super) const DISCONNECT_FROM_SERVER: Set = set(&[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98,
    0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
]);
pub(super) const AUTH_FROM_CLIENT: Set = set(&[0x18, 0x19]);
pub(super) const AUTH_FROM_SERVER: Set = set(&[0x00, 0x18]);

/// The reason of a byte, if the packet may carry it: malformed where the standard defines none, a protocol error where
/// it is another packet's.
pub(super) fn reason(byte: u8, allowed: Set) -> Result<ReasonCode, DecodeError> {
    let Some(reason) = ReasonCode::from_byte(byte) else {
        return Err(DecodeError::malformed("a reason code is not defined"));
    };
    if allowed & bit(byte) == 0 {
        return Err(DecodeError::protocol("a reason code that this packet may not carry"));
    }
    Ok(reason)
}

/// Checks that a packet may be written with this reason.
pub(super) fn check(reason: ReasonCode, allowed: Set) -> Result<(), EncodeError> {
    if allowed & bit(reason.byte()) == 0 {
        return Err(EncodeError("a reason code that this packet may not carry"));
    }
    Ok(())
}
