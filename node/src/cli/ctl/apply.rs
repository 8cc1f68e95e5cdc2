//! `create` and `apply`: things as documents say that they are to be.

use std::path::PathBuf;

use clap::Args;
use prost_reflect::{Kind as Type, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::client::{Client, method};
use super::documents::{self, Wanted};
use super::failure::Failure;
use super::filters::Filters;
use super::get::{one, told};
use super::kinds::word;
use super::output::{Output, note, put};

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// YAML or JSON documents of `kind`, `name` and `spec`; `-` is standard input.
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Members that are answered once and never again.
const SECRETS: [&str; 7] =
    ["secret", "secret_key", "access_code", "app_secret", "product_secret", "private_key", "password"];

/// What is to happen to a thing.
#[derive(Debug, PartialEq)]
enum Step {
    Create { call: &'static str, request: Value },
    Update { call: &'static str, request: Value },
    Unchanged,
}

pub(super) async fn run(client: &Client, output: Output, of: &Apply, only_new: bool) -> Result<(), Failure> {
    // Nothing is begun before all is read.
    let mut all = Vec::new();
    for file in &of.files {
        all.extend(documents::read(file)?);
    }
    let mut first = None;
    for wanted in &all {
        if let Err(failure) = applied(client, output, wanted, only_new, of.dry_run).await {
            let failure = failure.about(&wanted.place);
            note(&failure.text);
            first.get_or_insert(failure);
        }
    }
    match first {
        None => Ok(()),
        Some(failure) if all.len() == 1 => Err(Failure { text: "it was not applied".to_owned(), ..failure }),
        Some(failure) => Err(Failure { text: "not all documents were applied".to_owned(), ..failure }),
    }
}

async fn applied(
    client: &Client,
    output: Output,
    wanted: &Wanted,
    only_new: bool,
    dry_run: bool,
) -> Result<(), Failure> {
    let kind = wanted.kind;
    let current = match &wanted.name {
        Some(name) if !only_new && (kind.show.is_some() || kind.list.is_some()) => {
            let within = wanted.within.iter().filter_map(|(member, value)| Some((member.clone(), word(value)?)));
            match one(client, kind, name, &Filters(within.collect())).await {
                Ok(current) => Some(current),
                Err(failure) if failure.is_missing() => None,
                Err(failure) => return Err(failure),
            }
        }
        _ => None,
    };
    let step = step(wanted, current.as_ref())?;
    let (what, call, request) = match step {
        Step::Create { call, request } => ("created", call, request),
        Step::Update { call, request } => ("configured", call, request),
        Step::Unchanged => {
            let name = wanted.name.as_deref().unwrap_or_default();
            return told(output, kind, name, "unchanged", None);
        }
    };
    if dry_run {
        checked(call, &request)?;
        let name = wanted.name.as_deref().unwrap_or("(new)");
        return told(output, kind, name, &format!("{what} (dry run)"), None);
    }
    let answer = client.call(call, request.clone()).await?;
    let id = kind.id_of(&answer).or_else(|| wanted.name.clone()).unwrap_or_default();
    if !output.is_table() {
        return put(&output.document(&json!({ "kind": kind.one, "name": id, "result": what, "answer": answer }))?);
    }
    told(output, kind, wanted.name.as_deref().unwrap_or(&id), what, Some(&id))?;
    let mut secrets = Vec::new();
    new_secrets(&answer, &request, &mut secrets);
    for (name, secret) in secrets {
        put(&format!("{name}: {secret}"))?;
        note(&format!("{name} is shown once: keep it"));
    }
    Ok(())
}

/// What a document comes to, given what there is.
fn step(wanted: &Wanted, current: Option<&Value>) -> Result<Step, Failure> {
    let kind = wanted.kind;
    let Some(current) = current else {
        let call = *kind.needs(kind.create.as_ref(), "create")?;
        let mut spec = wanted.spec.clone();
        if let Some(name) = &wanted.name {
            let member = if kind.called.is_empty() { kind.id } else { kind.called };
            let takes = body(call)?;
            // What the body does not know, the node gives.
            for member in [member, kind.id] {
                if takes.get_field_by_name(member).is_some()
                    && !spec.contains_key(member)
                    && !generated(kind.id, member, name)
                {
                    spec.insert(member.to_owned(), name.clone().into());
                }
            }
        }
        return Ok(Step::Create { call, request: request(call, wanted.within.clone(), spec)? });
    };
    let differs = |member: &str, value: &Value| !current.get(member).is_some_and(|current| holds(current, value));
    let changed: Vec<&String> =
        wanted.spec.iter().filter(|(member, value)| differs(member, value)).map(|(member, _)| member).collect();
    if changed.is_empty() {
        return Ok(Step::Unchanged);
    }
    let update = kind.needs(kind.update.as_ref(), "apply")?;
    let takes = body(update.call)?;
    let free = is_free(&takes);
    if let Some(fixed) = changed.iter().find(|member| !free && takes.get_field_by_name(member).is_none()) {
        return Err(Failure::refused(format!(
            "spec.{fixed}: cannot be changed; delete it and create it anew, or leave {fixed} as it is"
        )));
    }
    let spec = wanted.spec.iter().filter(|(member, _)| free || takes.get_field_by_name(member).is_some());
    let mut spec: Map<String, Value> = spec.map(|(member, value)| (member.clone(), value.clone())).collect();
    // A rule's two texts are changed together: the one that the document leaves out stays as it is.
    for (one, other) in [("select", "where"), ("where", "select")] {
        if kind.one == "rule" && spec.contains_key(one) && !spec.contains_key(other) {
            spec.insert(other.to_owned(), current.get(other).cloned().unwrap_or_else(|| "".into()));
        }
    }
    let mut within = wanted.within.clone();
    let id = kind.id_of(current).or_else(|| wanted.name.clone()).unwrap_or_default();
    within.insert(update.by.to_owned(), id.into());
    Ok(Step::Update { call: update.call, request: request(update.call, within, spec)? })
}

/// Whether a name is no id that one may choose: the row's human name goes to another member.
fn generated(id: &str, member: &str, name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    member == id && !name.chars().all(allowed)
}

/// What a call takes besides what names the thing.
fn body(call: &str) -> Result<MessageDescriptor, Failure> {
    let input = method(call)?.input();
    Ok(match input.get_field_by_name("body").map(|field| field.kind()) {
        Some(Type::Message(body)) => body,
        _ => input,
    })
}

/// Whether a message takes whatever it is given.
fn is_free(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.protobuf.Struct"
}

fn request(call: &str, mut within: Map<String, Value>, spec: Map<String, Value>) -> Result<Value, Failure> {
    match method(call)?.input().get_field_by_name("body") {
        Some(_) => {
            within.insert("body".to_owned(), Value::Object(spec));
        }
        None => within.extend(spec),
    }
    Ok(Value::Object(within))
}

fn checked(call: &str, request: &Value) -> Result<(), Failure> {
    let checked = fulmar_proto::document::message(&method(call)?.input(), request);
    checked.map(drop).map_err(|error| Failure::usage(format!("{call}: {error}")))
}

/// Whether what is there has all that is wanted: objects may have more.
fn holds(current: &Value, wanted: &Value) -> bool {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| current.get(name).is_some_and(|current| holds(current, wanted)))
        }
        (Value::Array(current), Value::Array(wanted)) => {
            current.len() == wanted.len() && current.iter().zip(wanted).all(|(current, wanted)| holds(current, wanted))
        }
        _ => current == wanted,
    }
}

/// Secrets of an answer that were not in what was asked.
fn new_secrets(answer: &Value, request: &Value, found: &mut Vec<(String, String)>) {
    match answer {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str() {
                    Some(secret) if SECRETS.contains(&name.as_str()) => {
                        if !request.to_string().contains(&value.to_string()) {
                            found.push((name.clone(), secret.to_owned()));
                        }
                    }
                    _ => new_secrets(value, request, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| new_secrets(value, request, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds;
    use super::*;

    fn wanted(kind: &str, name: Option<&str>, spec: Value) -> Wanted {
        let Value::Object(spec) = spec else { panic!("a spec is an object") };
        let kind = kinds::find(kind).expect("a kind");
        Wanted { place: "f".to_owned(), kind, name: name.map(str::to_owned), within: Map::new(), spec }
    }

    #[test]
    fn what_is_not_there_is_created_with_its_name() {
        let rule = wanted("rule", Some("hot"), json!({ "where": "a > 1" }));
        let created = step(&rule, None).expect("a step");
        let request = json!({ "body": { "rule_name": "hot", "where": "a > 1" } });
        assert_eq!(created, Step::Create { call: "Rules/Create", request });
        let user = wanted("user", Some("ann"), json!({ "role": "viewer" }));
        let Step::Create { request, .. } = step(&user, None).expect("a step") else { panic!("it is new") };
        assert_eq!(request, json!({ "body": { "name": "ann", "role": "viewer" } }));
        let device = wanted("device", Some("meter"), json!({ "product_id": "p", "node_id": "n" }));
        let Step::Create { request, .. } = step(&device, None).expect("a step") else { panic!("it is new") };
        let body = json!({ "device_id": "meter", "device_name": "meter", "product_id": "p", "node_id": "n" });
        assert_eq!(request, json!({ "body": body }));
        checked("Devices/Add", &request).expect("a request");
        let surplus = json!({ "body": { "wher": "a" } });
        assert!(checked("Rules/Create", &surplus).expect_err("no such member").text.contains("wher"));
        let nodes = step(&wanted("node", Some("a"), json!({})), None).expect_err("none is made");
        assert_eq!((nodes.code, nodes.text.contains("cannot be asked to create")), (2, true), "{nodes}");
    }

    #[test]
    fn what_is_there_is_changed_only_where_it_differs() {
        let current = json!({ "rule_id": "r1", "rule_name": "hot", "where": "a > 1", "active": true,
                              "subject": { "resource": "device.property", "event": "report" }, "guarantee": "live" });
        let same = json!({ "where": "a > 1", "subject": { "resource": "device.property" } });
        assert_eq!(step(&wanted("rule", Some("hot"), same), Some(&current)).expect("a step"), Step::Unchanged);
        let other = json!({ "where": "a > 2", "guarantee": "live" });
        let request = json!({ "rule_id": "r1", "body": { "where": "a > 2", "select": "" } });
        assert_eq!(
            step(&wanted("rule", Some("hot"), other), Some(&current)).expect("a step"),
            Step::Update { call: "Rules/Update", request }
        );
        let fixed = json!({ "guarantee": "durable" });
        let failure = step(&wanted("rule", Some("hot"), fixed), Some(&current)).expect_err("it stays");
        assert_eq!(
            failure.text,
            "spec.guarantee: cannot be changed; delete it and create it anew, or leave guarantee as it is"
        );
    }

    #[test]
    fn secrets_are_shown_if_they_are_new() {
        let answer = json!({ "access_key": "a", "secret_key": "s", "deep": [{ "password": "known" }] });
        let mut found = Vec::new();
        new_secrets(&answer, &json!({ "body": { "password": "known" } }), &mut found);
        assert_eq!(found, [("secret_key".to_owned(), "s".to_owned())]);
    }
}
