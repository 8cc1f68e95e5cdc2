//! The kept corpus of the fuzz targets: written from the tables, run by a plain test.

use std::path::PathBuf;

use super::{On, bytes, rows};
use crate::codec::Role;
use crate::fuzz;
use crate::packet::OversizePolicy::{Close, Skip};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 3] = [
    ("decode_stream", fuzz::decode_stream),
    ("round_trip", fuzz::round_trip),
    ("forward_properties", fuzz::forward_properties),
];

fn directory(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// With `WRITE_CORPUS=1` in the environment the files are written anew first.
#[test]
fn every_corpus_file_holds() {
    if std::env::var_os("WRITE_CORPUS").is_some() {
        write_corpus();
    }
    for (target, run) in TARGETS {
        let mut files = 0;
        for entry in std::fs::read_dir(directory(target)).unwrap() {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 8, "{target} has a corpus");
    }
}

/// The selector byte of a row's connection.
fn selector(on: On) -> u8 {
    let (start, role) = match on {
        On::Fresh => (None, Role::Server),
        On::FreshClient(_) => (None, Role::Client),
        On::Server(version) => (Some(version), Role::Server),
        On::Client(version) => (Some(version), Role::Client),
    };
    fuzz::selector(start, role, Close, 0, 1)
}

#[test]
fn every_row_holds_in_every_target() {
    for (_, on, text, _) in rows() {
        let data = [vec![selector(*on)], bytes(text)].concat();
        fuzz::decode_stream(&data);
        fuzz::round_trip(&data);
        fuzz::forward_properties(&bytes(text));
    }
}

/// Writes the corpus anew: one stream per connection and verdict, and single packets for round trips.
fn write_corpus() {
    use super::Expect::{Accept, Same};
    for (target, _) in TARGETS {
        std::fs::create_dir_all(directory(target)).unwrap();
    }
    let write = |target: &str, name: &str, data: &[u8]| {
        let name = name.replace(|char: char| !char.is_ascii_alphanumeric(), "-").to_lowercase();
        std::fs::write(directory(target).join(name), data).unwrap();
    };
    let mut streams: std::collections::BTreeMap<u8, Vec<u8>> = std::collections::BTreeMap::new();
    let mut kinds = std::collections::BTreeSet::new();
    for (name, on, text, expect) in rows() {
        let (selector, packet) = (selector(*on), bytes(text));
        let first = packet.first().copied().unwrap_or(0);
        if matches!(expect, Same | Accept) {
            streams.entry(selector).or_insert_with(|| vec![selector]).extend(&packet);
            if text.contains('[') || kinds.insert((selector, first >> 4)) {
                write("round_trip", name, &[vec![selector], packet].concat());
            }
        } else if kinds.insert((selector | 0x80, first)) {
            write("decode_stream", name, &[vec![selector], packet].concat());
        }
    }
    for (selector, stream) in streams {
        write("decode_stream", &format!("accepted {selector:02x}"), &stream);
    }
    let skipped = [vec![fuzz::selector(Some(crate::packet::Version::V5), Role::Server, Skip, 3, 2)], {
        bytes("c000 32 28 0005 746f706963 0007 00 61616161616161616161616161616161616161616161616161616161616161 c000")
    }];
    write("decode_stream", "skipped", &skipped.concat());
    for text in [
        "",
        "01 00",
        "01 01 26 'k' 'v'",
        "03 'text/plain' 08 'r/s' 09 0002 00ff",
        "26 'k' '1' 26 'k' '2' 26 '' ''",
        "26 'k' 'v' 01 01 03 'text' 08 'r' 09 '' 26 'k' 'v'",
        "01 02",
        "02 00000001",
        "08 '#'",
        "26 'k' 0009 61",
        "03 0001 ff",
        "01 01 01 01",
    ] {
        write("forward_properties", &format!("p {text}"), &bytes(text));
    }
}
