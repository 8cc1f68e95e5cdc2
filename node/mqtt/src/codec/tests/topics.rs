//! Topic names and filters: form and matching.

use bytes::Bytes;

use crate::topic::{TopicError, TopicFilter, TopicName};

#[test]
fn names() {
    let long = "x".repeat(65_536);
    let rows: &[(&str, Option<TopicError>)] = &[
        ("a", None),
        ("/", None),
        ("a//b", None),
        ("$SYS/a", None),
        ("é/日本/🦆", None),
        (long.get(1..).unwrap_or(""), None),
        ("", Some(TopicError::Empty)),
        ("a\0", Some(TopicError::Nul)),
        ("+", Some(TopicError::Wildcard)),
        ("a/#", Some(TopicError::Wildcard)),
        ("a+b", Some(TopicError::Wildcard)),
        (&long, Some(TopicError::TooLong)),
    ];
    for (text, expect) in rows {
        assert_eq!(TopicName::new(*text).err(), *expect, "{text:.20}");
    }
    for bytes in [&[0xFF][..], &[0xED, 0xA0, 0x80], &[0xC0, 0x80], &[0xC3]] {
        assert_eq!(TopicName::from_bytes(Bytes::from_static(bytes)).err(), Some(TopicError::NotUtf8));
    }
}

#[test]
fn filters() {
    let rows: &[(&str, Option<TopicError>)] = &[
        ("#", None),
        ("+", None),
        ("+/+/#", None),
        ("/+", None),
        ("$share/g/#", None),
        ("$share/g//", None),
        ("$shared", None),
        ("", Some(TopicError::Empty)),
        ("\0", Some(TopicError::Nul)),
        ("a#b", Some(TopicError::MultiLevel)),
        ("a/#/b", Some(TopicError::MultiLevel)),
        ("#/", Some(TopicError::MultiLevel)),
        ("##", Some(TopicError::MultiLevel)),
        ("a+/b", Some(TopicError::SingleLevel)),
        ("++", Some(TopicError::SingleLevel)),
        ("$share", Some(TopicError::Share)),
        ("$share/", Some(TopicError::Share)),
        ("$share/g", Some(TopicError::Share)),
        ("$share/g/", Some(TopicError::Share)),
        ("$share//a", Some(TopicError::Share)),
        ("$share/+/a", Some(TopicError::Share)),
    ];
    for (text, expect) in rows {
        assert_eq!(TopicFilter::new(*text).err(), *expect, "{text}");
    }
}

#[test]
fn matching() {
    let rows: &[(&str, &str, bool)] = &[
        ("é/x", "+/x", true),
        ("é/x", "é/+", true),
        ("$SYS/a", "$SYS/#", true),
        ("$SYS/a", "$SYS/+", true),
        ("$SYS/a", "#", false),
        ("$SYS/a", "+/a", false),
        ("a", "a/#", true),
        ("a/b/c", "a/#", true),
        ("ab", "a/#", false),
        ("a/b", "a/+", true),
        ("a", "a/+", false),
        ("a/", "a/+", true),
        ("/a", "+/a", true),
        ("/a", "/+", true),
        ("/a", "+", false),
        ("a/b", "a/b/c", false),
        ("a/b", "A/b", false),
        ("a/b", "$share/g/a/+", true),
        ("$SYS/a", "$share/g/#", false),
    ];
    for (name, filter, expect) in rows {
        let (name, filter) = (TopicName::new(*name).unwrap(), TopicFilter::new(*filter).unwrap());
        assert_eq!(filter.matches(&name), *expect, "{name} against {filter}");
    }
}
