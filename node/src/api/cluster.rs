//! The cluster and its members.

use fulmar_broker::NodeId;
use serde_json::json;

use super::Fault;
use super::call::{Answer, Call};
use crate::cluster::Role;
use crate::config::units::check_host_port;
use crate::operations::input::Input;

/// How nodes are called: 16 hexadecimal digits.
pub(super) fn node_name(node: NodeId) -> String {
    format!("{:016x}", node.0)
}

/// A member's id, whole.
fn node(input: &Input<'_>) -> Result<NodeId, Fault> {
    let text = input.required("node")?;
    let well = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let node = u64::from_str_radix(&text, 16).ok().filter(|node| well && *node != 0);
    node.map(NodeId).ok_or_else(|| Fault::invalid("node must be the 16 hexadecimal digits of a member"))
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Voter => "voter",
        Role::Learner => "learner",
    }
}

pub(super) async fn list_members(call: Call) -> Result<Answer, Fault> {
    let replica = call.operations().replica();
    let view = replica.view();
    let members = view.members.into_iter().map(|member| {
        json!({
            "node": node_name(member.node),
            "address": member.address,
            "role": role(member.role),
            "alive": member.alive,
            "generation": member.generation.0,
            "sessions": member.sessions,
            "lag": member.lag,
        })
    });
    Answer::ok(json!({
        "cluster": format!("{:016x}", view.cluster),
        "leader": view.leader.map(node_name),
        "term": view.term,
        "applied": view.applied,
        "members": members.collect::<Vec<_>>(),
        "node": node_name(replica.run().0),
    }))
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
    let node = node(&Input::of(&body)?)?;
    call.operations().replica().remove(node).await.map_err(Fault::precondition)?;
    Answer::ok(json!({}))
}

/// Has this node leave, as SIGTERM does.
pub(super) async fn drain(call: Call) -> Result<Answer, Fault> {
    (call.api.drain)();
    Answer::ok(json!({}))
}
