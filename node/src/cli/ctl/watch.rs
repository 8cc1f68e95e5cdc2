//! `watch`: things of a kind as they change. Every event has the revision of the log at which it happened, which all
//! nodes count alike: if the node that tells them goes, another one goes on where it stopped.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::Client;
use super::failure::{EXIT_UNREACHABLE, Failure};
use super::filters::Filters;
use super::kinds;
use super::output::{Output, note, put};

/// Between two rounds of asking every node, while none answers.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Rounds without an answer after which it ends.
const ROUNDS_MAX: u32 = 60;

#[derive(Debug, Args)]
pub(super) struct Watch {
    #[arg(value_name = "KIND")]
    kind: String,
    /// Go on after this revision, instead of beginning with what is there.
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// End after so many events.
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    #[command(flatten)]
    filters: Filters,
}

pub(super) async fn run(client: &Client, output: Output, of: &Watch) -> Result<(), Failure> {
    let kind = kinds::find(&of.kind)?;
    let call = *kind.needs(kind.watch.as_ref(), "watch")?;
    let filters = of.filters.of(call, true)?;
    let (mut revision, mut told, mut rounds) = (of.revision, 0_u64, 0_u32);
    loop {
        let mut request = filters.clone();
        request.extend(revision.map(|revision| ("revision".to_owned(), revision.into())));
        let mut answers = match client.stream(call, Value::Object(request)).await {
            Ok(answers) => answers,
            Err(failure) if failure.code == EXIT_UNREACHABLE && told > 0 && rounds < ROUNDS_MAX => {
                rounds += 1;
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        loop {
            let news = match client.next(&mut answers).await {
                Ok(Some(news)) => news,
                Ok(None) => return Err(Failure::refused("the node has ended the watch")),
                Err(failure) if failure.code == EXIT_UNREACHABLE => {
                    note(&format!("{} has gone; going on elsewhere", client.address()));
                    client.turn_away();
                    break;
                }
                Err(failure) => return Err(failure),
            };
            rounds = 0;
            let what = news.get("kind").and_then(Value::as_str).unwrap_or_default();
            // What is there comes in pages: until the last one there is nothing to go on behind.
            if what != "current" {
                revision = news.get("revision").and_then(Value::as_u64).or(revision);
            }
            if what == "progress" {
                continue;
            }
            for line in lines(&news, what, output)? {
                put(&line)?;
                told += 1;
                if of.events.is_some_and(|events| told >= events) {
                    return Ok(());
                }
            }
        }
    }
}

/// What is told on lines: for people one for each event, for programs all of it.
fn lines(news: &Value, what: &str, output: Output) -> Result<Vec<String>, Failure> {
    match output {
        Output::Json => return Ok(vec![news.to_string()]),
        Output::Yaml => return Ok(vec![format!("---\n{}", output.document(news)?)]),
        Output::Table | Output::Wide => {}
    }
    let revision = news.get("revision").and_then(kinds::word).unwrap_or_else(|| "-".to_owned());
    let events = news.get("events").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if events.is_empty() && what != "synced" {
        let mut rest = Vec::new();
        flat(news, "", &mut rest);
        return Ok(vec![format!("{revision:>8}  {}", rest.join("  "))]);
    }
    let line = |event: &Value| {
        let mut rest = Vec::new();
        flat(event, "", &mut rest);
        format!("{revision:>8}  {what:<8}  {}", rest.join("  "))
    };
    Ok(events.iter().map(line).collect())
}

/// `name=value` of every member, however deep.
fn flat(value: &Value, path: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter().filter(|(name, _)| *name != "revision") {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flat(value, &path, into);
            }
        }
        Value::Null => {}
        Value::Array(_) => into.push(format!("{path}={value}")),
        simple => into.push(format!("{path}={}", kinds::word(simple).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = json!({ "what": "connected", "session": "s", "deep": { "a": 1, "tags": [1] } });
        let news = json!({ "revision": 17, "kind": "changed", "events": [event] });
        let wanted = "      17  changed   deep.a=1  deep.tags=[1]  session=s  what=connected";
        assert_eq!(lines(&news, "changed", Output::Table), Ok(vec![wanted.to_owned()]));
        assert_eq!(lines(&news, "changed", Output::Json), Ok(vec![news.to_string()]));
        let reset = json!({ "revision": 18, "kind": "reset", "reason": "too old" });
        let wanted = "      18  kind=reset  reason=too old";
        assert_eq!(lines(&reset, "reset", Output::Table), Ok(vec![wanted.to_owned()]));
    }
}
