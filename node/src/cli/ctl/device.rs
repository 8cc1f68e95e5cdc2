//! What one asks of a device and of a rule: `command`, and `test-rule`.

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::failure::Failure;
use super::filters::Filters;
use super::get::{members, one};
use super::kinds;
use super::output::{Output, put};

#[derive(Debug, Args)]
pub(super) struct Command {
    #[arg(value_name = "DEVICE")]
    device: String,
    /// The command's name, as the product model has it.
    #[arg(value_name = "COMMAND")]
    command: String,
    /// Its parameters: NAME=VALUE, where a value is JSON, or else text.
    #[arg(value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// The service that has it.
    #[arg(long, short = 's', value_name = "SERVICE")]
    service: Option<String>,
    /// All parameters as a JSON object.
    #[arg(long, value_name = "JSON", conflicts_with = "parameters")]
    json: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct TestRule {
    /// A rule's id or name; without, --select and --where are tried.
    #[arg(value_name = "RULE", required_unless_present_any = ["select", "filter"])]
    rule: Option<String>,
    /// The event, as JSON; `-` reads it from standard input.
    #[arg(long, value_name = "JSON")]
    event: String,
    #[arg(long, value_name = "SQL")]
    select: Option<String>,
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,
}

/// JSON, of a flag or of standard input.
pub(super) fn given(text: &str, flag: &str) -> Result<Value, Failure> {
    let read = match text {
        "-" => {
            std::io::read_to_string(std::io::stdin()).map_err(|error| Failure::usage(format!("{flag} -: {error}")))?
        }
        text => text.to_owned(),
    };
    serde_json::from_str(&read).map_err(|error| Failure::usage(format!("{flag}: no JSON: {error}")))
}

fn parameters(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let pair = |pair: &String| {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| Failure::usage(format!("{pair}: allowed: NAME=VALUE")))?;
        Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()))))
    };
    pairs.iter().map(pair).collect()
}

/// Sends a command, and shows what the device answers.
pub(super) async fn command(client: &Client, output: Output, of: &Command) -> Result<(), Failure> {
    let paras = match &of.json {
        Some(text) => given(text, "--json")?,
        None => Value::Object(parameters(&of.parameters)?),
    };
    let mut body = json!({ "command_name": of.command, "paras": paras });
    if let Some(service) = &of.service {
        body["service_id"] = service.clone().into();
    }
    let answer = client.call("Commands/Create", json!({ "device_id": of.device, "body": body })).await?;
    if let Some(error) = answer.get("error_code").and_then(Value::as_str).filter(|code| !code.is_empty()) {
        let text = answer.get("error_msg").and_then(Value::as_str).unwrap_or_default();
        let advice = format!("`fulmar ctl describe device {}` shows how it is", of.device);
        return Err(Failure::refused(format!("{error}: {text}; {advice}")));
    }
    shown(output, &answer)
}

/// Has a rule judge an event, and changes nothing.
pub(super) async fn test_rule(client: &Client, output: Output, of: &TestRule) -> Result<(), Failure> {
    let mut body = Map::from_iter([("event".to_owned(), given(&of.event, "--event")?)]);
    for (name, text) in [("select", &of.select), ("where", &of.filter)] {
        body.extend(text.clone().map(|text| (name.to_owned(), text.into())));
    }
    let answer = match &of.rule {
        None => client.call("Rules/TestTexts", json!({ "body": body })).await?,
        Some(name) => {
            let kind = kinds::find("rule")?;
            let rule = one(client, kind, name, &Filters::default()).await?;
            let id = kind.id_of(&rule).unwrap_or_default();
            client.call("Rules/Test", json!({ "rule_id": id, "body": body })).await?
        }
    };
    shown(output, &answer)?;
    match answer.get("error").and_then(Value::as_str).filter(|error| !error.is_empty()) {
        Some(error) => Err(Failure::refused(format!("the rule cannot judge this event: {error}"))),
        None => Ok(()),
    }
}

fn shown(output: Output, answer: &Value) -> Result<(), Failure> {
    match output.is_table() {
        true => put(&members(answer, 0).join("\n")),
        false => put(&output.document(answer)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_json_or_text() {
        let given = ["a=1", "b=x y", "c={\"d\":true}", "e=\"1\"", "f="].map(str::to_owned);
        let wanted = json!({ "a": 1, "b": "x y", "c": { "d": true }, "e": "1", "f": "" });
        assert_eq!(parameters(&given).map(Value::Object), Ok(wanted));
        let failure = parameters(&["a".to_owned()]).expect_err("no pair");
        assert_eq!((failure.code, &*failure.text), (2, "a: allowed: NAME=VALUE"));
        assert!(super::given("{", "--event").expect_err("no JSON").text.starts_with("--event: no JSON: "));
    }
}
