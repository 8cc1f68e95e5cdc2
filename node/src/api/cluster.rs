//! The cluster and its members.

use fulmar_broker::NodeId;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use super::streams;
use crate::cluster::Role;
use crate::config::units::check_host_port;
use crate::operations::input::Input;
use crate::operations::{Balance, Leaving, REBALANCE_RATE, Share, Watched, node_name, node_of};

/// A member's id, whole.
fn node_in(input: &Input<'_>) -> Result<Option<NodeId>, Fault> {
    let told = |text: String| {
        node_of(&text).ok_or_else(|| Fault::invalid("node must be the 16 hexadecimal digits of a member"))
    };
    input.text("node")?.map(told).transpose()
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Voter => "voter",
        Role::Learner => "learner",
    }
}

pub(super) async fn list_members(call: Call) -> Result<Answer, Fault> {
    let own = call.operations().replica().run().0;
    let (view, reports) = call.operations().members().await;
    let members = view.members.into_iter().zip(reports).map(|(member, (_, report))| {
        let mut json = json!({
            "node": node_name(member.node),
            "address": member.address,
            "role": role(member.role),
            "alive": member.alive,
            "generation": member.generation.0,
            "sessions": member.sessions,
            "lag": member.lag,
            "reached": report.is_ok(),
        });
        match report {
            Ok(report) => {
                for name in ["acts", "version", "uptime_ms", "stage", "connections", "reaches"] {
                    json[name] = report[name].clone();
                }
            }
            Err(problem) => json["problem"] = problem.into(),
        }
        json
    });
    Answer::ok(json!({
        "cluster": format!("{:016x}", view.cluster),
        "leader": view.leader.map(node_name),
        "term": view.term,
        "applied": view.applied,
        "members": members.collect::<Vec<_>>(),
        "node": node_name(own),
    }))
}

pub(super) async fn metrics(call: Call) -> Result<Answer, Fault> {
    let (_, reports) = call.operations().members().await;
    let nodes = reports.into_iter().map(|(node, report)| match report {
        Ok(report) => json!({ "node": node_name(node), "metrics": report["metrics"] }),
        Err(problem) => json!({ "node": node_name(node), "problem": problem }),
    });
    Answer::ok(json!({ "nodes": nodes.collect::<Vec<_>>() }))
}

pub(super) async fn join(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let address = Input::of(&body)?.required("address")?;
    if let Err(allowed) = check_host_port(&address) {
        return Err(Fault::invalid(&format!("address is {address:?}; allowed: {allowed}")));
    }
    let admitted = call.operations().replica().admit(&address).await.map_err(Fault::precondition)?;
    let node = node_name(admitted);
    Answer::created(&node, json!({ "node": node }))
}

pub(super) async fn remove(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let node = node_in(&Input::of(&body)?)?.ok_or_else(|| Fault::missing("node"))?;
    call.operations().replica().remove(node).await.map_err(Fault::precondition)?;
    Answer::ok(json!({}))
}

/// Has a node leave, as SIGTERM does; tells how far it is.
pub(super) fn drain(call: Call) -> impl Stream<Item = Result<Value, Fault>> + Send {
    let begun = async move {
        let document = call.document()?;
        let node = node_in(&Input::of(&document)?)?;
        Ok::<_, Fault>(call.operations().drain(node).await?)
    };
    let told = |leaving: Leaving| {
        Ok(json!({
            "node": node_name(leaving.node),
            "stage": leaving.stage,
            "connections": leaving.connections,
        }))
    };
    stream::once(begun)
        .map(move |begun| begun.map_or_else(streams::refused, |parts| streams::of(parts, told)))
        .flatten()
}

/// Evens out the connections of the nodes; tells how far it is.
pub(super) fn rebalance(call: Call) -> impl Stream<Item = Result<Value, Fault>> + Send {
    let begun = async move {
        let document = call.document()?;
        let input = Input::of(&document)?;
        let (rate, dry) = (input.number("rate", u64::MAX)?.unwrap_or(REBALANCE_RATE), input.flag("dry_run")?);
        Ok::<_, Fault>(call.operations().rebalance(rate, dry.unwrap_or_default()).await?)
    };
    let told = |balance: Balance| {
        let share = |share: &Share| json!({ "node": node_name(share.node), "clients": share.clients, "surplus": share.surplus });
        Ok(json!({
            "state": balance.state,
            "round": balance.round,
            "told": balance.told,
            "nodes": balance.shares.iter().map(share).collect::<Vec<_>>(),
        }))
    };
    stream::once(begun)
        .map(move |begun| begun.map_or_else(streams::refused, |parts| streams::of(parts, told)))
        .flatten()
}

pub(super) fn watch(call: Call) -> impl Stream<Item = Result<Value, Fault>> + Send {
    streams::watch(&call, Ok(Watched::Cluster))
}
