//! Access rules: who may publish and subscribe where. The first rule that speaks about a request decides it.
//!
//! A subscribe asks for many topics at once, so two meanings of "speaks about" are needed, each the safe one: an allow
//! rule decides only if it covers the whole request, a deny rule as soon as it overlaps it. Hence a granted filter never
//! delivers a topic that the same rules, read topic by topic, would deny. `$share/group/filter` is judged by `filter`.
//!
//! Patterns may hold `%c` (client id) and `%u` (user name), substituted once at admission, and `%%` for a percent sign.
//! A value that would mean something to a filter (`+`, `#` or `/` in it, `$` at its start, nothing at all, or no user
//! name) is never substituted: an allow rule then allows nothing, a deny rule denies everything from that level on. So
//! nobody gains access by choosing a name.

use std::fmt;
use std::sync::Arc;

use fulmar_mqtt::{TopicFilter, TopicName};
use thiserror::Error;

use crate::filter::{covers, overlaps};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    Allow,
    Deny,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Publish,
    Subscribe,
    All,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Everyone,
    /// Clients that gave no user name.
    Anonymous,
    Users(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub who: Who,
    pub action: Action,
    pub access: Access,
    pub patterns: Vec<Pattern>,
}

/// A topic filter with placeholders.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    levels: Vec<Vec<Piece>>,
    /// The filter itself where there is nothing to substitute.
    constant: Option<TopicFilter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    ClientId,
    UserName,
}

/// Why text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    #[error("has a '%' that is neither %c (client id), %u (user name) nor %% (a percent sign)")]
    Placeholder,
    #[error("{0}")]
    Filter(#[from] fulmar_mqtt::topic::TopicError),
    #[error("is a shared subscription; those are judged by the filter that they share")]
    Shared,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        let levels = text.split('/').map(pieces).collect::<Result<Vec<_>, _>>()?;
        // Any harmless value shows whether the rest is well formed.
        let sample = join(&levels, |_| Some("x")).ok_or(PatternError::Placeholder)?;
        let sample = TopicFilter::new(sample)?;
        if sample.levels().next() != sample.as_str().split('/').next() {
            return Err(PatternError::Shared);
        }
        let constant = levels.iter().flatten().all(|piece| matches!(piece, Piece::Text(_))).then_some(sample);
        Ok(Pattern { text: text.into(), levels, constant })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The filter of one client; `None` for an allow rule that allows it nothing.
    fn substitute(&self, client_id: &str, user_name: Option<&str>, access: Access) -> Option<TopicFilter> {
        if let Some(filter) = &self.constant {
            return Some(filter.clone());
        }
        let value = |piece: &Piece| match piece {
            Piece::Text(_) => None,
            Piece::ClientId => Some(client_id),
            Piece::UserName => user_name,
        };
        let harmless = |piece: &Piece| value(piece).filter(|text| is_harmless(text));
        let text = match (join(&self.levels, harmless), access) {
            (Some(text), _) => text,
            (None, Access::Allow) => return None,
            (None, Access::Deny) => {
                let good = self.levels.chunks(1).take_while(|level| join(level, harmless).is_some()).count();
                let mut text = join(&self.levels[..good], harmless)?;
                if good > 0 {
                    text.push('/');
                }
                text + "#"
            }
        };
        match (TopicFilter::new(text), access) {
            (Ok(filter), _) => Some(filter),
            (Err(_), Access::Allow) => None,
            // Too long for a filter, hence for a topic; denied all the same.
            (Err(_), Access::Deny) => TopicFilter::new("#").ok(),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

fn is_harmless(value: &str) -> bool {
    !value.is_empty() && !value.starts_with('$') && !value.contains(['+', '#', '/', '\0'])
}

fn pieces(level: &str) -> Result<Vec<Piece>, PatternError> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut chars = level.chars();
    while let Some(char) = chars.next() {
        let piece = match char {
            '%' => match chars.next() {
                Some('c') => Piece::ClientId,
                Some('u') => Piece::UserName,
                Some('%') => {
                    text.push('%');
                    continue;
                }
                _ => return Err(PatternError::Placeholder),
            },
            _ => {
                text.push(char);
                continue;
            }
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(piece);
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

/// The text of the levels; `None` if a placeholder has no value.
fn join<'a>(levels: &'a [Vec<Piece>], value: impl Fn(&'a Piece) -> Option<&'a str>) -> Option<String> {
    let mut joined = String::new();
    for (index, level) in levels.iter().enumerate() {
        if index > 0 {
            joined.push('/');
        }
        for piece in level {
            match piece {
                Piece::Text(text) => joined.push_str(text),
                placeholder => joined.push_str(value(placeholder)?),
            }
        }
    }
    Some(joined)
}

/// What one client may do. A clone shares the rules.
#[derive(Debug, Clone)]
pub struct Permissions(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    rules: Box<[Compact]>,
    default: Access,
}

#[derive(Debug)]
struct Compact {
    action: Action,
    access: Access,
    filter: TopicFilter,
}

impl Permissions {
    /// The same for every client: `default`, and no rule.
    #[must_use]
    pub fn unruled(default: Access) -> Permissions {
        Permissions(Arc::new(Compiled { rules: Box::default(), default }))
    }

    /// The rules that are about this client, with its names substituted. `user_name` is `None` for anonymous clients.
    #[must_use]
    pub fn compile(rules: &[Rule], default: Access, client_id: &str, user_name: Option<&str>) -> Permissions {
        let about_client = |rule: &&Rule| match (&rule.who, user_name) {
            (Who::Everyone, _) | (Who::Anonymous, None) => true,
            (Who::Users(users), Some(name)) => users.iter().any(|user| user == name),
            _ => false,
        };
        let compact = |rule: &Rule, pattern: &Pattern| {
            let filter = pattern.substitute(client_id, user_name, rule.access)?;
            Some(Compact { action: rule.action, access: rule.access, filter })
        };
        let rules = rules.iter().filter(about_client);
        let rules = rules.flat_map(|rule| rule.patterns.iter().filter_map(move |pattern| compact(rule, pattern)));
        Permissions(Arc::new(Compiled { rules: rules.collect(), default }))
    }

    /// Whether a message may be published there. The default never reaches topics that start with `$`: those need a
    /// rule of their own.
    #[must_use]
    pub fn may_publish(&self, topic: &TopicName) -> bool {
        let about = |rule: &&Compact| rule.action != Action::Subscribe && rule.filter.matches(topic);
        let default = if topic.as_str().starts_with('$') { Access::Deny } else { self.0.default };
        self.0.rules.iter().find(about).map_or(default, |rule| rule.access) == Access::Allow
    }

    /// Whether the filter may be subscribed to, as a whole.
    #[must_use]
    pub fn may_subscribe(&self, requested: &TopicFilter) -> bool {
        let about = |rule: &&Compact| match (rule.action, rule.access) {
            (Action::Publish, _) => false,
            (_, Access::Allow) => covers(&rule.filter, requested),
            (_, Access::Deny) => overlaps(&rule.filter, requested),
        };
        self.0.rules.iter().find(about).map_or(self.0.default, |rule| rule.access) == Access::Allow
    }
}

#[cfg(test)]
#[path = "acl_tests.rs"]
mod tests;
