//! What `fulmar ctl` can list, show, make and delete: one row for each kind of thing, naming calls of the admin API and
//! members of their documents.

mod parts;
mod rows;

use serde_json::Value;

use super::failure::Failure;
pub(super) use rows::KINDS;

/// One kind of thing.
#[derive(Debug)]
pub(super) struct Kind {
    /// As it is asked for: `devices`.
    pub(super) name: &'static str,
    /// As documents call it: `device`.
    pub(super) one: &'static str,
    pub(super) short: &'static [&'static str],
    /// The member that names one.
    pub(super) id: &'static str,
    /// The member that people call it by, if that is another one.
    pub(super) called: &'static str,
    /// What a list is asked by to find those that are called so, or begin so.
    pub(super) search: Option<&'static str>,
    pub(super) list: Option<List>,
    pub(super) show: Option<One>,
    /// The member of what `show` answers that is the thing; empty for all of it.
    pub(super) shown: &'static str,
    /// The member of requests that says to whom they belong, which none can do without.
    pub(super) within: Option<&'static str>,
    /// Takes a document's `spec`.
    pub(super) create: Option<&'static str>,
    pub(super) update: Option<One>,
    pub(super) delete: Option<One>,
    /// Closes its connection.
    pub(super) disconnect: Option<One>,
    /// A stream of changes.
    pub(super) watch: Option<&'static str>,
    /// What belongs to it, for `describe`.
    pub(super) related: &'static [Related],
    pub(super) columns: &'static [Column],
}

/// A call that gives many.
#[derive(Debug)]
pub(super) struct List {
    pub(super) call: &'static str,
    /// The member that holds them.
    pub(super) items: &'static str,
    /// An empty page need not be the last one.
    pub(super) sparse: bool,
}

/// A call about one, which a member of the request names.
#[derive(Debug)]
pub(super) struct One {
    pub(super) call: &'static str,
    pub(super) by: &'static str,
}

/// What else `describe` shows.
#[derive(Debug)]
pub(super) struct Related {
    pub(super) title: &'static str,
    pub(super) call: &'static str,
    /// The member of the request that names the thing, and the member of the thing that has its value.
    pub(super) by: &'static str,
    pub(super) of: &'static str,
    /// The member of the answer that is shown; empty for all of it.
    pub(super) part: &'static str,
    /// For a list; empty for a single thing.
    pub(super) columns: &'static [Column],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    /// To the right.
    Number,
    /// A time, shown as how long ago that was.
    Age,
    /// A word that tells how something is.
    State,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Members, one in the other, separated by dots.
    pub(super) member: &'static str,
    pub(super) shape: Shape,
    /// Only with `-o wide`.
    pub(super) wide: bool,
}

/// What a row does not say.
pub(super) const NOTHING: Kind = Kind {
    name: "",
    one: "",
    short: &[],
    id: "",
    called: "",
    search: None,
    list: None,
    show: None,
    shown: "",
    within: None,
    create: None,
    update: None,
    delete: None,
    disconnect: None,
    watch: None,
    related: &[],
    columns: &[],
};

pub(super) const fn text(title: &'static str, member: &'static str) -> Column {
    Column { title, member, shape: Shape::Text, wide: false }
}

pub(super) const fn number(title: &'static str, member: &'static str) -> Column {
    Column { title, member, shape: Shape::Number, wide: false }
}

pub(super) const fn age(title: &'static str, member: &'static str) -> Column {
    Column { title, member, shape: Shape::Age, wide: false }
}

pub(super) const fn state(title: &'static str, member: &'static str) -> Column {
    Column { title, member, shape: Shape::State, wide: false }
}

impl Column {
    pub(super) const fn wide(self) -> Column {
        Column { wide: true, ..self }
    }
}

pub(super) const fn list(call: &'static str, items: &'static str) -> Option<List> {
    Some(List { call, items, sparse: false })
}

pub(super) const fn sparse(call: &'static str, items: &'static str) -> Option<List> {
    Some(List { call, items, sparse: true })
}

pub(super) const fn one(call: &'static str, by: &'static str) -> Option<One> {
    Some(One { call, by })
}

/// The kind of a name, in either number or short, in any case.
pub(super) fn find(name: &str) -> Result<&'static Kind, Failure> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    let name = plain(name);
    let known = |kind: &&Kind| {
        [kind.name, kind.one].into_iter().chain(kind.short.iter().copied()).any(|known| plain(known) == name)
    };
    KINDS.iter().find(known).ok_or_else(|| {
        let all: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        Failure::usage(format!("there is no kind {name}; there are {}", all.join(", ")))
    })
}

impl Kind {
    /// What one is called in what is told about it: `device/meter`.
    pub(super) fn told(&self, name: &str) -> String {
        format!("{}/{name}", self.one)
    }

    /// The id of an item of this kind.
    pub(super) fn id_of(&self, item: &Value) -> Option<String> {
        word(item.get(self.id)?)
    }

    /// Of a call that a kind may lack.
    pub(super) fn needs<'c, T>(&self, call: Option<&'c T>, verb: &str) -> Result<&'c T, Failure> {
        call.ok_or_else(|| {
            let can = [
                ("get", self.list.is_some() || self.show.is_some()),
                ("describe", self.list.is_some() || self.show.is_some()),
                ("create", self.create.is_some()),
                ("apply", self.create.is_some() && self.update.is_some()),
                ("delete", self.delete.is_some()),
                ("disconnect", self.disconnect.is_some()),
                ("watch", self.watch.is_some()),
            ];
            let can: Vec<&str> = can.iter().filter(|(_, can)| *can).map(|(verb, _)| *verb).collect();
            Failure::usage(format!("{} cannot be asked to {verb}; they can {}", self.name, can.join(", ")))
        })
    }
}

/// A value that is text, a number, true or false, as text.
pub(super) fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        _ => None,
    }
}

/// A member of a document, through the members that hold it.
pub(super) fn member<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use fulmar_proto::document::method;
    use prost_reflect::{Kind as Type, MessageDescriptor};

    use super::*;

    /// Whether a message has the members of a path.
    fn has(message: &MessageDescriptor, path: &str) -> bool {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let Some(field) = message.get_field_by_name(first) else { return false };
        match (rest, field.kind()) {
            (None, _) => true,
            (Some(rest), Type::Message(inner)) => inner.full_name() == "google.protobuf.Struct" || has(&inner, rest),
            (Some(_), _) => false,
        }
    }

    fn items(message: &MessageDescriptor, member: &str) -> MessageDescriptor {
        let field = message.get_field_by_name(member).unwrap_or_else(|| panic!("{} has no {member}", message.name()));
        match field.kind() {
            Type::Message(inner) => inner,
            other => panic!("{member} is {other:?}"),
        }
    }

    #[test]
    fn every_row_names_calls_and_members_that_are_there() {
        for kind in KINDS {
            let call = |name: &str| method(name).unwrap_or_else(|| panic!("{}: there is no {name}", kind.name));
            let mut item = None;
            if let Some(show) = &kind.show {
                assert!(has(&call(show.call).input(), show.by), "{}: {}", show.call, show.by);
                let shown = call(show.call).output();
                item = Some(if kind.shown.is_empty() { shown } else { items(&shown, kind.shown) });
            }
            if let Some(list) = &kind.list {
                assert!(kind.within.is_none_or(|within| has(&call(list.call).input(), within)), "{}", list.call);
                assert!(kind.search.is_none_or(|search| has(&call(list.call).input(), search)), "{}", list.call);
                let items = items(&call(list.call).output(), list.items);
                for member in kind.columns.iter().map(|column| column.member).chain([kind.id, kind.called]) {
                    assert!(
                        member.is_empty() || has(&items, member),
                        "{}: {} has no {member}",
                        kind.name,
                        items.name()
                    );
                }
                item.get_or_insert(items);
            }
            let item = item.unwrap_or_else(|| panic!("{} can neither be listed nor shown", kind.name));
            for one in [&kind.update, &kind.delete, &kind.disconnect].into_iter().flatten() {
                assert!(has(&call(one.call).input(), one.by), "{}: {}", one.call, one.by);
            }
            if let Some(create) = kind.create {
                call(create);
            }
            if let Some(watch) = kind.watch {
                assert!(call(watch).is_server_streaming(), "{watch}");
            }
            for related in kind.related {
                assert!(has(&call(related.call).input(), related.by), "{}: {}", related.call, related.by);
                assert!(has(&item, related.of), "{}: {}", item.name(), related.of);
                let mut answer = call(related.call).output();
                if !related.part.is_empty() {
                    answer = items(&answer, related.part);
                }
                for column in related.columns {
                    assert!(has(&answer, column.member), "{}: {} has no {}", kind.name, answer.name(), column.member);
                }
            }
        }
    }

    #[test]
    fn names_are_found_in_every_form_and_are_nobody_elses() {
        let mut names: Vec<&str> =
            KINDS.iter().flat_map(|kind| [kind.name, kind.one].into_iter().chain(kind.short.iter().copied())).collect();
        for name in &names {
            assert!(find(&name.to_ascii_uppercase()).is_ok(), "{name}");
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "each name is of one kind: {names:?}");
        assert_eq!(find("access-key").map(|kind| kind.name), Ok("accesskeys"));
        let failure = find("thing").expect_err("no such kind");
        assert!(
            failure.code == 2 && failure.text.starts_with("there is no kind thing; there are nodes, "),
            "{failure}"
        );
    }
}
