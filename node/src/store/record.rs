//! How entries and metadata look in the ordered store.
//!
//! An entry is one value, or several where its body is long: `key = index, part`, `value = version, CRC-32 of the key and
//! of all that follows it, term, leader, part, parts, slice of the body`. All integers are big-endian, so keys sort by
//! index. Metadata is one value under a key of its own.

use bytes::Bytes;

/// Where an entry stands in the log, and who proposed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub term: u64,
    pub leader: u64,
    pub index: u64,
}

/// One entry of the log. What its body says is not the store's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub position: Position,
    pub body: Bytes,
}

/// Whom this node has voted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    pub term: u64,
    pub node: u64,
    /// A quorum has granted it: that node leads.
    pub committed: bool,
}

/// What the log keeps beside its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// The cluster that the entries belong to, once there is one.
    pub cluster: Option<u64>,
    /// The node that wrote them; 0 before it is known.
    pub node: u64,
    /// Starts of this node.
    pub generation: u64,
    /// The last entry that was known to be committed.
    pub committed: Option<Position>,
}

/// Why a value is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flaw {
    Damaged(&'static str),
    Newer(u8),
}

pub(super) const VERSION: u8 = 1;

/// Indexes stay below it.
pub(super) const INDEX_END: u64 = 1 << 62;

/// A part's bytes besides its slice of the body.
const HEAD_BYTES: usize = 1 + 4 + 8 + 8 + 2 + 2;

pub(super) type Key = [u8; 10];

/// The key of a part. Part 0 sorts before all of an entry.
pub(super) fn key(index: u64, part: u16) -> Key {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&index.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

/// The index in a key; `None` if it is no entry's key.
pub(super) fn index_of(key: &[u8]) -> Option<u64> {
    (key.len() == 10).then(|| key.first_chunk().map(|index| u64::from_be_bytes(*index))).flatten()
}

/// An entry as the values it is stored in, each with at most `part_bytes` (> 0) of the body. `None` if it would take more
/// than 65,535 of them.
pub(super) fn encode(record: &Record, part_bytes: usize) -> Option<Vec<(Key, Vec<u8>)>> {
    let Position { term, leader, index } = record.position;
    let parts = u16::try_from(record.body.len().div_ceil(part_bytes).max(1)).ok()?;
    let mut slices = record.body.chunks(part_bytes);
    let encoded = (0..parts).map(|part| {
        let slice = slices.next().unwrap_or_default();
        let key = key(index, part);
        let mut rest = Vec::with_capacity(HEAD_BYTES + slice.len());
        rest.extend_from_slice(&term.to_be_bytes());
        rest.extend_from_slice(&leader.to_be_bytes());
        rest.extend_from_slice(&part.to_be_bytes());
        rest.extend_from_slice(&parts.to_be_bytes());
        rest.extend_from_slice(slice);
        (key, sealed(&key, &rest))
    });
    Some(encoded.collect())
}

/// `version, CRC-32, rest`.
fn sealed(key: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(5 + rest.len());
    value.push(VERSION);
    value.extend_from_slice(&checksum(key, VERSION, rest).to_be_bytes());
    value.extend_from_slice(rest);
    value
}

fn checksum(key: &[u8], version: u8, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[version]);
    hasher.update(rest);
    hasher.finalize()
}

/// What follows the checksum, if it is right. Later versions keep version and checksum where they are.
fn opened<'v>(key: &[u8], value: &'v [u8]) -> Result<&'v [u8], Flaw> {
    let ([version, crc @ ..], rest) = value.split_first_chunk::<5>().ok_or(Flaw::Damaged("a value is cut short"))?;
    if u32::from_be_bytes(*crc) != checksum(key, *version, rest) {
        return Err(Flaw::Damaged("a checksum is wrong"));
    }
    if *version > VERSION { Err(Flaw::Newer(*version)) } else { Ok(rest) }
}

/// The parts of one entry, as they are read.
#[derive(Debug)]
pub(super) struct Parts {
    index: u64,
    position: Option<Position>,
    /// How many there are, by the first one's word.
    parts: u16,
    seen: u16,
    body: Vec<u8>,
    flaw: Option<Flaw>,
}

impl Parts {
    pub(super) fn of(index: u64) -> Self {
        Parts { index, position: None, parts: 0, seen: 0, body: Vec::new(), flaw: None }
    }

    pub(super) fn index(&self) -> u64 {
        self.index
    }

    /// Takes the next part. Keys come in order.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        if let Err(flaw) = self.add(key, value) {
            self.flaw.get_or_insert(flaw);
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Flaw> {
        let mut rest = Reader(opened(key, value)?);
        let (term, leader) = (rest.u64()?, rest.u64()?);
        let (part, parts) = (rest.u16()?, rest.u16()?);
        let position = Position { term, leader, index: self.index };
        if key != self::key(self.index, part) {
            return Err(Flaw::Damaged("a part is not under its key"));
        }
        if part != self.seen {
            return Err(Flaw::Damaged("a part is missing"));
        }
        if part == 0 {
            self.position = Some(position);
            self.parts = parts;
        } else if self.position != Some(position) || self.parts != parts {
            return Err(Flaw::Damaged("its parts do not belong together"));
        }
        self.seen += 1;
        self.body.extend_from_slice(rest.0);
        Ok(())
    }

    /// The entry, if all of it was there.
    pub(super) fn finish(self) -> Result<Record, Flaw> {
        match (self.flaw, self.position) {
            (Some(flaw), _) => Err(flaw),
            (None, Some(position)) if self.seen == self.parts => Ok(Record { position, body: self.body.into() }),
            _ => Err(Flaw::Damaged("a part is missing")),
        }
    }
}

/// The metadata record. Its counter rises with every change, so that an old one is known for what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MetaRecord {
    pub(super) counter: u64,
    pub(super) vote: Option<Vote>,
    pub(super) meta: Meta,
}

pub(super) const META_KEY: &[u8] = b"meta";

impl MetaRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(96);
        put_u64(&mut rest, self.counter);
        put_option(&mut rest, self.vote.is_some());
        let vote = self.vote.unwrap_or(Vote { term: 0, node: 0, committed: false });
        put_u64(&mut rest, vote.term);
        put_u64(&mut rest, vote.node);
        put_option(&mut rest, vote.committed);
        put_option(&mut rest, self.meta.cluster.is_some());
        put_u64(&mut rest, self.meta.cluster.unwrap_or_default());
        put_u64(&mut rest, self.meta.node);
        put_u64(&mut rest, self.meta.generation);
        put_position(&mut rest, self.meta.committed);
        sealed(META_KEY, &rest)
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Flaw> {
        let mut rest = Reader(opened(META_KEY, value)?);
        let counter = rest.u64()?;
        let voted = rest.option()?;
        let vote = Vote { term: rest.u64()?, node: rest.u64()?, committed: rest.option()? };
        let clustered = rest.option()?;
        let cluster = rest.u64()?;
        let meta = Meta {
            cluster: clustered.then_some(cluster),
            node: rest.u64()?,
            generation: rest.u64()?,
            committed: rest.position()?,
        };
        Ok(MetaRecord { counter, vote: voted.then_some(vote), meta })
    }
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_option(out: &mut Vec<u8>, present: bool) {
    out.push(u8::from(present));
}

/// Absent ones take the same room.
pub(super) fn put_position(out: &mut Vec<u8>, position: Option<Position>) {
    put_option(out, position.is_some());
    let Position { term, leader, index } = position.unwrap_or(Position { term: 0, leader: 0, index: 0 });
    put_u64(out, term);
    put_u64(out, leader);
    put_u64(out, index);
}

/// Reads what the functions above put.
pub(super) struct Reader<'v>(pub(super) &'v [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Flaw::Damaged("a value is cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Flaw> {
        self.take().map(u64::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Flaw> {
        self.take().map(u16::from_be_bytes)
    }

    fn option(&mut self) -> Result<bool, Flaw> {
        self.take().map(|[flag]| flag != 0)
    }

    pub(super) fn position(&mut self) -> Result<Option<Position>, Flaw> {
        let present = self.option()?;
        let position = Position { term: self.u64()?, leader: self.u64()?, index: self.u64()? };
        Ok(present.then_some(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { term: 7, leader: 3, index: 260 };

    fn record(length: usize) -> Record {
        Record { position: AT, body: (0..length).map(|i| i as u8).collect() }
    }

    fn gather(parts: &[(Key, Vec<u8>)]) -> Result<Record, Flaw> {
        let mut gathered = Parts::of(AT.index);
        parts.iter().for_each(|(key, value)| gathered.push(key, value));
        gathered.finish()
    }

    #[test]
    fn an_entry_is_as_many_parts_as_it_needs() {
        for (length, parts) in [(0, 1), (1, 1), (100, 1), (101, 2), (1_000, 10)] {
            let encoded = encode(&record(length), 100).unwrap();
            assert_eq!(encoded.len(), parts, "{length}");
            assert_eq!(gather(&encoded), Ok(record(length)));
            assert!(encoded.iter().all(|(key, _)| index_of(key) == Some(AT.index)));
        }
        assert!(encode(&record(65_536), 1).is_none());
    }

    #[test]
    fn parts_that_do_not_belong_together_are_damage() {
        let parts = encode(&record(300), 100).unwrap();
        let other = Record { position: Position { term: 8, ..AT }, ..record(300) };
        let other = encode(&other, 100).unwrap();
        let cases: [&[(Key, Vec<u8>)]; 7] = [
            &[],
            &parts[..2],
            &parts[1..],
            &[parts[0].clone(), parts[2].clone()],
            &[parts[0].clone(), other[1].clone(), parts[2].clone()],
            &[parts[0].clone(), (parts[1].0, parts[2].1.clone()), parts[2].clone()],
            &encode(&Record { position: Position { index: 261, ..AT }, ..record(3) }, 100).unwrap(),
        ];
        for case in cases {
            assert!(matches!(gather(case), Err(Flaw::Damaged(_))), "{case:?}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let (key, mut value) = encode(&record(10), 100).unwrap().remove(0);
        value[0] = VERSION + 1;
        assert_eq!(gather(&[(key, value.clone())]), Err(Flaw::Damaged("a checksum is wrong")));
        let crc = checksum(&key, VERSION + 1, &value[5..]);
        value[1..5].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(gather(&[(key, value)]), Err(Flaw::Newer(VERSION + 1)));
    }

    #[test]
    fn a_flipped_bit_is_found() {
        for length in [0, 1, 30, 250] {
            let parts = encode(&record(length), 100).unwrap();
            for bit in 0..parts[0].1.len() * 8 {
                let mut flipped = parts.clone();
                flipped[0].1[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(gather(&flipped), Err(Flaw::Damaged("a checksum is wrong")), "{length}, bit {bit}");
            }
        }
    }

    #[test]
    fn metadata_is_read_back() {
        let vote = Some(Vote { term: 1, node: u64::MAX, committed: true });
        let meta = Meta { cluster: Some(3), node: 4, generation: 5, committed: Some(AT) };
        for record in [
            MetaRecord::default(),
            MetaRecord { counter: 1, vote, meta: Meta::default() },
            MetaRecord { counter: u64::MAX, vote: None, meta },
            MetaRecord { counter: 2, vote, meta: Meta { committed: None, ..meta } },
        ] {
            assert_eq!(MetaRecord::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn metadata_that_is_not_whole_is_damage() {
        let whole = MetaRecord { counter: 9, ..MetaRecord::default() }.encode();
        for length in 0..whole.len() {
            assert!(matches!(MetaRecord::decode(&whole[..length]), Err(Flaw::Damaged(_))), "{length}");
        }
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 0x10;
            assert!(matches!(MetaRecord::decode(&flipped), Err(Flaw::Damaged(_))), "{byte}");
        }
    }
}
