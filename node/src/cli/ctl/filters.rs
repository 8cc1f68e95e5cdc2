//! What narrows a list: members of its call's request, as flags made from the descriptors.

use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use fulmar_proto::document;
use prost_reflect::{Kind as Type, MessageDescriptor};
use serde_json::{Map, Value};

use super::client::method;
use super::failure::Failure;
use super::kinds::KINDS;

/// Members of requests that are no filters.
const NO_FILTERS: [&str; 7] = ["limit", "marker", "offset", "after", "before", "body", "revision"];

/// Names that other flags have: these filters are only given with -l.
const FLAGS: [&str; 9] = ["address", "token", "token_file", "ca", "cert", "key", "plaintext", "endpoints", "context"];

/// Every member that some list can be asked by, its flag, and what the command line calls that.
static FILTERS: LazyLock<Vec<[String; 3]>> = LazyLock::new(|| {
    let calls = KINDS.iter().flat_map(|kind| {
        [kind.list.as_ref().map(|list| list.call), kind.show.as_ref().map(|show| show.call), kind.watch]
    });
    let requests = calls.flatten().filter_map(document::method).map(|method| method.input());
    let mut names: Vec<String> = requests.flat_map(|request| filters_of(&request)).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !FLAGS.contains(&name.as_str()));
    let flagged = names.into_iter().map(|name| {
        let flag = name.replace('_', "-");
        let id = format!("by-{flag}");
        [name, flag, id]
    });
    flagged.collect()
});

pub(super) fn filters_of(request: &MessageDescriptor) -> Vec<String> {
    let simple = request.fields().filter(|field| !matches!(field.kind(), Type::Message(_)));
    simple.map(|field| field.name().to_owned()).filter(|name| !NO_FILTERS.contains(&name.as_str())).collect()
}

/// `--product-id P`, and the same as `-l product_id=P`.
#[derive(Debug, Clone, Default)]
pub(super) struct Filters(pub(super) Vec<(String, String)>);

impl Args for Filters {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = command.arg(
            Arg::new("selector")
                .short('l')
                .long("selector")
                .value_name("MEMBER=VALUE,...")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .help("Only those whose list can be asked so; each is also a flag of its own"),
        );
        FILTERS.iter().fold(command, |command, [_, flag, id]| {
            let flag = Arg::new(id.as_str()).long(flag.as_str()).value_name("VALUE");
            command.arg(flag.help_heading("Filters, each for the kinds that have it").hide_short_help(true))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Filters::augment_args(command)
    }
}

impl FromArgMatches for Filters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Filters, clap::Error> {
        let mut filters = Vec::new();
        for pair in matches.get_many::<String>("selector").into_iter().flatten() {
            let wrong = || {
                clap::Error::raw(clap::error::ErrorKind::InvalidValue, format!("-l {pair}: allowed: MEMBER=VALUE\n"))
            };
            let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
            filters.push((name.trim().replace('-', "_"), value.trim().to_owned()));
        }
        for [name, _, id] in FILTERS.iter() {
            filters.extend(matches.get_one::<String>(id).map(|value| (name.clone(), value.clone())));
        }
        Ok(Filters(filters))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Filters::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Filters {
    /// As members of a request. `strict`: it must have them all.
    pub(super) fn of(&self, call: &str, strict: bool) -> Result<Map<String, Value>, Failure> {
        let request = method(call)?.input();
        let mut members = Map::new();
        for (name, text) in &self.0 {
            let Some(field) = request.get_field_by_name(name).filter(|_| !NO_FILTERS.contains(&name.as_str())) else {
                if strict {
                    let has = filters_of(&request);
                    let has = if has.is_empty() {
                        "there are none".to_owned()
                    } else {
                        format!("there are {}", has.join(", "))
                    };
                    return Err(Failure::usage(format!("{call} cannot be asked by {name}; {has}")));
                }
                continue;
            };
            let value = match field.kind() {
                Type::Bool => text.parse().map(Value::Bool).ok(),
                Type::String | Type::Bytes | Type::Enum(_) => Some(Value::String(text.clone())),
                Type::Message(_) => None,
                _ => text.parse::<i64>().map(Value::from).ok(),
            };
            let value = value.ok_or_else(|| Failure::usage(format!("{name}: {text} is nothing that it can be")))?;
            members.insert(name.clone(), value);
        }
        Ok(members)
    }
}
