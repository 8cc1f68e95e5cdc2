//! `fulmar.admin.v1` against what was released of it, and what is said of each of its parts. COMPATIBILITY.md has the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fulmar_proto::document::{self, PACKAGE};
use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};

fn files() -> impl Iterator<Item = FileDescriptor> {
    document::pool().files().filter(|file| file.package_name() == PACKAGE)
}

fn kind(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(kind) => kind.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let label = match field {
        field if field.is_list() || field.is_map() => "repeated ",
        field if field.field_descriptor_proto().proto3_optional() => "optional ",
        _ => "",
    };
    format!("{label}{kind}")
}

fn of_enum(item: &EnumDescriptor, lines: &mut BTreeSet<String>) {
    for value in item.values() {
        lines.insert(format!("{} {} {}", item.full_name(), value.number(), value.name()));
    }
}

fn of_message(message: &MessageDescriptor, lines: &mut BTreeSet<String>) {
    for field in message.fields() {
        lines.insert(format!("{} {} {} {}", message.full_name(), field.number(), field.name(), kind(&field)));
    }
    message.child_messages().for_each(|child| of_message(&child, lines));
    message.child_enums().for_each(|child| of_enum(&child, lines));
}

/// Every field and enum value as `message number name type`, and every method as `service/name request response`.
fn now() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in files() {
        file.messages().for_each(|message| of_message(&message, &mut lines));
        file.enums().for_each(|item| of_enum(&item, &mut lines));
        for method in file.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let stream = |streams: bool| if streams { "stream " } else { "" };
            lines.insert(format!(
                "{}/{} {}{} {}{}",
                method.parent_service().full_name(),
                method.name(),
                stream(method.is_client_streaming()),
                method.input().full_name(),
                stream(method.is_server_streaming()),
                method.output().full_name(),
            ));
        }
    }
    lines
}

/// What a release had and is not there any more as it was.
fn lost(released: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    released.difference(now).cloned().collect()
}

#[test]
fn what_was_released_is_still_there() {
    let now = now();
    assert!(now.contains("fulmar.admin.v1.Devices/Show fulmar.admin.v1.DevicesShowRequest fulmar.admin.v1.Device"));
    assert!(now.contains("fulmar.admin.v1.DevicesShowRequest 1 device_id string"));
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join("admin.txt");
    let text: Vec<&str> = now.iter().map(String::as_str).collect();
    std::fs::write(&list, text.join("\n") + "\n").expect("the list of now");
    println!("the list of now: {}", list.display());
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    for entry in std::fs::read_dir(golden).expect("the kept lists") {
        let path = entry.expect("a kept list").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with("admin-") {
            continue;
        }
        let released = std::fs::read_to_string(&path).expect("a kept list").lines().map(str::to_owned).collect();
        let lost = lost(&released, &now);
        assert!(lost.is_empty(), "of {name}, these are gone or changed:\n{}", lost.join("\n"));
    }
}

#[test]
fn whatever_is_changed_or_gone_is_noticed() {
    let now = now();
    let with = |old: &str, new: &str| {
        assert!(now.contains(old), "{old}");
        let mut changed = now.clone();
        changed.remove(old);
        changed.insert(new.to_owned());
        lost(&now, &changed)
    };
    for (old, new) in [
        (
            "fulmar.admin.v1.DevicesShowRequest 1 device_id string",
            "fulmar.admin.v1.DevicesShowRequest 2 device_id string",
        ),
        ("fulmar.admin.v1.DevicesShowRequest 1 device_id string", "fulmar.admin.v1.DevicesShowRequest 1 id string"),
        ("fulmar.admin.v1.Page 1 count optional uint64", "fulmar.admin.v1.Page 1 count uint64"),
        (
            "fulmar.admin.v1.Apps/List fulmar.admin.v1.AppsListRequest fulmar.admin.v1.AppList",
            "fulmar.admin.v1.Apps/List fulmar.admin.v1.AppsListRequest stream fulmar.admin.v1.AppList",
        ),
    ] {
        assert_eq!(with(old, new), [old]);
    }
    let mut grown = now.clone();
    grown.insert("fulmar.admin.v1.Page 9 further optional string".to_owned());
    assert!(lost(&now, &grown).is_empty(), "what is new breaks nobody");
}

#[test]
fn each_service_and_method_says_what_it_does() {
    let mut silent = Vec::new();
    for file in files() {
        let described = file.file_descriptor_proto().source_code_info.clone().unwrap_or_default();
        let comments: BTreeMap<&[i32], &str> = described
            .location
            .iter()
            .filter_map(|location| Some((location.path.as_slice(), location.leading_comments.as_deref()?)))
            .collect();
        let silence = |path: &[i32]| comments.get(path).is_none_or(|text| text.trim().is_empty());
        for (at, service) in (0..).zip(file.services()) {
            if silence(&[6, at]) {
                silent.push(service.full_name().to_owned());
            }
            for (on, method) in (0..).zip(service.methods()) {
                if silence(&[6, at, 2, on]) {
                    silent.push(method.full_name().to_owned());
                }
            }
        }
    }
    assert!(silent.is_empty(), "without a comment: {}", silent.join(", "));
}
