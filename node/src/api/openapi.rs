//! The OpenAPI document, made from the table of routes, so that it cannot say what is not so.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Fault;
use super::call::{Answer, Call};
use super::routes::{Http, Needs, ROUTES, Route};

const SCHEMAS: &str = include_str!("schemas.json");

/// `GET /openapi.json`
pub(super) async fn serve(_: Call) -> Result<Answer, Fault> {
    Answer::ok(document())
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn content(name: &str) -> Value {
    json!({ "application/json": { "schema": schema(name) } })
}

fn operation(route: &Route, http: &Http) -> Value {
    let path = http.path.split(['{', '}']).skip(1).step_by(2);
    let mut parameters: Vec<Value> = path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(http.query.iter().map(|name| {
        let kind = if matches!(*name, "limit" | "offset") { "integer" } else { "string" };
        json!({ "name": name, "in": "query", "schema": { "type": kind } })
    }));
    let mut answer = json!({ "description": "done" });
    if !route.gives.is_empty() {
        answer["content"] = content(route.gives);
    }
    let mut responses = Map::from_iter([(http.status.to_string(), answer)]);
    responses.insert("default".into(), json!({ "description": "not done", "content": content("Error") }));
    let mut operation = json!({
        "operationId": route.name,
        "tags": [route.name.split('.').next()],
        "parameters": parameters,
        "responses": responses,
    });
    if !route.takes.is_empty() {
        operation["requestBody"] = json!({ "required": true, "content": content(route.takes) });
    }
    match route.needs {
        Needs::Nothing => operation["security"] = json!([]),
        Needs::Role(role) => {
            operation["x-role"] = super::people::role_name(role).into();
        }
    }
    operation
}

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (route, http) in ROUTES.iter().filter_map(|route| Some((route, route.http.as_ref()?))) {
        paths.entry(http.path).or_default().insert(http.method.to_ascii_lowercase(), operation(route, http));
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("schemas.json is JSON: a test reads it");
    json!({
        "openapi": "3.0.3",
        "info": { "title": "Fulmar", "version": env!("CARGO_PKG_VERSION"), "description": "The REST API, in the form of Huawei's IoTDA v5" },
        "paths": paths,
        "security": [{ "token": [] }, { "signature": [] }],
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "apiKey", "in": "header", "name": "X-Auth-Token" },
                "signature": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "SDK-HMAC-SHA256 or V11-HMAC-SHA256",
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All references in a document.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::String(target) if name == "$ref" => found.push(target.clone()),
                        value => references(value, found),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn routes_and_document_are_the_same() {
        let document = document();
        let documented: Vec<String> = document["paths"]
            .as_object()
            .expect("paths")
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods").keys();
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        assert_eq!(documented.len(), ROUTES.len());
        for route in ROUTES {
            let http = route.http.as_ref().expect("it is in REST");
            let operation = &document["paths"][http.path][http.method.to_ascii_lowercase()];
            assert_eq!(operation["operationId"], route.name);
            let parameters = operation["parameters"].as_array().expect("parameters").len();
            assert_eq!(parameters, http.path.matches('{').count() + http.query.len(), "{}", route.name);
            assert!(operation["responses"][http.status.to_string()].is_object());
        }
    }

    #[test]
    fn every_schema_is_there_and_used() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for target in &found {
            let name = target.strip_prefix("#/components/schemas/").expect("a schema");
            assert!(schemas.contains_key(name), "{name} is missing");
        }
        for name in schemas.keys() {
            assert!(found.iter().any(|target| target.ends_with(&format!("/{name}"))), "{name} is not used");
        }
    }
}
