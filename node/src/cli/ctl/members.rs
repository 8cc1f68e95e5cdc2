//! The cluster's members: `cluster members`, `join`, `remove`, and `drain`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;
use super::failure::{EXIT_UNREACHABLE, Failure};
use super::kinds::{Column, number, state, text};
use super::output::{Output, put};
use super::progress::Bar;
use super::table::table;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Who is a member, who leads, and how everybody is.
    Members,
    /// Make a running node without data a member.
    Join {
        /// host:port of its peer listener: what its `cluster.advertise` says.
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    /// End a membership for good: the node does not come back under its id.
    Remove {
        /// Its id, or the beginning of it.
        #[arg(value_name = "NODE", value_parser = node_prefix)]
        node: String,
    },
    /// Have a node let its clients go, hand over what it leads, and end its process.
    Drain {
        /// Its id, or the beginning of it; without, the node at --address.
        #[arg(value_name = "NODE", value_parser = node_prefix)]
        node: Option<String>,
    },
}

pub(super) fn node_prefix(text: &str) -> Result<String, String> {
    let well = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    well.then(|| text.to_ascii_lowercase())
        .ok_or_else(|| "expected up to 16 hex digits, as `members` prints them".into())
}

const COLUMNS: &[Column] = &[
    text("NODE", "node"),
    state("ROLE", "role"),
    state("STATE", "state"),
    number("SESSIONS", "sessions"),
    number("BEHIND", "lag"),
    number("RUN", "generation"),
    text("ADDRESS", "address"),
];

pub(super) async fn run(client: &Client, output: Output, verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Members => {
            let members = of_leader(client, members(client).await?).await;
            match output.is_table() {
                true => put(&shown(&members, output)),
                false => put(&output.document(&members)?),
            }
        }
        Verb::Join { address } => {
            let answer = client.call("Cluster/Join", json!({ "address": address })).await?;
            let node = word(&answer, "node");
            told(output, "joined", node, &format!("{node} is a member now; `members` shows how far it is"))
        }
        Verb::Remove { node } => {
            let node = find(&members(client).await?, node)?;
            client.call("Cluster/Remove", json!({ "node": node })).await?;
            told(output, "removed", &node, &format!("{node} is no member any more, and will not be one again"))
        }
        Verb::Drain { node } => drain(client, output, node.as_deref()).await,
    }
}

pub(super) async fn drain(client: &Client, output: Output, node: Option<&str>) -> Result<(), Failure> {
    let all = members(client).await?;
    let node = match node {
        Some(node) => find(&all, node)?,
        None if client.doors().len() > 1 => {
            return Err(Failure::usage("drain which node? Name it: `fulmar ctl cluster members` lists them"));
        }
        None => word(&all, "node").to_owned(),
    };
    // The node itself cannot tell of its end.
    let itself = word(&all, "node") == node;
    if itself {
        client.turn_away();
    }
    let bar = Bar::open("connections", &node);
    let mut answers = client.stream("Cluster/Drain", json!({ "node": node })).await?;
    let mut begun = false;
    loop {
        match client.next_of("Cluster/Drain", &mut answers).await {
            Ok(Some(step)) => {
                begun = true;
                bar.left(step.get("connections").and_then(Value::as_u64).unwrap_or_default(), word(&step, "stage"));
                if word(&step, "stage") == "ended" {
                    break;
                }
            }
            Ok(None) => break,
            // It was the node itself that told; it may have gone before its first word was sent.
            Err(failure) if (begun || itself) && failure.code == EXIT_UNREACHABLE => break,
            Err(failure) => return Err(failure),
        }
    }
    bar.close();
    told(output, "draining", &node, &format!("{node} is leaving; its process ends when its clients are gone"))
}

/// How connections are evened out.
#[derive(Debug, Args)]
pub(super) struct Rebalance {
    /// Clients a second that each node tells to go.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Say what each node has too many, and tell nobody.
    #[arg(long)]
    dry_run: bool,
}

const SHARES: &[Column] = &[text("NODE", "node"), number("CLIENTS", "clients"), number("SURPLUS", "surplus")];

/// Prints each step; fails if the nodes are not even in the end.
pub(super) async fn rebalance(client: &Client, output: Output, of: &Rebalance) -> Result<(), Failure> {
    let request = json!({ "rate": of.rate, "dry_run": of.dry_run });
    let mut steps = client.stream("Cluster/Rebalance", request).await?;
    let mut last = Value::Null;
    while let Some(step) = client.next_of("Cluster/Rebalance", &mut steps).await? {
        if output.is_table() {
            let nodes = step.get("nodes").and_then(Value::as_array).cloned().unwrap_or_default();
            let figure = |name: &str| step.get(name).and_then(Value::as_u64).unwrap_or_default();
            let state = word(&step, "state");
            put(&format!("{state}: round {}, {} clients told to go", figure("round"), figure("told")))?;
            put(&table(&nodes, SHARES, output.style()))?;
        } else {
            put(&output.document(&step)?)?;
        }
        last = step;
    }
    match word(&last, "state") {
        "even" | "planned" => Ok(()),
        "stopped" => Err(Failure::refused("it does not get more even: clients come back to where they were")),
        _ => Err(Failure::refused("it ended before its time")),
    }
}

fn told(output: Output, what: &str, node: &str, text: &str) -> Result<(), Failure> {
    match output {
        Output::Table | Output::Wide => put(text),
        Output::Json => put(&json!({ what: node }).to_string()),
        Output::Yaml => put(&output.document(&json!({ what: node }))?),
    }
}

fn word<'v>(value: &'v Value, member: &str) -> &'v str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// What the node that answers says of the members.
pub(super) async fn members(client: &Client) -> Result<Value, Failure> {
    client.call("Cluster/ListMembers", json!({})).await
}

/// What the leader says, if it has one of these doors: it alone knows how far behind the others are.
pub(super) async fn of_leader(client: &Client, first: Value) -> Value {
    if client.doors().len() > 1 && word(&first, "node") != word(&first, "leader") {
        for door in client.doors() {
            if let Ok(said) = members(&client.only(door)).await
                && word(&said, "node") == word(&said, "leader")
            {
                return said;
            }
        }
    }
    first
}

/// The member whose id begins so.
fn find(said: &Value, prefix: &str) -> Result<String, Failure> {
    let members = said.get("members").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let known: Vec<&str> = members.iter().map(|member| word(member, "node")).collect();
    let found: Vec<&str> = known.iter().copied().filter(|node| node.starts_with(prefix)).collect();
    match found.as_slice() {
        [node] => Ok((*node).to_owned()),
        [] => Err(Failure::missing(format!("{prefix} begins the id of no member; they are {}", known.join(", ")))),
        several => {
            Err(Failure::refused(format!("{prefix} begins several ids: {}; give more of it", several.join(", "))))
        }
    }
}

/// A line for each member; then what holds for all of them.
fn shown(said: &Value, output: Output) -> String {
    let mut members = said.get("members").and_then(Value::as_array).cloned().unwrap_or_default();
    for member in &mut members {
        let alive = member.get("alive").and_then(Value::as_bool).unwrap_or_default();
        member["state"] = if alive { "up" } else { "down" }.into();
    }
    let number = |member: &str| said.get(member).and_then(Value::as_u64).unwrap_or_default();
    let leads = match word(said, "leader") {
        "" => "nobody leads: a majority of the voters must be up".to_owned(),
        leader => format!("{leader} leads in term {}", number("term")),
    };
    format!(
        "{}\n\ncluster {}: {leads}\nas seen by {}, which has applied entry {}",
        table(&members, COLUMNS, output.style()),
        word(said, "cluster"),
        word(said, "node"),
        number("applied")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Value {
        json!({
            "cluster": "000000000000005f", "leader": "0218d8f80d8020ec", "term": 4, "applied": 1_234,
            "node": "0218d8f80d8020ec",
            "members": [
                { "node": "0218d8f80d8020ec", "role": "leader", "alive": true, "generation": 3, "sessions": 12_345,
                  "lag": 0, "address": "127.0.0.1:21008" },
                { "node": "0000000000000219", "role": "voter", "generation": 3, "sessions": 0, "lag": 17, "address": "127.0.0.1:21108" },
                { "node": "ffff000000000000", "role": "learner", "alive": true, "generation": 3, "sessions": 3 },
            ],
        })
    }

    #[test]
    fn columns_are_aligned_and_absent_members_have_their_defaults() {
        let wanted = "\
NODE              ROLE     STATE  SESSIONS  BEHIND  RUN  ADDRESS
0218d8f80d8020ec  leader   up        12345       0    3  127.0.0.1:21008
0000000000000219  voter    down          0      17    3  127.0.0.1:21108
ffff000000000000  learner  up            3       -    3  -

cluster 000000000000005f: 0218d8f80d8020ec leads in term 4
as seen by 0218d8f80d8020ec, which has applied entry 1234";
        assert_eq!(shown(&said(), Output::Wide), wanted);
        let mut headless = said();
        headless["leader"] = Value::Null;
        assert!(shown(&headless, Output::Wide).contains("nobody leads"));
    }

    #[test]
    fn a_prefix_that_one_member_has_is_enough() {
        let found = |prefix: &str| find(&said(), prefix).map_err(|failure| failure.text);
        assert_eq!(found("02").as_deref(), Ok("0218d8f80d8020ec"));
        assert_eq!(found("f").as_deref(), Ok("ffff000000000000"));
        assert_eq!(found("0000000000000219").as_deref(), Ok("0000000000000219"));
        let several = found("0").expect_err("two begin so");
        assert!(several.contains("0218d8f80d8020ec, 0000000000000219") && several.contains("more"), "{several}");
        assert!(found("a").expect_err("none begins so").contains("ffff000000000000"));
    }

    #[test]
    fn ids_are_hex_digits_in_either_case() {
        assert_eq!(node_prefix("02AB"), Ok("02ab".to_owned()));
        for wrong in ["", "x", "0x1", "00000000000000000", "-1"] {
            assert!(node_prefix(wrong).is_err(), "{wrong}");
        }
    }
}
