//! Two questions about pairs of topic filters: does one cover the other, do they overlap. Exact, not approximate; both
//! are judged by what they match, so of `$share/group/filter` only `filter` counts.

use fulmar_mqtt::TopicFilter;

/// Whether every topic that `requested` matches is matched by `rule`.
#[must_use]
pub fn covers(rule: &TopicFilter, requested: &TopicFilter) -> bool {
    if hides_server_topics(rule, requested) {
        return false;
    }
    let (mut rule, mut requested) = (rule.levels(), requested.levels());
    let mut position = 0;
    let mut empty = false;
    loop {
        match (rule.next(), requested.next()) {
            (Some("#"), _) | (None, None) => return true,
            // `#` may stand for no level at all, `+/#` may not. They say the same where what stands before would be
            // the empty topic, which none is: at the start, and after `/`.
            (Some("+"), Some("#")) => {
                return (position == 0 || (position == 1 && empty)) && rule.next() == Some("#");
            }
            (Some(want), Some(have)) if want == "+" || want == have => empty = have.is_empty(),
            _ => return false,
        }
        position += 1;
    }
}

/// Whether some topic is matched by both.
#[must_use]
pub fn overlaps(one: &TopicFilter, other: &TopicFilter) -> bool {
    if hides_server_topics(one, other) || hides_server_topics(other, one) {
        return false;
    }
    let (mut one, mut other) = (one.levels(), other.levels());
    let mut position = 0;
    let mut empty = false;
    loop {
        match (one.next(), other.next()) {
            // `/#` would match the empty topic, of which `+` is the only level; no topic is empty.
            (Some("#"), None) | (None, Some("#")) => return !(position == 1 && empty),
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(this), Some(that)) if this == that || this == "+" || that == "+" => {
                empty = this.is_empty() || that.is_empty();
            }
            _ => return false,
        }
        position += 1;
    }
}

/// Whether one starts with a wildcard and the other with `$`: then no topic is in both [v5 MQTT-4.7.2-1].
fn hides_server_topics(one: &TopicFilter, other: &TopicFilter) -> bool {
    matches!(one.levels().next(), Some("+" | "#")) && other.levels().next().is_some_and(|level| level.starts_with('$'))
}

#[cfg(test)]
mod tests {
    use fulmar_mqtt::TopicName;
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).unwrap()
    }

    #[test]
    fn table() {
        for (rule, requested, covered, overlapping) in [
            ("a/b", "a/b", true, true),
            ("a/b", "a/c", false, false),
            ("a/+", "a/b", true, true),
            ("a/b", "a/+", false, true),
            ("a/#", "a", true, true),
            ("a", "a/#", false, true),
            ("a/#", "a/#", true, true),
            ("a/#", "a/+/c", true, true),
            ("a/+", "a/#", false, true),
            ("a/+/#", "a/#", false, true),
            ("+/#", "#", true, true),
            ("+/+/#", "#", false, true),
            ("#", "+/#", true, true),
            ("#", "$SYS/#", false, false),
            ("+/x", "$SYS/x", false, false),
            ("$SYS/#", "#", false, false),
            ("$SYS/#", "$SYS/broker/+", true, true),
            ("a/#", "$share/g/a/b", true, true),
            ("$share/g/a/#", "a/b", true, true),
            ("b/#", "$share/b/a", false, false),
            ("a//b", "a/+/b", false, true),
            ("+", "/", false, false),
            ("/#", "+", false, false),
            ("/+/#", "/#", true, true),
            ("//+/#", "//#", false, true),
            ("+/+", "/", true, true),
            ("a/+", "+/b", false, true),
        ] {
            assert_eq!(covers(&filter(rule), &filter(requested)), covered, "{rule} covers {requested}");
            assert_eq!(overlaps(&filter(rule), &filter(requested)), overlapping, "{rule} overlaps {requested}");
            assert_eq!(overlaps(&filter(requested), &filter(rule)), overlapping, "{requested} overlaps {rule}");
        }
    }

    const LEVELS_MAX: usize = 3;

    /// Every topic of up to one level more than the filters have, over their alphabet and one letter they do not use.
    /// Whether filters of that size cover or overlap is settled by these topics alone.
    fn topics() -> Vec<TopicName> {
        let alphabet = ["a", "b", "", "$s", "other"];
        let mut all = Vec::new();
        let mut rows: Vec<String> = alphabet.iter().map(|level| (*level).to_owned()).collect();
        for _ in 0..=LEVELS_MAX {
            all.extend(rows.iter().filter_map(|text| TopicName::new(text.as_str()).ok()));
            rows = rows.iter().flat_map(|row| alphabet.iter().map(move |level| format!("{row}/{level}"))).collect();
        }
        all
    }

    prop_compose! {
        fn filters()(
            levels in prop::collection::vec(prop::sample::select(vec!["a", "b", "", "$s", "+"]), 0..=LEVELS_MAX),
            multi in any::<bool>(),
        ) -> Option<TopicFilter> {
            let mut levels = levels;
            if multi && levels.len() < LEVELS_MAX {
                levels.push("#");
            }
            TopicFilter::new(levels.join("/")).ok()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn agree_with_every_topic(one in filters(), other in filters()) {
            thread_local!(static TOPICS: Vec<TopicName> = topics());
            let (Some(one), Some(other)) = (one, other) else { return Ok(()) };
            TOPICS.with(|topics| {
                let covered = topics.iter().all(|topic| !other.matches(topic) || one.matches(topic));
                let overlapping = topics.iter().any(|topic| one.matches(topic) && other.matches(topic));
                prop_assert_eq!(covers(&one, &other), covered, "{} covers {}", one, other);
                prop_assert_eq!(overlaps(&one, &other), overlapping, "{} overlaps {}", one, other);
                Ok(())
            })?;
        }
    }
}
