//! `recover`: a new cluster of one out of a stopped node's data. It asks nobody: it works on the directory itself.

use std::io::{BufRead, IsTerminal, stdin};
use std::path::PathBuf;

use clap::Args;
use fulmar_platform::dialect::time::iso_ms;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{Output, note, put};
use crate::cluster::clock::wall_ms;
use crate::cluster::recover::{Plan, RecoverError, plan};

/// What `--help` says at its end.
const CHOOSE: &str = "\
Which survivor: `fulmar verify DIR` prints for each `last: entry N of term T`. Take the one with the highest term, and of
those the one with the highest entry: it has everything that any other of them has. Keep a copy of its directory first.

Afterwards: start it, and start the others, and new nodes, with empty directories; they join. Data of a lost member is that
of another cluster from now on: such a node is refused, and stays unready. Two of three lost members that are started
together on their old data are the old cluster again: wipe them first.";

#[derive(Debug, Args)]
#[command(after_help = CHOOSE)]
pub(super) struct Recover {
    /// The node's directory: what its `node.data_dir` says. The node must be stopped.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Do it without asking. Without, and where nobody can be asked, it is only shown what would be done.
    #[arg(long)]
    yes: bool,
    /// If entries are damaged that were acknowledged, keep those before them and lose the rest.
    #[arg(long)]
    accept_damage: bool,
}

pub(super) fn run(output: Output, of: &Recover) -> Result<(), Failure> {
    let plan = plan(&of.data_dir, of.accept_damage).map_err(|error| refused(of, &error))?;
    let (node, said) = (format!("{:016x}", plan.node.0), document(&plan));
    if output.is_table() {
        put(&shown(&plan, wall_ms()))?;
    }
    if !(of.yes || agreed(&node)?) {
        if !output.is_table() {
            put(&output.document(&said)?)?;
        }
        return Err(Failure::refused("nothing was changed: --yes does it"));
    }
    let by = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_default();
    plan.carry_out(&by).map_err(|error| refused(of, &error))?;
    if !output.is_table() {
        return put(&output.document(&said)?);
    }
    put(&format!("\n{node} is a cluster of one now: start it, then the others with empty directories."))
}

fn refused(of: &Recover, error: &RecoverError) -> Failure {
    let advice = match error {
        RecoverError::Open(crate::store::log::OpenError::Damaged(damage)) if damage.index.is_some() => {
            "; if no other survivor is whole, --accept-damage keeps what comes before it"
        }
        RecoverError::Open(crate::store::log::OpenError::Locked { .. }) => "; stop the node first",
        _ => "",
    };
    Failure::refused(format!("{error}{advice} ({})", of.data_dir.display()))
}

/// Has somebody at a terminal type the node's id.
fn agreed(node: &str) -> Result<bool, Failure> {
    if !stdin().is_terminal() {
        return Ok(false);
    }
    note(&format!("type the node's id, {node}, to do it:"));
    let mut typed = String::new();
    let read = stdin().lock().read_line(&mut typed);
    read.map_err(|error| Failure::refused(format!("cannot read the answer: {error}")))?;
    Ok(typed.trim().eq_ignore_ascii_case(node))
}

fn document(plan: &Plan) -> Value {
    let position = |at: &crate::store::log::Position| json!({ "index": at.index, "term": at.term });
    let lost = plan
        .lost
        .iter()
        .map(|lost| json!({ "node": format!("{:016x}", lost.node.0), "address": lost.address, "voter": lost.voter }));
    json!({
        "data_dir": plan.data_dir,
        "node": format!("{:016x}", plan.node.0),
        "cluster": format!("{:016x}", plan.cluster),
        "new_cluster": format!("{:016x}", plan.recovered),
        "last": position(&plan.last),
        "acknowledged": plan.acknowledged.as_ref().map(position),
        "committed": plan.committed.as_ref().map(position),
        "time": iso_ms(plan.at.0),
        "damage": plan.damage.as_ref().map(ToString::to_string),
        "restoring": plan.restoring,
        "lost": lost.collect::<Vec<_>>(),
        "sessions": plan.sessions,
        "queued": plan.queued,
        "retained": plan.retained,
        "devices": plan.devices,
    })
}

/// How long ago, roughly: `3 s`, `12 min`, `5 h`, `2 d`.
fn ago(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

fn shown(plan: &Plan, now_ms: u64) -> String {
    let mut lines = vec![
        format!("node        {:016x} in {}", plan.node.0, plan.data_dir.display()),
        format!("cluster     {:016x}, of which it becomes {:016x}", plan.cluster, plan.recovered),
        format!(
            "last entry  {} of term {}, at {}, {} ago by this machine's clock",
            plan.last.index,
            plan.last.term,
            iso_ms(plan.at.0),
            ago(now_ms.saturating_sub(plan.at.0))
        ),
        format!(
            "keeps       {} sessions with {} queued messages, {} retained, {} devices",
            plan.sessions, plan.queued, plan.retained, plan.devices
        ),
    ];
    if let Some(damage) = &plan.damage {
        let to = plan.acknowledged.map_or(0, |last| last.index);
        lines.push(format!("LOSES       entries {} to {to}: {damage}", plan.last.index + 1));
    }
    if plan.restoring {
        lines.push("unfinished  a backup was being put back: it must be put back again, with --replace".to_owned());
    }
    for lost in &plan.lost {
        let role = if lost.voter { "voter" } else { "learner" };
        let address = if lost.address.is_empty() { "address unknown" } else { &lost.address };
        lines.push(format!("gives up    {:016x}, {role}, {address}", lost.node.0));
    }
    lines.push(
        "\nEvery entry that is whole is kept, also what this node cannot know to be committed. Members that are given up end \
         for good:\ntheir clients' sessions stay, wills of those that were connected are sent."
            .to_owned(),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_rough() {
        for (ms, wanted) in
            [(999, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h"), (172_800_000, "2 d")]
        {
            assert_eq!(ago(ms), wanted);
        }
    }
}
