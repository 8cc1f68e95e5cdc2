//! `top`: nodes, topics or slow clients, redrawn on a terminal until Ctrl-C.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::client::Client;
use super::failure::Failure;
use super::kinds::{Column, number, text};
use super::output::{Output, put};
use super::table::table;
use super::why::list;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Nodes,
    Topics,
    Clients,
}

#[derive(Debug, Args)]
pub(super) struct Top {
    #[arg(value_enum, default_value_t = What::Nodes)]
    what: What,
    /// Look once, also on a terminal.
    #[arg(long)]
    once: bool,
}

const NODES: &[Column] = &[
    text("NODE", "node"),
    number("CONNS", "metrics.connections"),
    number("IN", "metrics.messages_in"),
    number("OUT", "metrics.messages_out"),
    number("OPEN", "metrics.live_open"),
    number("BACKLOG", "metrics.log_backlog_bytes"),
    number("APPLIED", "metrics.log_applied_index"),
    text("PROBLEM", "problem"),
];

const TOPICS: &[Column] =
    &[text("TOPIC", "topic"), number("MESSAGES", "messages"), number("BYTES", "bytes"), number("OVER", "over")];

const CLIENTS: &[Column] = &[
    text("CLIENT", "client"),
    text("NODE", "node"),
    number("SLOW", "count"),
    number("LONGEST MS", "longest_ms"),
    number("AGO MS", "ago_ms"),
];

pub(super) async fn run(client: &Client, output: Output, of: &Top) -> Result<(), Failure> {
    let (call, items, columns) = match of.what {
        What::Nodes => ("Cluster/Metrics", "nodes", NODES),
        What::Topics => ("Topics/Top", "topics", TOPICS),
        What::Clients => ("Diagnosis/Slow", "receivers", CLIENTS),
    };
    let live = stdout().is_terminal() && output.is_table() && !of.once;
    loop {
        let answer: Value = client.call(call, json!({})).await?;
        if !output.is_table() {
            return put(&output.document(&answer)?);
        }
        let table = table(list(&answer, items), columns, output.style());
        if !live {
            return put(&table);
        }
        // The whole terminal, from its first line on.
        put(&format!("\x1b[H\x1b[2J{table}"))?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use fulmar_proto::document::method;

    #[test]
    fn the_calls_are_there() {
        assert!(method("Cluster/Metrics").is_some());
    }
}
