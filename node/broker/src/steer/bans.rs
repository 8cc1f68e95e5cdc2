//! Who may not connect: by client id, by user name, or by address. A ban counts from when it is applied until its time is
//! over, whether or not somebody has taken it away by then.

use std::net::IpAddr;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::Event as Happened;
use crate::key::LogTime;

/// Bans at one time.
pub const BANS_MAX: usize = 10_000;

/// Bytes of a client id or user name that may be banned.
pub const NAME_BYTES_MAX: usize = 1024;

/// Bytes of a reason.
pub const REASON_BYTES_MAX: usize = 512;

/// Addresses with the same first bits; those after them are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// `bits`: 0 to 32, or to 128; `None` beyond. An IPv4 address that is written as IPv6 is taken as what it is.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Network> {
        let (address, bits) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), canonical @ IpAddr::V4(_)) => (canonical, bits.checked_sub(96)?),
            (_, canonical) => (canonical, bits),
        };
        (bits <= width(address)).then(|| Network { address: masked(address, bits), bits })
    }

    /// `192.0.2.1`, or `192.0.2.0/24`, or the same of IPv6.
    #[must_use]
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        };
        let address: IpAddr = address.parse().ok()?;
        Network::new(address, bits.unwrap_or(width(address)))
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.bits == width(self.address) {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.bits)
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first so many bits, and 0 after them.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

/// What is banned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// As a client sends it in CONNECT.
    ClientId(Box<str>),
    /// As a client sends it in CONNECT.
    UserName(Box<str>),
    Address(Network),
}

impl Target {
    /// What it names, without its kind.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Target::ClientId(name) | Target::UserName(name) => name.to_string(),
            Target::Address(network) => network.to_string(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Target::ClientId(name) | Target::UserName(name) => name.len(),
            Target::Address(_) => 18,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    pub target: Target,
    pub reason: Box<str>,
    /// Who has set it.
    pub by: Box<str>,
    pub since: LogTime,
    /// `None`: for ever.
    pub until: Option<LogTime>,
    /// A node has set it by itself.
    pub automatic: bool,
}

impl Ban {
    #[must_use]
    pub fn counts(&self, now: LogTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// What may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// In place of one of the same target. An automatic one leaves a ban that counts as it is.
    Set {
        target: Target,
        reason: Box<str>,
        by: Box<str>,
        until: Option<LogTime>,
        automatic: bool,
    },
    Lift {
        target: Target,
    },
    /// Its time is over, if it is.
    Expire {
        target: Target,
    },
}

impl Change {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Change::Set { target, reason, by, .. } => target.bytes() + reason.len() + by.len() + 48,
            Change::Lift { target } | Change::Expire { target } => target.bytes() + 32,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// There is no such ban.
    NoBan,
    /// See [`BANS_MAX`].
    NoRoom,
    /// An automatic one: the target is banned already.
    Before,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Set(Arc<Ban>),
    /// Taken away, or over.
    Lifted(Arc<Ban>),
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bans {
    all: RedBlackTreeMapSync<Target, Arc<Ban>>,

    // Derived.
    due: RedBlackTreeMapSync<(LogTime, Target), ()>,
    /// Networks by whether they are IPv4, and by their bits: few, so that an address is looked up once for each.
    widths: RedBlackTreeMapSync<(bool, u8), usize>,
}

impl Bans {
    pub(super) fn apply(&mut self, change: &Change, now: LogTime, events: &mut Vec<Happened>) -> Answer {
        match change {
            Change::Set { target, reason, by, until, automatic } => {
                let before = self.all.get(target);
                if *automatic && before.is_some_and(|ban| ban.counts(now)) {
                    return Answer::Before;
                }
                if before.is_none() && self.all.size() >= BANS_MAX {
                    return Answer::NoRoom;
                }
                self.remove(target);
                let ban = Arc::new(Ban {
                    target: target.clone(),
                    reason: reason.clone(),
                    by: by.clone(),
                    since: now,
                    until: *until,
                    automatic: *automatic,
                });
                self.add(Arc::clone(&ban));
                events.push(Happened::Ban(Event::Set(ban)));
                Answer::Done
            }
            Change::Lift { target } => self.end(target, events),
            Change::Expire { target } => match self.all.get(target) {
                Some(ban) if !ban.counts(now) => self.end(target, events),
                Some(_) => Answer::Done,
                None => Answer::NoBan,
            },
        }
    }

    fn end(&mut self, target: &Target, events: &mut Vec<Happened>) -> Answer {
        let Some(ban) = self.remove(target) else { return Answer::NoBan };
        events.push(Happened::Ban(Event::Lifted(ban)));
        Answer::Done
    }

    fn add(&mut self, ban: Arc<Ban>) {
        if let Some(until) = ban.until {
            self.due.insert_mut((until, ban.target.clone()), ());
        }
        if let Target::Address(network) = &ban.target {
            let width = (network.address.is_ipv4(), network.bits);
            let count = self.widths.get(&width).copied().unwrap_or(0);
            self.widths.insert_mut(width, count + 1);
        }
        self.all.insert_mut(ban.target.clone(), ban);
    }

    fn remove(&mut self, target: &Target) -> Option<Arc<Ban>> {
        let ban = self.all.get(target).cloned()?;
        self.all.remove_mut(target);
        if let Some(until) = ban.until {
            self.due.remove_mut(&(until, target.clone()));
        }
        if let Target::Address(network) = target {
            let width = (network.address.is_ipv4(), network.bits);
            match self.widths.get(&width).copied() {
                Some(count) if count > 1 => {
                    self.widths.insert_mut(width, count - 1);
                }
                _ => {
                    self.widths.remove_mut(&width);
                }
            }
        }
        Some(ban)
    }

    // -- what others may ask

    /// The ban of a target, also one whose time is over.
    #[must_use]
    pub fn get(&self, target: &Target) -> Option<&Arc<Ban>> {
        self.all.get(target)
    }

    /// The ban that keeps an address out at this time.
    #[must_use]
    pub fn of_address(&self, address: IpAddr, now: LogTime) -> Option<&Arc<Ban>> {
        let address = address.to_canonical();
        let widths = self.widths.keys().filter(|(v4, _)| *v4 == address.is_ipv4());
        let networks = widths.map(|(_, bits)| Network { address: masked(address, *bits), bits: *bits });
        networks.filter_map(|network| self.all.get(&Target::Address(network))).find(|ban| ban.counts(now))
    }

    /// The ban that keeps a client out at this time: by its id, its user name or its address.
    #[must_use]
    pub fn of_client(
        &self,
        client_id: &str,
        user_name: Option<&str>,
        address: IpAddr,
        now: LogTime,
    ) -> Option<&Arc<Ban>> {
        if self.all.is_empty() {
            return None;
        }
        let counts = |target: &Target| self.all.get(target).filter(|ban| ban.counts(now));
        counts(&Target::ClientId(client_id.into()))
            .or_else(|| user_name.and_then(|name| counts(&Target::UserName(name.into()))))
            .or_else(|| self.of_address(address, now))
    }

    /// All of them, by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Ban>> {
        self.all.values()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.all.size()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn due(&self, now: LogTime) -> impl Iterator<Item = Change> {
        let late = self.due.keys().take_while(move |(at, _)| *at <= now);
        late.map(|(_, target)| Change::Expire { target: target.clone() })
    }

    pub(super) fn next_due(&self) -> Option<LogTime> {
        self.due.first().map(|((at, _), ())| *at)
    }

    pub(super) fn restore(&mut self, ban: Ban) -> Result<(), (&'static str, String)> {
        if self.all.last().is_some_and(|(last, _)| *last >= ban.target) {
            return Err(("target", format!("{} is not in order", ban.target.text())));
        }
        if self.all.size() >= BANS_MAX {
            return Err(("target", format!("is one more than {BANS_MAX}")));
        }
        self.add(Arc::new(ban));
        Ok(())
    }
}
