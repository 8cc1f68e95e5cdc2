//! Lists and single things: `get`, `describe` and `delete`, for every kind of the table.

use std::path::PathBuf;

use clap::Args;
use fulmar_proto::document;
use serde_json::{Value, json};

use super::client::{Client, method};
use super::documents;
use super::failure::{EXIT_MISSING, Failure};
use super::filters::{Filters, filters_of};
use super::kinds::{self, Kind, Related, member, word};
use super::output::{Output, note, put};
use super::table::{Style, table};

/// Things of a page; a node gives no more at once.
const PAGE: u64 = 50;

/// Where a page begins, in what is asked and in what was answered.
const PAGING: [(&str, &str); 4] =
    [("marker", "marker"), ("marker", "page.marker"), ("after", "next"), ("before", "next")];

#[derive(Debug, Args)]
pub(super) struct Get {
    /// nodes, devices, rules...: in either number, or short; also KIND/NAME.
    #[arg(value_name = "KIND")]
    kind: String,
    /// Ids, or the names that people call them by.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How many of a list; 0 for all.
    #[arg(long, default_value_t = 500, value_name = "N")]
    limit: u64,
    #[command(flatten)]
    filters: Filters,
}

#[derive(Debug, Args)]
pub(super) struct Describe {
    #[arg(value_name = "KIND")]
    kind: String,
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    filters: Filters,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[arg(value_name = "KIND", required_unless_present = "file")]
    kind: Option<String>,
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// What the documents of a file name; `-` is standard input.
    #[arg(short = 'f', long = "file", value_name = "FILE", conflicts_with = "kind")]
    file: Option<PathBuf>,
    /// What is not there is no failure.
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    filters: Filters,
}

/// A kind with names, also as KIND/NAME.
pub(super) fn named(kind: &str, names: &[String]) -> Result<(&'static Kind, Vec<String>), Failure> {
    match kind.split_once('/') {
        Some((kind, name)) => {
            Ok((kinds::find(kind)?, std::iter::once(name.to_owned()).chain(names.to_vec()).collect()))
        }
        None => Ok((kinds::find(kind)?, names.to_vec())),
    }
}

pub(super) async fn get(client: &Client, output: Output, of: &Get) -> Result<(), Failure> {
    let (kind, names) = named(&of.kind, &of.names)?;
    let mut items = Vec::new();
    for name in &names {
        items.push(one(client, kind, name, &of.filters).await?);
    }
    let mut more = false;
    if names.is_empty() {
        (items, more) = all(client, kind, &of.filters, of.limit).await?;
    }
    match output {
        Output::Json | Output::Yaml if names.len() == 1 => {
            put(&output.document(items.first().unwrap_or(&Value::Null))?)?;
        }
        Output::Json | Output::Yaml => put(&output.document(&json!({ "kind": "List", "items": items }))?)?,
        Output::Table | Output::Wide if items.is_empty() => note(&format!("{}: none", kind.name)),
        Output::Table | Output::Wide => put(&table(&items, kind.columns, output.style()))?,
    }
    if more {
        note(&format!("there are more than {}: give --limit 0 for all", of.limit));
    }
    Ok(())
}

/// What there is of a kind, page by page, up to a limit; and whether there is more.
pub(super) async fn all(
    client: &Client,
    kind: &Kind,
    filters: &Filters,
    limit: u64,
) -> Result<(Vec<Value>, bool), Failure> {
    let list = kind.needs(kind.list.as_ref(), "get")?;
    let mut request = filters.of(list.call, true)?;
    if let Some(within) = kind.within.filter(|within| !request.contains_key(*within)) {
        let flag = within.replace('_', "-");
        return Err(Failure::usage(format!("whose {}? Name it with --{flag}", kind.name)));
    }
    let calls = method(list.call)?;
    let (asks, tells) = (calls.input(), calls.output());
    let has = |(begin, next): &&(&str, &str)| {
        let next = next.split('.').next().unwrap_or_default();
        asks.get_field_by_name(begin).is_some() && tells.get_field_by_name(next).is_some()
    };
    let paging = PAGING.iter().find(has);
    let limit = if limit == 0 { u64::MAX } else { limit };
    let mut items: Vec<Value> = Vec::new();
    loop {
        if paging.is_some() {
            request.insert("limit".to_owned(), PAGE.into());
        }
        let mut answer = client.call(list.call, Value::Object(request.clone())).await?;
        let page = answer.get_mut(list.items).map(Value::take);
        let Some(Value::Array(page)) = page else { return Ok((items, false)) };
        let next = paging.and_then(|(begin, next)| Some((*begin, member(&answer, next)?.clone())));
        let (came, room) = (page.len() as u64, limit.saturating_sub(items.len() as u64));
        items.extend(page.into_iter().take(usize::try_from(room).unwrap_or(usize::MAX)));
        match next.filter(|(begin, next)| request.get(*begin) != Some(next)) {
            _ if came > room => return Ok((items, true)),
            // A page may be short, or even empty, and yet not the last.
            Some((begin, next)) if came > 0 || begin != "marker" || list.sparse => {
                request.insert(begin.to_owned(), next);
            }
            _ => return Ok((items, false)),
        }
    }
}

/// One of a kind, by its id or by what people call it.
pub(super) async fn one(client: &Client, kind: &Kind, name: &str, filters: &Filters) -> Result<Value, Failure> {
    let mut missing = None;
    if let Some(show) = &kind.show {
        let mut request = filters.of(show.call, false)?;
        request.insert(show.by.to_owned(), name.into());
        match client.call(show.call, Value::Object(request)).await {
            Ok(mut answer) if !kind.shown.is_empty() => {
                return Ok(answer.get_mut(kind.shown).map(Value::take).unwrap_or_default());
            }
            Ok(answer) => return Ok(answer),
            // It may be what people call it by, which need not have the form of an id.
            Err(failure) if !kind.called.is_empty() && matches!(failure.code, 1 | EXIT_MISSING) => {
                missing = Some(failure);
            }
            Err(failure) if failure.is_missing() => return Err(absent(kind, name, &failure.text)),
            Err(failure) => return Err(failure),
        }
    }
    let mut filters = filters.clone();
    filters.0.extend(kind.search.map(|search| (search.to_owned(), name.to_owned())));
    let list = kind.needs(kind.list.as_ref(), "get")?;
    filters.0.retain(|(member, _)| filters_of_call(list.call).contains(member));
    let filters = &filters;
    let (items, _) = all(client, kind, filters, 0).await?;
    let is = |item: &&Value, member: &str| item.get(member).and_then(word).as_deref() == Some(name);
    let mut found: Vec<&Value> = items.iter().filter(|item| is(item, kind.id)).collect();
    if found.is_empty() && !kind.called.is_empty() {
        found = items.iter().filter(|item| is(item, kind.called)).collect();
    }
    match found.as_slice() {
        [] => Err(match missing {
            Some(failure) if !failure.is_missing() => failure,
            _ => absent(kind, name, ""),
        }),
        [item] => match (&kind.show, kind.id_of(item)) {
            // A list says less of each.
            (Some(_), Some(id)) if id != name => Box::pin(one(client, kind, &id, filters)).await,
            _ => Ok((*item).clone()),
        },
        several => {
            let ids: Vec<String> = several.iter().filter_map(|item| kind.id_of(item)).collect();
            Err(Failure::refused(format!(
                "several {} are called {name}: {}; give the id of one",
                kind.name,
                ids.join(", ")
            )))
        }
    }
}

fn filters_of_call(call: &str) -> Vec<String> {
    document::method(call).map(|method| filters_of(&method.input())).unwrap_or_default()
}

fn absent(kind: &Kind, name: &str, said: &str) -> Failure {
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Failure::missing(format!(
        "there is no {}{said}; `fulmar ctl get {}` lists what there is",
        kind.told(name),
        kind.name
    ))
}

pub(super) async fn describe(client: &Client, output: Output, of: &Describe) -> Result<(), Failure> {
    let (kind, mut names) = named(&of.kind, &of.names)?;
    if names.is_empty() {
        let (items, _) = all(client, kind, &of.filters, PAGE).await?;
        names = items.iter().filter_map(|item| kind.id_of(item)).collect();
    }
    let mut documents = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let item = one(client, kind, name, &of.filters).await?;
        let mut parts = Vec::new();
        for related in kind.related {
            parts.push((related, belonging(client, related, &item).await));
        }
        if output.is_table() {
            let separator = if index == 0 { "" } else { "\n" };
            put(&format!("{separator}{}", described(&item, &parts, output.style())))?;
        } else {
            let mut whole = item;
            for (related, part) in parts {
                whole[related.title.to_ascii_lowercase()] = part.unwrap_or_default();
            }
            documents.push(whole);
        }
    }
    match (output.is_table(), documents.as_slice()) {
        (true, _) => Ok(()),
        (false, [document]) => put(&output.document(document)?),
        (false, _) => put(&output.document(&json!({ "kind": "List", "items": documents }))?),
    }
}

/// What belongs to a thing; `Ok(Null)` where there is nothing.
async fn belonging(client: &Client, related: &Related, item: &Value) -> Result<Value, Failure> {
    let Some(name) = item.get(related.of) else { return Ok(Value::Null) };
    let mut answer = match client.call(related.call, json!({ related.by: name })).await {
        Ok(answer) => answer,
        Err(failure) if failure.is_missing() => return Ok(Value::Null),
        Err(failure) => return Err(failure),
    };
    Ok(match related.part {
        "" => answer,
        part => answer.get_mut(part).map(Value::take).unwrap_or_default(),
    })
}

fn described(item: &Value, parts: &[(&Related, Result<Value, Failure>)], style: Style) -> String {
    let mut lines = members(item, 0);
    for (related, part) in parts {
        lines.push(String::new());
        lines.push(style.bold(&format!("{}:", related.title)));
        match part {
            Err(failure) => lines.push(format!("  not known: {failure}")),
            Ok(Value::Null) => lines.push("  none".to_owned()),
            Ok(Value::Array(list)) if list.is_empty() => lines.push("  none".to_owned()),
            Ok(Value::Array(list)) if !related.columns.is_empty() => {
                let style = Style { width: style.width.map(|width| width.saturating_sub(2)), ..style };
                lines.extend(table(list, related.columns, style).lines().map(|line| format!("  {line}")));
            }
            Ok(other) => lines.extend(members(other, 2)),
        }
    }
    lines.join("\n")
}

/// A line for each member, its values below each other.
pub(super) fn members(value: &Value, indent: usize) -> Vec<String> {
    let space = " ".repeat(indent);
    match value {
        Value::Object(object) => {
            let simple = |value: &Value| !matches!(value, Value::Object(_) | Value::Array(_));
            let titles = object.iter().filter(|(_, value)| simple(value)).map(|(name, _)| title(name).chars().count());
            let width = titles.max().unwrap_or_default();
            let mut lines = Vec::new();
            for (name, value) in object {
                let title = title(name);
                let padding = " ".repeat((width + 2).saturating_sub(title.chars().count()));
                match value {
                    Value::Null => {}
                    value if simple(value) => {
                        let text = word(value).unwrap_or_default();
                        let mut text = text.lines();
                        lines.push(
                            format!("{space}{title}:{padding}{}", text.next().unwrap_or("-")).trim_end().to_owned(),
                        );
                        let below = " ".repeat(indent + width + 3);
                        lines.extend(text.map(|line| format!("{below}{line}")));
                    }
                    Value::Array(list) if list.is_empty() => {}
                    value => {
                        lines.push(format!("{space}{title}:"));
                        lines.extend(members(value, indent + 2));
                    }
                }
            }
            lines
        }
        Value::Array(list) => list
            .iter()
            .flat_map(|value| {
                let mut lines = members(value, indent + 2);
                if let Some(first) = lines.first_mut() {
                    *first = format!("{space}- {}", first.trim_start());
                }
                lines
            })
            .collect(),
        simple => vec![format!("{space}{}", word(simple).unwrap_or_else(|| "-".to_owned()))],
    }
}

/// `device_id` as `Device id`.
fn title(name: &str) -> String {
    let mut title = name.replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

pub(super) async fn delete(client: &Client, output: Output, of: &Delete) -> Result<(), Failure> {
    let mut goes: Vec<(&'static Kind, String, Filters)> = Vec::new();
    match (&of.file, &of.kind) {
        (Some(file), _) => {
            for wanted in documents::read(file)?.into_iter().rev() {
                let name = wanted.name.ok_or_else(|| Failure::usage(format!("{}: has no name", wanted.place)))?;
                let within = wanted.within.iter().filter_map(|(member, value)| Some((member.clone(), word(value)?)));
                goes.push((wanted.kind, name, Filters(within.collect())));
            }
        }
        (None, Some(kind)) => {
            let (kind, names) = named(kind, &of.names)?;
            if names.is_empty() {
                return Err(Failure::usage(format!("delete which {}? Name them", kind.name)));
            }
            goes.extend(names.into_iter().map(|name| (kind, name, of.filters.clone())));
        }
        (None, None) => return Err(Failure::usage("delete what? Name a kind, or a file with -f")),
    }
    let mut first = None;
    for (kind, name, filters) in goes {
        match gone(client, kind, &name, &filters).await {
            Ok(id) => told(output, kind, &name, "deleted", Some(&id))?,
            Err(failure) if failure.is_missing() && of.ignore_not_found => note(&failure.text),
            // The others go all the same.
            Err(failure) => {
                note(&failure.text);
                first.get_or_insert(failure);
            }
        }
    }
    match first {
        None => Ok(()),
        Some(failure) => Err(Failure { text: "not everything was deleted".to_owned(), ..failure }),
    }
}

/// Deletes one; returns its id.
async fn gone(client: &Client, kind: &Kind, name: &str, filters: &Filters) -> Result<String, Failure> {
    let delete = kind.needs(kind.delete.as_ref(), "delete")?;
    let ask = async |id: &str| {
        let mut request = filters.of(delete.call, false)?;
        // Of a thing that several members may name: `address=192.0.2.1`.
        let by =
            id.split_once('=').filter(|(member, _)| filters_of_call(delete.call).iter().any(|known| known == member));
        let (member, value) = by.unwrap_or((delete.by, id));
        request.insert(member.to_owned(), value.into());
        client.call(delete.call, Value::Object(request)).await
    };
    match ask(name).await {
        Ok(_) => Ok(name.to_owned()),
        Err(failure) if failure.is_missing() => {
            if kind.called.is_empty() {
                return Err(absent(kind, name, &failure.text));
            }
            let item = one(client, kind, name, filters).await?;
            let id = kind.id_of(&item).ok_or_else(|| absent(kind, name, ""))?;
            ask(&id).await?;
            Ok(id)
        }
        Err(failure) => Err(failure),
    }
}

/// Says what happened to a thing.
pub(super) fn told(output: Output, kind: &Kind, name: &str, what: &str, id: Option<&str>) -> Result<(), Failure> {
    if output.is_table() {
        let id = id.filter(|id| *id != name).map(|id| format!(" ({id})")).unwrap_or_default();
        put(&format!("{}{id} {what}", kind.told(name)))
    } else {
        put(&output.document(&json!({ "kind": kind.one, "name": name, "id": id, "result": what }))?)
    }
}
