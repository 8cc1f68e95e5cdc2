//! Topic names and topic filters [v5 4.7], [v3.1.1 4.7], as types that cannot hold an ill-formed one.

use bytes::Bytes;
use bytestring::ByteString;
use thiserror::Error;

use crate::limits::FIELD_BYTES_MAX;

/// Why text is not a topic name or filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TopicError {
    #[error("is not UTF-8")]
    NotUtf8,
    #[error("is empty")]
    Empty,
    #[error("is longer than 65535 bytes")]
    TooLong,
    #[error("contains U+0000")]
    Nul,
    #[error("contains a wildcard, which a topic name may not")]
    Wildcard,
    #[error("has a '#' that is not alone in the last level")]
    MultiLevel,
    #[error("has a '+' that is not alone in its level")]
    SingleLevel,
    #[error("has a share name that is empty or contains a wildcard, or shares no filter")]
    Share,
}

/// A topic name: 1..=65,535 bytes of UTF-8, no U+0000, no wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(ByteString);

/// A topic filter: as a topic name, with `+` and `#` where they may stand. `$share/{name}/{filter}` is one too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(ByteString);

fn common(bytes: &[u8]) -> Result<(), TopicError> {
    match bytes.len() {
        0 => Err(TopicError::Empty),
        1..=65_535 if bytes.contains(&0) => Err(TopicError::Nul),
        1..=65_535 => Ok(()),
        _ => Err(TopicError::TooLong),
    }
}

/// Checks the form of a topic name that is known to be UTF-8. Looks at every byte in one pass without branches, which
/// the compiler turns into vector code: this runs twice per message.
#[inline]
pub(crate) fn is_topic_name(bytes: &[u8]) -> Result<(), TopicError> {
    let bad = bytes.iter().fold(false, |bad, byte| bad | (*byte == 0) | (*byte == b'+') | (*byte == b'#'));
    if bytes.is_empty() || bytes.len() > FIELD_BYTES_MAX || bad {
        common(bytes)?;
        return Err(TopicError::Wildcard);
    }
    Ok(())
}

impl TopicName {
    /// Checks UTF-8 and form; keeps the bytes as they are.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_bytes(bytes: Bytes) -> Result<TopicName, TopicError> {
        let text = ByteString::try_from(bytes).map_err(|_| TopicError::NotUtf8)?;
        TopicName::new(text)
    }

    /// Checks the form [v5 MQTT-3.3.2-2].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: impl Into<ByteString>) -> Result<TopicName, TopicError> {
        let text = text.into();
        is_topic_name(text.as_bytes())?;
        Ok(TopicName(text))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels between the slashes; at least one, any may be empty.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// How many levels there are.
    #[must_use]
    pub fn level_count(&self) -> usize {
        self.0.bytes().filter(|byte| *byte == b'/').count() + 1
    }

    /// A copy that owns its bytes and pins no read buffer.
    #[must_use]
    pub fn detached(&self) -> TopicName {
        TopicName(ByteString::from(self.as_str()))
    }
}

impl TopicFilter {
    /// Checks UTF-8 and form; keeps the bytes as they are.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_bytes(bytes: Bytes) -> Result<TopicFilter, TopicError> {
        let text = ByteString::try_from(bytes).map_err(|_| TopicError::NotUtf8)?;
        TopicFilter::new(text)
    }

    /// Checks the form: wildcards [v5 MQTT-4.7.1-1], [v5 MQTT-4.7.1-2], share names [v5 MQTT-4.8.2-1].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: impl Into<ByteString>) -> Result<TopicFilter, TopicError> {
        let text = text.into();
        common(text.as_bytes())?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level.len() > 1 || levels.peek().is_some()) {
                return Err(TopicError::MultiLevel);
            }
            if level.contains('+') && level.len() > 1 {
                return Err(TopicError::SingleLevel);
            }
        }
        let filter = TopicFilter(text);
        if filter.as_str().starts_with("$share/") || filter.as_str() == "$share" {
            match filter.shared() {
                Some((name, inner))
                    if !name.is_empty() && !inner.is_empty() && !name.bytes().any(|b| b == b'+' || b == b'#') => {}
                _ => return Err(TopicError::Share),
            }
        }
        Ok(filter)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Share name and the filter that is shared, if this is a shared subscription [v5 4.8.2].
    #[must_use]
    pub fn shared(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix("$share/").and_then(|rest| rest.split_once('/'))
    }

    /// The levels that are matched: those of the shared filter where this is a shared subscription.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.shared().map_or(self.as_str(), |(_, filter)| filter).split('/')
    }

    /// How many levels are matched.
    #[must_use]
    pub fn level_count(&self) -> usize {
        self.levels().count()
    }

    /// Whether a topic name matches, with the `$` rule [v5 MQTT-4.7.2-1]. The reference that faster structures are
    /// tested against.
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        let mut filter = self.levels().peekable();
        if topic.as_str().starts_with('$') && matches!(filter.peek(), Some(&("+" | "#"))) {
            return false;
        }
        let mut levels = topic.levels();
        loop {
            match (filter.next(), levels.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(want), Some(have)) if want == have => {}
                _ => return false,
            }
        }
    }

    /// A copy that owns its bytes and pins no read buffer.
    #[must_use]
    pub fn detached(&self) -> TopicFilter {
        TopicFilter(ByteString::from(self.as_str()))
    }
}

impl std::fmt::Display for TopicName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
