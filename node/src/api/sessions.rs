//! Sessions.

use std::net::IpAddr;

use fulmar_broker::SessionKey;
use fulmar_platform::dialect::time;
use futures_util::Stream;
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use super::streams;
use crate::operations::input::Input;
use crate::operations::{
    SessionDetail, SessionFilter, SessionRow, Watched, key_of, node_name, node_of, subscription_json,
};

const LIMIT_MAX: u64 = 200;
const LIMIT_DEFAULT: u64 = 50;

fn session_json(row: &SessionRow) -> Value {
    let (key, view) = (&row.key, &row.view);
    let mut json = json!({
        "session": key.to_string(),
        "dialect": key.dialect(),
        "identity": key.identity(),
        "epoch": view.epoch.0,
        "connected": view.owner.is_some(),
        "node": view.owner.map(|owner| node_name(owner.node)),
        "persistent": view.expiry_s > 0,
        "expiry_s": view.expiry_s,
        "ends_at": view.ends_at.map(|at| time::iso_ms(at.0)),
        "subscriptions": view.subscriptions,
        "queued": view.queue_entries,
        "queued_bytes": view.queue_bytes,
        "has_will": view.has_will,
    });
    if let Some(guest) = &row.guest {
        for member in ["address", "connected_at", "client_id"] {
            json[member] = guest[member].clone();
        }
    }
    json
}

fn detail_json(detail: &SessionDetail) -> Value {
    let will = detail.will.as_ref().map(|will| {
        json!({
            "topic": will.publication.topic.as_str(),
            "qos": will.publication.qos as u8,
            "retain": will.publication.retain,
            "payload_bytes": will.publication.payload.len(),
            "delay_s": will.delay_s,
        })
    });
    let name = detail.row.key.to_string();
    let connected = detail.row.view.owner.is_some();
    let subscriptions = detail.subscriptions.iter().flatten().map(|own| {
        let mut json = subscription_json(own);
        json["session"] = name.as_str().into();
        json["connected"] = connected.into();
        json
    });
    json!({
        "session": session_json(&detail.row),
        "revision": detail.revision,
        "subscriptions_known": detail.subscriptions.is_some(),
        "subscriptions": subscriptions.collect::<Vec<_>>(),
        "queue_oldest": detail.oldest.map(|at| time::iso_ms(at.0)),
        "will": will,
        "connection": detail.row.guest,
    })
}

/// The session that a member names.
pub(super) fn session(input: &Input<'_>) -> Result<SessionKey, Fault> {
    named("session", &input.required("session")?)
}

pub(super) fn named(member: &str, name: &str) -> Result<SessionKey, Fault> {
    key_of(name).ok_or_else(|| Fault::invalid(&format!("{member} must be a session: tenant/dialect/identity")))
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let node = input.text("node")?.map(|name| node_of(&name).ok_or_else(|| Fault::invalid("node must be 16 digits")));
    let address = input.text("address")?.map(|text| text.parse::<IpAddr>());
    let filter = SessionFilter {
        prefix: input.text("prefix")?,
        contains: input.text("contains")?,
        dialect: input.text("dialect")?,
        node: node.transpose()?,
        connected: input.flag("connected")?,
        persistent: input.flag("persistent")?,
        address: address.transpose().map_err(|_| Fault::invalid("address must be an IP address"))?,
    };
    let limit = input.number("limit", LIMIT_MAX)?.filter(|limit| *limit > 0).unwrap_or(LIMIT_DEFAULT);
    let marker = input.text("marker")?.map(|name| named("marker", &name)).transpose()?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let page = call.operations().list_sessions(&filter, marker, limit).await;
    Answer::ok(json!({
        "sessions": page.rows.iter().map(session_json).collect::<Vec<_>>(),
        "count": page.count,
        "marker": page.marker.map(|key| key.to_string()),
        "revision": page.revision,
    }))
}

pub(super) async fn show(call: Call) -> Result<Answer, Fault> {
    let key = session(&Input::of(&*call.document()?)?)?;
    Answer::ok(detail_json(&call.operations().show_session(&key).await?))
}

pub(super) async fn disconnect(call: Call) -> Result<Answer, Fault> {
    let key = session(&Input::of(&*call.document()?)?)?;
    call.operations().disconnect_session(&key).await?;
    Answer::ok(json!({}))
}

pub(super) async fn clear(call: Call) -> Result<Answer, Fault> {
    let key = session(&Input::of(&*call.document()?)?)?;
    call.operations().clear_session(&key).await?;
    Answer::ok(json!({}))
}

pub(super) fn watch(call: Call) -> impl Stream<Item = Result<Value, Fault>> + Send {
    let watched = || {
        let document = call.document()?;
        let input = Input::of(&document)?;
        Ok(Watched::Sessions { prefix: input.text("prefix")?, dialect: input.text("dialect")? })
    };
    let watched = watched();
    streams::watch(&call, watched)
}
