//! The order of topics by levels: text order with `/` as the lowest character. A topic is followed by all that is
//! below it, then by its next sibling.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::publication::Publication;

/// The map's key: a message, ordered by its topic, which is not stored twice.
pub(super) struct Held(pub(super) Arc<Publication>);

/// A place in the map's order, whether or not a topic stands there.
pub(super) struct Text<'a>(pub(super) &'a str);

/// What keys and places are compared by.
pub(super) trait Place {
    fn text(&self) -> &str;
}

impl Place for Held {
    fn text(&self) -> &str {
        self.0.topic.as_str()
    }
}

impl Place for Text<'_> {
    fn text(&self) -> &str {
        self.0
    }
}

impl<'a> Borrow<dyn Place + 'a> for Held {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.text(), other.text())
    }
}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Place + '_ {}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> Ordering {
        compare(self.text(), other.text())
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held {}

/// Compares by levels.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (a_words, _) = a.as_bytes().as_chunks::<8>();
    let (b_words, _) = b.as_bytes().as_chunks::<8>();
    let equal = 8 * a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count();
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte }; // no topic has U+0000
    let (a_rest, b_rest) = (a.bytes().skip(equal), b.bytes().skip(equal));
    a_rest.map(|byte| rank(&byte)).cmp(b_rest.map(|byte| rank(&byte)))
}

/// The first place behind all that is below `parent`: U+0001 is the next after `/`.
pub(super) fn behind(parent: &str) -> String {
    let mut text = String::with_capacity(parent.len() + 1);
    text.push_str(parent);
    text.push('\u{1}');
    text
}
