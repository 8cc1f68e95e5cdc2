//! Classes of custom topics.

use crate::registry::{TopicAccess, TopicClass};

/// Whether the classes of a product let a device publish on a topic, or subscribe to all that a filter matches. Both
/// are relative to the device's own space, as the classes are.
pub(crate) fn allow(classes: &[TopicClass], relative: &str, access: TopicAccess) -> bool {
    classes
        .iter()
        .any(|class| (class.access == TopicAccess::Both || class.access == access) && covers(&class.filter, relative))
}

fn covers(class: &str, asked: &str) -> bool {
    let (mut class, mut asked) = (class.split('/'), asked.split('/'));
    loop {
        match (class.next(), asked.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(want), Some(have)) if want == have => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (class, asked, covered) in [
            ("update", "update", true),
            ("update", "update/error", false),
            ("update", "+", false),
            ("update", "#", false),
            ("+/set", "a/set", true),
            ("+/set", "+/set", true),
            ("+", "#", false),
            ("a/#", "a", true),
            ("a/#", "a/b/#", true),
            ("a/#", "+/#", false),
            ("#", "#", true),
            ("", "", true),
            ("a", "", false),
        ] {
            let classes = [TopicClass { filter: class.into(), access: TopicAccess::Publish }];
            assert_eq!(allow(&classes, asked, TopicAccess::Publish), covered, "{class} for {asked}");
            assert!(!allow(&classes, asked, TopicAccess::Subscribe), "{class} for {asked}");
            let classes = [TopicClass { filter: class.into(), access: TopicAccess::Both }];
            assert_eq!(allow(&classes, asked, TopicAccess::Subscribe), covered, "{class} for {asked}");
        }
    }
}
