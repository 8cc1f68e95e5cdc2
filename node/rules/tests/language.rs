//! The language as its users meet it: tables of text, event and result, then generated input.

use std::collections::BTreeMap;

use fulmar_rules::limits::{DEPTH_MAX, TEXT_BYTES_MAX};
use fulmar_rules::{Filter, Overrun, Projection, Value};
use proptest::prelude::*;

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A property report as it is pushed, with a few members of odd names and kinds.
fn event() -> Value {
    let service = |id: &str, temperature: Value| {
        object([("service_id", id.into()), ("properties", object([("temperature", temperature)]))])
    };
    let tag = |key: &str, value: &str| object([("tag_key", key.into()), ("tag_value", value.into())]);
    object([
        ("resource", "device.property".into()),
        (
            "notify_data",
            object([
                (
                    "header",
                    object([
                        ("device_id", "d1".into()),
                        ("gateway-id", "g1".into()),
                        ("tags", Value::List(vec![tag("room", "kitchen"), tag("floor", "2")])),
                    ]),
                ),
                (
                    "body",
                    object([
                        ("content", object([("temperature", Value::Int(40)), ("case", Value::Float(1.5))])),
                        ("services", Value::List(vec![service("S1", 21.into()), service("S2", Value::Float(-3.5))])),
                        ("flag", true.into()),
                        ("nothing", Value::Null),
                    ]),
                ),
            ]),
        ),
    ])
}

const TRUE: [&str; 46] = [
    "",
    "  ",
    "notify_data.body.content.temperature > 38",
    "38 < notify_data.body.content.temperature",
    "resource = 'device.property'",
    "resource <> 'device.message' and resource != 'x'",
    "RESOURCE IS NULL",
    "resource is not null",
    "notify_data.body.nothing IS NULL",
    "notify_data.body.flag",
    "NOT (resource = 'x')",
    "NOT NOT notify_data.body.flag = TRUE",
    "missing = 1 OR notify_data.body.flag",
    "NOT (missing = 1 AND FALSE)",
    "1 + 2 * 3 = 7 AND (1 + 2) * 3 = 9",
    "10 - 2 - 3 = 5 AND 7 / 2 = 3.5 AND 6 / 2 = 3 AND 7 % 4 = 3",
    "-2 = 0 - 2 AND - -2 = 2 AND 2 - -2 = 4",
    "1 = 1.0 AND 1 < 1.5 AND 1.5e1 = 15 AND 2E-1 < 1",
    "9223372036854775807 + 1 > 9223372036854774000",
    "1 / 0 IS NULL AND 1 % 0 IS NULL AND 1.5 / 0 IS NULL",
    "'b' > 'a' AND 'B' < 'a' AND 'it''s' = CONCAT('it', '''', 's')",
    "resource IN ('a', 'device.property') AND 3 NOT IN (1, 2)",
    "(1 IN (2, missing)) IS NULL",
    "('1' = 1) IS NULL",
    "\"notify_data\".header.\"gateway-id\" = 'g1'",
    "notify_data.body.content.case = 1.5",
    "notify_data.body.services[1].service_id = 'S2'",
    "notify_data.body.services[7].service_id IS NULL",
    "STARTS_WITH(notify_data.header.device_id, 'd') AND ends_with(resource, 'property')",
    "GET_TAG('room') = 'kitchen' AND GET_TAG('x') IS NULL AND CONTAINS_TAG('floor')",
    "GET_SERVICE_PROPERTY('S1', 'temperature') = 21",
    "GET_SERVICE_PROPERTY('S3', 'temperature') IS NULL AND NOT CONTAINS_SERVICES('S3')",
    "CONTAINS_SERVICES('S2') AND GET_SERVICE_PROPERTIES('S2') IS NOT NULL",
    "UPPER('a') = 'A' AND LOWER('A') = 'a' AND CHAR_LENGTH('abc') = 3",
    "TO_NUMBER('12') = 12 AND TO_NUMBER('1.5') = 1.5 AND TO_NUMBER('x') IS NULL AND TO_STRING(7) = '7'",
    "ABS(-3) = 3 AND ABS(-1.5) = 1.5 AND ROUND(1.5) = 2 AND ABS('x') IS NULL",
    "CASE WHEN 1 = 2 THEN 'a' WHEN missing THEN 'b' ELSE 'c' END = 'c'",
    "CASE WHEN 1 = 1 THEN CASE WHEN FALSE THEN 1 END END IS NULL",
    "GET_SERVICE('S1') IS NOT NULL AND GET_SERVICE('S') IS NULL AND GET_SERVICE('S', TRUE) IS NOT NULL",
    "GET_SERVICE('1', FALSE) IS NULL AND (GET_SERVICE('S1', 'x') = 1) IS NULL AND GET_SERVICES(1) IS NULL",
    "CONTAINS_SERVICES('2', TRUE) AND NOT CONTAINS_SERVICES('2', FALSE) AND NOT CONTAINS_SERVICES('3', TRUE)",
    "REPLACE('a-b-c', '-', '+') = 'a+b+c' AND REPLACE('abc', '', 'x') = 'abc' AND REPLACE('a', 'a', 1) IS NULL",
    "SUBSTRING('abcde', 2, 3) = 'bcd' AND SUBSTRING('abcde', 4) = 'de' AND SUBSTRING('abc', 9) = ''",
    "SUBSTRING('abc', 0) IS NULL AND SUBSTRING('abc', 1, -1) IS NULL AND SUBSTRING(1, 1) IS NULL",
    "SUBSTRING('abc', 1, missing) IS NULL",
    "GET_SERVICES('S1') IS NOT NULL",
];

const FALSE: [&str; 9] = [
    "notify_data.body.content.temperature > 40",
    "missing = 1",
    "NOT missing = 1",
    "missing <> 1",
    "resource > 1",
    "1",
    "'TRUE'",
    "NULL = NULL",
    "1 NOT IN (2, NULL)",
];

#[test]
fn conditions() {
    for (texts, wanted) in [(TRUE.as_slice(), true), (FALSE.as_slice(), false)] {
        for text in texts {
            let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(filter.matches(&event()), Ok(wanted), "{text}");
        }
    }
}

#[test]
fn errors_name_the_column_and_what_was_expected() {
    for (text, wanted) in [
        ("a >", "at column 4: expected a value, found the end"),
        ("a > > 1", "at column 5: expected a value, found '>'"),
        ("a b", "at column 3: expected an operator or the end, found b"),
        ("a = 1 AND", "at column 10: expected a value, found the end"),
        ("(a = 1", "at column 7: expected ')', found the end"),
        ("a = 'x", "at column 5: a string has no end"),
        ("\"a = 1", "at column 1: a quoted name has no end"),
        ("a = 1x", "at column 5: the number does not fit"),
        ("a = 1e999", "at column 5: the number does not fit"),
        ("a[99999999999999999999] = 1", "at column 3: expected an index, found a number"),
        ("a[-1] = 1", "at column 3: expected an index, found '-'"),
        ("a. = 1", "at column 4: expected a name, found '='"),
        ("a ; b", "at column 3: unexpected character ';'"),
        ("a = '\u{e9}'", "at column 6: only ASCII is allowed"),
        ("a IS 1", "at column 6: expected NULL, found a number"),
        ("a NOT 1", "at column 7: expected IN, found a number"),
        ("a IN ()", "at column 7: expected a value, found ')'"),
        ("a IN (1 2)", "at column 9: expected ',' or ')', found a number"),
        ("CASE 1 END", "at column 6: expected WHEN, found a number"),
        ("CASE WHEN a THEN 1", "at column 19: expected END, found the end"),
        ("NOW() = 1", "at column 1: there is no function NOW"),
        ("get_tag('a', 'b') = 1", "at column 1: GET_TAG takes 1 arguments, not 2"),
        ("and = 1", "at column 1: expected a value, found and"),
    ] {
        assert_eq!(Filter::parse(text).expect_err(text).to_string(), wanted, "{text}");
    }
    for (text, wanted) in [
        ("a,", "at column 3: expected an item, found the end"),
        ("a b", "at column 3: expected ',' or the end, found b"),
        ("1", "at column 2: a constant or function needs a name: AS name"),
        ("GET_TAG('a'), b", "at column 13: a constant or function needs a name: AS name"),
        ("a AS", "at column 5: expected a name, found the end"),
        ("a AS x23456789012345678901234567890123", "at column 6: a name is at most 32 characters long"),
        ("a, b AS a", "at column 4: two items are named a"),
    ] {
        assert_eq!(Projection::parse(text).expect_err(text).to_string(), wanted, "{text}");
    }
}

#[test]
fn projections() {
    let content = object([("temperature", Value::Int(40)), ("case", Value::Float(1.5))]);
    for (text, wanted) in [
        ("", event()),
        ("*", event()),
        (
            "notify_data.header.device_id AS device_id, notify_data.body.content",
            object([("device_id", "d1".into()), ("notify_data.body.content", content)]),
        ),
        (
            "notify_data.body.services[0].service_id, notify_data.header.\"gateway-id\"",
            object([
                ("notify_data.body.services[0].service_id", "S1".into()),
                ("notify_data.header.gateway-id", "g1".into()),
            ]),
        ),
        ("missing", object([("missing", Value::Null)])),
        (
            "'x' AS kind, 7 AS seven, GET_TAG('room') AS room, 2 * 3 AS product",
            object([("kind", "x".into()), ("seven", 7.into()), ("room", "kitchen".into()), ("product", 6.into())]),
        ),
    ] {
        let projection = Projection::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(projection.apply(&event()), Ok(wanted), "{text}");
    }
    let both = Projection::parse("resource AS kind, *").expect("an item and all").apply(&event()).expect("in bounds");
    assert_eq!((both.member("kind"), both.member("resource")), (&"device.property".into(), &"device.property".into()));
}

#[test]
fn text_that_is_too_long_or_too_deep_is_refused() {
    let fits = format!("{}a = 1", " ".repeat(TEXT_BYTES_MAX - 5));
    assert!(Filter::parse(&fits).is_ok());
    let error = Filter::parse(&format!(" {fits}")).expect_err("one byte too long").to_string();
    assert_eq!(error, "at column 2501: longer than 2500 characters");
    for (open, close) in
        [("(", ")"), ("NOT ", ""), ("-", ""), ("ABS(", ")"), ("1 IN (", ")"), ("CASE WHEN ", " THEN 1 END")]
    {
        let nest = |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
        assert!(Filter::parse(&nest(DEPTH_MAX)).is_ok(), "{open}");
        let error = Filter::parse(&nest(DEPTH_MAX + 1)).expect_err(open).to_string();
        assert!(error.ends_with("nested deeper than 32 levels"), "{open}: {error}");
    }
    let chain = vec!["a=1"; 350].join(" OR ");
    assert_eq!(Filter::parse(&chain).expect("a chain is not nested").matches(&event()), Ok(false));
}

#[test]
fn too_much_work_or_output_ends_the_evaluation() {
    let large = object([("t", Value::Text("x".repeat(1 << 20)))]);
    let longer = format!("CONCAT({}) = 'x'", vec!["t"; 16].join(", "));
    assert_eq!(Filter::parse(&longer).expect("valid").matches(&large), Err(Overrun::Work));
    assert_eq!(Projection::parse("t AS a").expect("valid").apply(&large), Err(Overrun::Output));
    assert_eq!(Projection::parse("").expect("valid").apply(&large), Err(Overrun::Output));
    let half = object([("t", Value::Text("x".repeat(1 << 19)))]);
    assert!(Projection::parse("t AS a").expect("valid").apply(&half).is_ok());
    assert_eq!(Projection::parse("t AS a, t AS b").expect("valid").apply(&half), Err(Overrun::Output));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        prop::num::f64::NORMAL.prop_map(Value::Float),
        "[a-c]{0,3}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(Value::Object),
        ]
    })
}

/// Text of words that the language knows, in any order.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "a",
        "b",
        "\"c\"",
        ".",
        "[",
        "0",
        "]",
        "(",
        ")",
        ",",
        "*",
        "+",
        "-",
        "/",
        "%",
        "=",
        "<>",
        "<",
        ">=",
        "AND",
        "OR",
        "NOT",
        "IN",
        "IS",
        "NULL",
        "TRUE",
        "FALSE",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "AS",
        "1",
        "2.5",
        "'x'",
        "ABS",
        "CONCAT",
        "GET_TAG",
        "TO_NUMBER",
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
}

/// A well-formed condition.
fn condition() -> impl Strategy<Value = String> {
    let operand =
        prop::sample::select(vec!["a", "a.b", "c[0]", "1", "-2.5", "'a'", "NULL", "TRUE", "a + 1", "CONCAT(a, b)"]);
    let operator = prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let leaf =
        (operand.clone(), operator, operand).prop_map(|(left, operator, right)| format!("{left} {operator} {right}"));
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} AND {right})")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} OR {right})")),
            inner.clone().prop_map(|inner| format!("NOT ({inner})")),
            inner.prop_map(|inner| format!("(CASE WHEN {inner} THEN TRUE END)")),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,80}", event in value()) {
        if let Ok(filter) = Filter::parse(&text) {
            let _ = filter.matches(&event);
        }
        if let Ok(projection) = Projection::parse(&text) {
            let _ = projection.apply(&event);
        }
    }

    #[test]
    fn no_words_panic_and_errors_point_into_the_text(text in words(), event in value()) {
        match Filter::parse(&text) {
            Ok(filter) => prop_assert!(filter.matches(&event).is_ok()),
            Err(error) => prop_assert!((1..=text.len() + 1).contains(&error.column)),
        }
        match Projection::parse(&text) {
            Ok(projection) => prop_assert!(projection.apply(&event).is_ok()),
            Err(error) => prop_assert!((1..=text.len() + 1).contains(&error.column)),
        }
    }

    #[test]
    fn a_condition_and_its_negation_never_both_match(text in condition(), event in value()) {
        let filter = Filter::parse(&text).expect("well formed").matches(&event).expect("in bounds");
        let negated = Filter::parse(&format!("NOT ({text})")).expect("well formed").matches(&event).expect("in bounds");
        let unknown = Filter::parse(&format!("({text}) IS NULL")).expect("well formed").matches(&event).expect("in bounds");
        prop_assert_eq!(usize::from(filter) + usize::from(negated) + usize::from(unknown), 1);
    }

    #[test]
    fn a_path_keeps_what_it_leads_to(members in prop::collection::btree_map("[a-c]", value(), 1..4)) {
        let event = Value::Object(members.clone());
        let text = members.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let kept = Projection::parse(&text).expect("names").apply(&event).expect("in bounds");
        prop_assert_eq!(kept, Value::Object(members.into_iter().collect::<BTreeMap<_, _>>()));
    }
}
