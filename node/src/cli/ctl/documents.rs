//! Documents that say how things are to be: `kind`, a name, and the `spec` that the call takes. YAML or JSON, several in a
//! file.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::failure::Failure;
use super::kinds::{self, Kind, word};

/// Bytes of a file of documents.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One thing as it is to be.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Where it stands: `a.yaml: document 2 (rule hot)`.
    pub(super) place: String,
    pub(super) kind: &'static Kind,
    /// Absent where neither the document nor its spec has one.
    pub(super) name: Option<String>,
    /// Members of the request beside its body: whose message it is.
    pub(super) within: Map<String, Value>,
    pub(super) spec: Map<String, Value>,
}

/// The documents of a file; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Vec<Wanted>, Failure> {
    let place = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let failed = |error: std::io::Error| Failure::usage(format!("{place}: {error}"));
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text),
        false => std::fs::File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text),
    };
    if read.map_err(failed)? as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{place}: is longer than {FILE_BYTES_MAX} bytes")));
    }
    wanted(&text, &place)
}

/// The values of a text, in YAML or JSON.
pub(super) fn values(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with(['{', '[']) {
        let json: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        if let Ok(values) = json {
            return Ok(values);
        }
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())
}

fn wanted(text: &str, place: &str) -> Result<Vec<Wanted>, Failure> {
    let values = values(text).map_err(|error| Failure::usage(format!("{place}: {error}")))?;
    let mut documents = Vec::new();
    for value in values {
        match value {
            Value::Array(list) => documents.extend(list),
            Value::Object(mut list) if list.get("kind").is_some_and(|kind| kind == "List") => {
                match list.remove("items") {
                    Some(Value::Array(items)) => documents.extend(items),
                    _ => return Err(Failure::usage(format!("{place}: a List has items"))),
                }
            }
            Value::Null => {}
            other => documents.push(other),
        }
    }
    if documents.is_empty() {
        return Err(Failure::usage(format!("{place}: has no document")));
    }
    documents
        .into_iter()
        .enumerate()
        .map(|(index, value)| document(value, &format!("{place}: document {}", index + 1)))
        .collect()
}

fn document(value: Value, place: &str) -> Result<Wanted, Failure> {
    let wrong = |what: &str| Failure::usage(format!("{place}: {what}"));
    let Value::Object(mut members) = value else { return Err(wrong("is no mapping of kind, name and spec")) };
    let kind = match members.remove("kind") {
        Some(Value::String(kind)) => kinds::find(&kind).map_err(|failure| failure.about(format!("{place}: kind")))?,
        Some(_) => return Err(wrong("kind: is no text")),
        None => return Err(wrong("kind: is missing")),
    };
    let mut within = match members.remove("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(within)) => within,
        Some(_) => return Err(wrong("metadata: is no mapping")),
    };
    let name = match (members.remove("name"), within.remove("name")) {
        (Some(_), Some(_)) => return Err(wrong("name: stands beside metadata and in it")),
        (name, in_metadata) => name.or(in_metadata),
    };
    let spec = match members.remove("spec") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(spec)) => spec,
        Some(_) => return Err(wrong("spec: is no mapping")),
    };
    if let Some(surplus) = members.keys().next() {
        return Err(wrong(&format!("{surplus}: is no member of a document; there are kind, name, metadata and spec")));
    }
    let name = match name {
        Some(name) => Some(word(&name).ok_or_else(|| wrong("name: is no text"))?),
        None => [kind.id, kind.called].into_iter().find_map(|member| spec.get(member).and_then(word)),
    };
    let place =
        format!("{place} ({})", name.as_ref().map_or(kind.one.to_owned(), |name| format!("{} {name}", kind.one)));
    Ok(Wanted { place, kind, name, within, spec })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_read_in_both_languages() {
        let yaml = "kind: Device\nname: meter\nspec:\n  product_id: p\n---\nkind: rule\nmetadata:\n  name: hot\nspec: {where: \"a > 1\"}\n";
        let json = r#"[{"kind": "Device", "name": "meter", "spec": {"product_id": "p"}},
                       {"kind": "rule", "metadata": {"name": "hot"}, "spec": {"where": "a > 1"}}]"#;
        let list = format!("kind: List\nitems: {json}");
        for text in [yaml, json, &list] {
            let wanted = wanted(text, "f").expect("documents");
            let shown: Vec<_> = wanted.iter().map(|one| (one.kind.one, one.name.as_deref(), &*one.place)).collect();
            let first = ("device", Some("meter"), "f: document 1 (device meter)");
            assert_eq!(shown, [first, ("rule", Some("hot"), "f: document 2 (rule hot)")], "{text}");
            assert_eq!(Value::Object(wanted[1].spec.clone()), json!({ "where": "a > 1" }));
        }
        let named = wanted("{kind: device, spec: {device_id: d}}", "f").expect("a document");
        assert_eq!(named[0].name.as_deref(), Some("d"));
        let message =
            wanted("{kind: message, metadata: {device_id: d}, spec: {message: hi}}", "f").expect("a document");
        assert_eq!((&message[0].name, &message[0].within["device_id"]), (&None, &json!("d")));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, wanted_text) in [
            ("", "f: has no document"),
            ("name: a", "f: document 1: kind: is missing"),
            ("kind: device\n---\nkind: thing", "f: document 2: kind: there is no kind thing"),
            ("kind: device\nspec: 1", "f: document 1: spec: is no mapping"),
            ("kind: device\nspecs: {}", "f: document 1: specs: is no member of a document"),
            ("kind: device\nname: [a]", "f: document 1: name: is no text"),
            ("kind: device\nname: a\nmetadata: {name: b}", "f: document 1: name: stands beside metadata and in it"),
            ("- 1", "f: document 1: is no mapping"),
        ] {
            let failure = wanted(text, "f").expect_err(text);
            assert!(failure.code == 2 && failure.text.starts_with(wanted_text), "{text}: {failure}");
        }
        let syntax = wanted("kind: device\n  spec: [", "f").expect_err("no YAML");
        assert!(syntax.text.starts_with("f: ") && syntax.text.contains("line 2"), "{syntax}");
        assert!(wanted("a: 1\na: 2", "f").expect_err("twice").text.contains('a'));
    }
}
