//! Who may not connect.

use std::sync::Arc;

use fulmar_broker::steer::bans::{Ban, Network, Target};
use fulmar_platform::dialect::time::iso_ms;
use serde_json::{Map, Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::Error;
use crate::operations::input::Input;

/// Bans of a page.
const LIMIT_MAX: u64 = 1_000;

const LIMIT_DEFAULT: u64 = 100;

fn kind(target: &Target) -> &'static str {
    match target {
        Target::ClientId(_) => "client_id",
        Target::UserName(_) => "user_name",
        Target::Address(_) => "address",
    }
}

fn ban_json(ban: &Ban) -> Value {
    let mut json = json!({
        "reason": ban.reason,
        "by": ban.by,
        "since": iso_ms(ban.since.0),
        "automatic": ban.automatic,
    });
    json[kind(&ban.target)] = ban.target.text().into();
    if let Some(until) = ban.until {
        json["until"] = iso_ms(until.0).into();
    }
    json
}

/// The one of three members that is there.
fn target(input: &Input<'_>) -> Result<Target, Fault> {
    let (client_id, user_name) = (input.text("client_id")?, input.text("user_name")?);
    match (client_id, user_name, input.text("address")?) {
        (Some(name), None, None) => Ok(Target::ClientId(name.into())),
        (None, Some(name), None) => Ok(Target::UserName(name.into())),
        (None, None, Some(text)) => {
            let network = Network::parse(&text).map(Target::Address);
            network.ok_or_else(|| Fault::invalid("address must be an address, or a network as in 192.0.2.0/24"))
        }
        _ => Err(Fault::invalid("exactly one of client_id, user_name and address must be there")),
    }
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let kinds = [("client_id", "client_id"), ("user_name", "user_name"), ("address", "address")];
    let wanted = input.word("kind", &kinds)?;
    let after = usize::try_from(input.number("after", u64::from(u32::MAX))?.unwrap_or(0)).unwrap_or(usize::MAX);
    let limit = limit(&input)?;
    let (steer, revision) = call.operations().steer();
    let matching = || steer.bans.iter().filter(|ban| wanted.is_none_or(|wanted| kind(&ban.target) == wanted));
    let (count, bans) = (matching().count(), matching().skip(after).take(limit));
    let bans: Vec<Value> = bans.map(|ban| ban_json(ban)).collect();
    let next = after.saturating_add(bans.len());
    let mut json = json!({ "bans": bans, "count": count, "revision": revision });
    if next < count {
        json["next"] = next.into();
    }
    Answer::ok(json)
}

pub(super) async fn create(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let input = Input::of(&body)?;
    let target = target(&input)?;
    let (reason, for_s) = (input.text("reason")?.unwrap_or_default(), input.number("for_s", u64::MAX)?);
    call.operations().ban(target.clone(), &reason, &call.caller.name, for_s).await?;
    let (steer, _) = call.operations().steer();
    // Somebody may have taken it away already.
    let ban: Arc<Ban> = steer.bans.get(&target).cloned().ok_or_else(|| Error::NoBan(target.text()))?;
    Answer::created(&format!("{} {}", kind(&target), target.text()), ban_json(&ban))
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    let body = call.document()?;
    let target = target(&Input::of(&body)?)?;
    let about = format!("{} {}", kind(&target), target.text());
    call.operations().lift_ban(target).await?;
    Answer::changed(&about, Value::Object(Map::new()))
}

/// How many a page may have.
pub(super) fn limit(input: &Input<'_>) -> Result<usize, Fault> {
    let limit = input.number("limit", LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    if limit == 0 {
        return Err(Fault::invalid(&format!("limit must be a whole number from 1 to {LIMIT_MAX}")));
    }
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}
