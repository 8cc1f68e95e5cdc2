//! Ids of requests to devices. Whoever meets one in an answer knows by it who waits.

use fulmar_broker::{Generation, NodeId};

const GENERATION_BITS: u32 = 24;
const NUMBER_BITS: u32 = 40;

/// Of 64 bits there is room for this much of a run and all of the number.
const NODE_BITS_SHORT: u32 = 16;
const GENERATION_BITS_SHORT: u32 = 8;

const fn low(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The run that waits, and a number that it has given to nothing else: 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId {
    node: u64,
    /// Low bits of it.
    generation: u64,
    number: u64,
}

impl CallId {
    /// Of `number` only the low 40 bits count.
    #[must_use]
    pub fn new((node, generation): (NodeId, Generation), number: u64) -> CallId {
        let (generation, number) = (generation.0 & low(GENERATION_BITS), number & low(NUMBER_BITS));
        CallId { node: node.0, generation, number }
    }

    fn whole(self) -> u128 {
        (u128::from(self.node) << 64) | u128::from((self.generation << NUMBER_BITS) | self.number)
    }

    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.whole().to_be_bytes()
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> CallId {
        let [node @ .., _, _, _, _, _, _, _, _] = bytes;
        let [_, _, _, _, _, _, _, _, rest @ ..] = bytes;
        let rest = u64::from_be_bytes(rest);
        CallId { node: u64::from_be_bytes(node), generation: rest >> NUMBER_BITS, number: rest & low(NUMBER_BITS) }
    }

    /// In the form of a UUID: as Huawei's devices and the REST API have it.
    #[must_use]
    pub fn uuid(self) -> String {
        uuid::Uuid::from_u128(self.whole()).to_string()
    }

    /// In 64 bits: as Aliyun's and Tencent's devices have it, in decimal. Firmware reads it into an integer of that size.
    /// All of the number is in it, and enough of the run to tell it from others.
    #[must_use]
    pub fn short(self) -> u64 {
        let node = self.node & low(NODE_BITS_SHORT);
        let generation = self.generation & low(GENERATION_BITS_SHORT);
        (node << (GENERATION_BITS_SHORT + NUMBER_BITS)) | (generation << NUMBER_BITS) | self.number
    }
}

/// An id as it comes back in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Whole(CallId),
    Short(u64),
}

impl Named {
    /// `None`: it is none of ours.
    pub(super) fn parse(text: &str) -> Option<Named> {
        if let Ok(number) = text.parse() {
            return Some(Named::Short(number));
        }
        let uuid = uuid::Uuid::parse_str(text).ok()?;
        Some(Named::Whole(CallId::from_bytes(*uuid.as_bytes())))
    }

    pub(super) fn short(self) -> u64 {
        match self {
            Named::Whole(id) => id.short(),
            Named::Short(number) => number,
        }
    }

    pub(super) fn is(self, id: CallId) -> bool {
        match self {
            Named::Whole(named) => named == id,
            Named::Short(number) => number == id.short(),
        }
    }

    /// Whether a run may have given it.
    pub(super) fn may_be_of(self, run: (NodeId, Generation)) -> bool {
        let number = match self {
            Named::Whole(id) => id.number,
            Named::Short(number) => number,
        };
        self.is(CallId::new(run, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: (NodeId, Generation) = (NodeId(0x0123_4567_89ab_cdef), Generation(0x0102_0304));

    #[test]
    fn every_form_leads_back() {
        for number in [0, 1, 77, low(NUMBER_BITS), u64::MAX] {
            let id = CallId::new(RUN, number);
            assert_eq!(CallId::from_bytes(id.to_bytes()), id);
            for text in [id.uuid(), id.uuid().to_uppercase(), id.short().to_string()] {
                let named = Named::parse(&text).unwrap();
                assert!(named.is(id) && named.short() == id.short(), "{text}");
                assert!(named.may_be_of(RUN), "{text}");
                assert!(!named.may_be_of((RUN.0, Generation(5))), "{text}");
                assert!(!named.may_be_of((NodeId(RUN.0.0 + 1), RUN.1)), "{text}");
                assert!(!named.is(CallId::new(RUN, number.wrapping_add(1))), "{text}");
            }
        }
        let id = CallId::new(RUN, 77);
        assert_eq!(id.uuid(), "01234567-89ab-cdef-0203-04000000004d");
        assert_eq!(id.short(), 0xcdef_0400_0000_004d);
    }

    #[test]
    fn other_text_is_no_id() {
        for text in ["", "abc", "-1", "18446744073709551616", "1|exp-topic|/a", "01234567-89ab", " 1"] {
            assert_eq!(Named::parse(text), None, "{text:?}");
        }
    }
}
