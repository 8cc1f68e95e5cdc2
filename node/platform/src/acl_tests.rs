use proptest::prelude::*;

use super::*;

fn rule(access: Access, action: Action, patterns: &[&str]) -> Rule {
    let patterns = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    Rule { who: Who::Everyone, action, access, patterns }
}

fn publish(permissions: &Permissions, topic: &str) -> bool {
    permissions.may_publish(&TopicName::new(topic).unwrap())
}

fn subscribe(permissions: &Permissions, filter: &str) -> bool {
    permissions.may_subscribe(&TopicFilter::new(filter).unwrap())
}

#[test]
fn patterns_are_checked() {
    for good in ["a/b", "%c", "devices/%c/#", "+/%u/x-%c", "100%%", "$SYS/#"] {
        assert!(Pattern::parse(good).is_ok(), "{good}");
    }
    for bad in ["", "a/%x", "50%", "a/#/b", "a+/b", "%c+/b", "a/#%c", "$share/g/a"] {
        assert!(Pattern::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_first_rule_that_speaks_decides() {
    let rules = [
        rule(Access::Allow, Action::Publish, &["devices/%c/#"]),
        rule(Access::Allow, Action::Subscribe, &["devices/%c/#", "news/+"]),
        rule(Access::Deny, Action::All, &["devices/#"]),
    ];
    let permissions = Permissions::compile(&rules, Access::Allow, "d1", Some("ann"));
    assert!(publish(&permissions, "devices/d1/up"));
    assert!(!publish(&permissions, "devices/d2/up"));
    assert!(publish(&permissions, "elsewhere"));
    assert!(subscribe(&permissions, "devices/d1/+"));
    assert!(subscribe(&permissions, "$share/g/devices/d1/#"));
    assert!(!subscribe(&permissions, "$share/g/devices/d2/#"));
    // The request reaches beyond what is allowed and into what is denied.
    for filter in ["devices/+/up", "devices/#", "#", "+/d1/up"] {
        assert!(!subscribe(&permissions, filter), "{filter}");
    }
    assert!(subscribe(&permissions, "news/+"));
    assert!(subscribe(&permissions, "news/#"));
}

#[test]
fn rules_are_about_their_users_only() {
    let mut rules = [
        rule(Access::Allow, Action::All, &["a"]),
        rule(Access::Allow, Action::All, &["b"]),
        rule(Access::Allow, Action::All, &["c"]),
    ];
    rules[0].who = Who::Users(vec!["ann".into()]);
    rules[1].who = Who::Anonymous;
    let allowed = |user| {
        let permissions = Permissions::compile(&rules, Access::Deny, "id", user);
        ["a", "b", "c"].into_iter().filter(|topic| publish(&permissions, topic)).collect::<String>()
    };
    assert_eq!(allowed(Some("ann")), "ac");
    assert_eq!(allowed(Some("bob")), "c");
    assert_eq!(allowed(None), "bc");
}

#[test]
fn a_chosen_name_never_widens_an_allow_rule() {
    let rules = [rule(Access::Allow, Action::All, &["devices/%c/#", "%u/x", "%c/#"])];
    for name in ["+", "#", "a/b", "", "a+", "#a", "/", "$SYS", "$share"] {
        let permissions = Permissions::compile(&rules, Access::Deny, name, Some(name));
        for filter in ["devices/+/#", "devices/#", "#", "+/#", "a/b/#", "+/x", "$SYS/#", "$SYS/x", "devices/a/b"] {
            assert!(!subscribe(&permissions, filter), "{name} {filter}");
        }
        for topic in ["devices/a", "devices/a/b", "devices//x", "a/b/x", "/x", "$SYS/x"] {
            assert!(!publish(&permissions, topic), "{name} {topic}");
        }
    }
    let permissions = Permissions::compile(&rules, Access::Deny, "d$1", None);
    assert!(subscribe(&permissions, "devices/d$1/#"));
    assert!(!subscribe(&permissions, "%u/x"));
}

#[test]
fn a_chosen_name_never_escapes_a_deny_rule() {
    let rules = [rule(Access::Deny, Action::All, &["secret/%c/x", "private/%u"])];
    for name in ["a/b", "+", "", "#"] {
        let permissions = Permissions::compile(&rules, Access::Allow, name, None);
        for topic in ["secret/a/b/x", "secret/q/x", "private/ann"] {
            assert!(!publish(&permissions, topic), "{name} {topic}");
            assert!(!subscribe(&permissions, topic), "{name} {topic}");
        }
        assert!(publish(&permissions, "open"));
    }
    let permissions = Permissions::compile(&rules, Access::Allow, "d1", Some("ann"));
    assert!(!publish(&permissions, "secret/d1/x") && publish(&permissions, "secret/d2/x"));
    assert!(!publish(&permissions, "private/ann") && publish(&permissions, "private/bob"));
}

#[test]
fn server_topics_need_a_rule_of_their_own() {
    let open = Permissions::unruled(Access::Allow);
    assert!(!publish(&open, "$SYS/broker/version") && !publish(&open, "$other"));
    assert!(subscribe(&open, "$SYS/#") && publish(&open, "a"));
    let rules = [rule(Access::Allow, Action::Publish, &["#", "$own/#"])];
    let permissions = Permissions::compile(&rules, Access::Deny, "c", None);
    assert!(publish(&permissions, "$own/x") && publish(&permissions, "a") && !publish(&permissions, "$SYS/x"));
}

prop_compose! {
    fn filters()(
        levels in prop::collection::vec(prop::sample::select(vec!["a", "b", "+"]), 1..=3),
        multi in any::<bool>(),
    ) -> String {
        let tail = if multi { "/#" } else { "" };
        format!("{}{tail}", levels.join("/"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// What a granted filter delivers is what the rules, read topic by topic, allow.
    #[test]
    fn a_granted_filter_delivers_nothing_denied(
        rules in prop::collection::vec((any::<bool>(), filters()), 0..5),
        allow_default in any::<bool>(),
        requested in filters(),
        topic in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..=5),
    ) {
        let access = |allow| if allow { Access::Allow } else { Access::Deny };
        let rules: Vec<Rule> =
            rules.iter().map(|(allow, filter)| rule(access(*allow), Action::All, &[filter.as_str()])).collect();
        let permissions = Permissions::compile(&rules, access(allow_default), "c", None);
        let requested = TopicFilter::new(requested).unwrap();
        let topic = TopicName::new(topic.join("/")).unwrap();
        if permissions.may_subscribe(&requested) && requested.matches(&topic) {
            prop_assert!(permissions.may_publish(&topic));
        }
    }
}
