//! A step of a walk: passes the entries that may match, and seeks over those that cannot.

use std::ops::Bound;
use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::TopicFilter;
use smallvec::SmallVec;

use super::order::{Place, Text, behind, compare};
use super::{Publication, Retained};

/// Entries that are passed one by one before a seek: it costs about as much.
pub(super) const PASSED_BEFORE_SEEK: usize = 8;

/// A filter taken apart.
pub(super) struct Pattern<'a> {
    levels: SmallVec<[&'a str; 16]>,
}

/// What an entry tells about the way on.
enum Then {
    Next,
    /// Nothing before this text matches.
    Seek(String),
    /// Nothing behind matches.
    End,
}

impl<'a> Pattern<'a> {
    pub(super) fn of(filter: &'a TopicFilter) -> Pattern<'a> {
        Pattern { levels: filter.levels().collect() }
    }

    pub(super) fn wild(&self) -> bool {
        self.levels.iter().any(|level| is_wildcard(level))
    }

    /// Appends the levels from `first` on, up to a wildcard.
    pub(super) fn literals(&self, first: usize, mut text: String) -> String {
        for (count, level) in self.levels.iter().skip(first).take_while(|level| !is_wildcard(level)).enumerate() {
            if count > 0 {
                text.push('/');
            }
            text.push_str(level);
        }
        text
    }

    /// Whether a topic matches, and where the next one that may match can be.
    fn judge(&self, topic: &str) -> (bool, Then) {
        if topic.starts_with('$') && self.levels.first().is_some_and(|level| is_wildcard(level)) {
            return (false, Then::Seek("%".into())); // [v5 MQTT-4.7.2-1]; '%' follows '$'
        }
        let head = |bytes: usize| topic.get(..bytes).unwrap_or(topic);
        let mut levels = topic.split('/');
        let mut start = 0; // byte where the level begins
        let mut plus = None; // the deepest `+` is where another topic may match: the byte where its level ends
        let behind_plus = |plus: Option<usize>| plus.map_or(Then::End, |end| Then::Seek(behind(head(end))));
        for (depth, want) in self.levels.iter().enumerate() {
            if *want == "#" {
                return (true, Then::Next);
            }
            match levels.next() {
                None => return (false, Then::Next), // what may match is below
                Some(have) if *want == "+" => {
                    plus = Some(start + have.len());
                    start += have.len() + 1;
                }
                Some(have) if have == *want => start += have.len() + 1,
                Some(have) if have < *want => {
                    return (false, Then::Seek(self.literals(depth, head(start).to_owned())));
                }
                Some(_) => return (false, behind_plus(plus)),
            }
        }
        (levels.next().is_none(), behind_plus(plus))
    }
}

fn is_wildcard(level: &str) -> bool {
    matches!(level, "+" | "#")
}

/// One step in the making.
pub(super) struct Walk<'a> {
    retained: &'a Retained,
    pattern: Pattern<'a>,
    steps_left: usize,
    found: Vec<Arc<Publication>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(retained: &'a Retained, pattern: Pattern<'a>, steps_max: usize) -> Walk<'a> {
        Walk { retained, pattern, steps_left: steps_max, found: Vec::new() }
    }

    /// Looks at entries from a place on; returns what matches, and where to go on if there is more to look at.
    pub(super) fn from(mut self, mut place: ByteString) -> (Vec<Arc<Publication>>, Option<ByteString>) {
        loop {
            match self.run(&place) {
                Some(to) if self.steps_left > 0 => place = to,
                rest => return (self.found, rest),
            }
        }
    }

    /// Looks at neighbours, until a seek is cheaper, the steps are used up (`Some`) or nothing is left (`None`).
    fn run(&mut self, from: &ByteString) -> Option<ByteString> {
        let start: &dyn Place = &Text(from);
        let range = (Bound::Included(start), Bound::<&dyn Place>::Unbounded);
        let mut seek: Option<(String, usize)> = None; // where to, and how many entries were passed on the way
        for (held, ()) in self.retained.map.range::<dyn Place, _>(range) {
            if self.steps_left == 0 {
                return Some(seek.map_or_else(|| held.text().into(), |(to, _)| to.into()));
            }
            self.steps_left -= 1;
            if let Some((to, passed)) = &mut seek
                && compare(held.text(), to).is_lt()
            {
                *passed += 1;
                if *passed < PASSED_BEFORE_SEEK {
                    continue;
                }
                return seek.map(|(to, _)| to.into());
            }
            let (matches, then) = self.pattern.judge(held.text());
            if matches {
                self.found.push(Arc::clone(&held.0));
            }
            seek = match then {
                Then::Next => None,
                Then::Seek(to) => {
                    debug_assert!(compare(held.text(), &to).is_lt(), "a walk goes forward");
                    Some((to, 0))
                }
                Then::End => return None,
            };
        }
        None
    }
}
