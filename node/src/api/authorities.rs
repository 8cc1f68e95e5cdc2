//! Authorities that vouch for certificates of devices.

use fulmar_platform::dialect::time;
use fulmar_platform::registry::{Authority, Kind, Registry};
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call};
use crate::operations::NewAuthority;
use crate::operations::input::Input;

fn authority_json(authority: &Authority) -> Value {
    json!({
        "certificate_id": authority.id,
        "name": authority.name,
        "product_id": (!authority.product_id.is_empty()).then_some(&authority.product_id),
        "issues": authority.key_pem.is_some(),
        "create_time": time::compact(authority.created_ms),
    })
}

pub(super) async fn upload(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let input = Input::of(&body)?;
    let new = NewAuthority {
        name: input.required("name")?,
        product_id: input.text("product_id")?,
        // The SDK calls it `content`.
        pem: match input.text("content")? {
            Some(content) => content,
            None => input.required("certificate")?,
        },
    };
    let authority = call.operations().upload_authority(&new).await?;
    Answer::created(&authority.id, authority_json(&authority))
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let registry = call.operations().read(Registry::clone);
    let mut authorities: Vec<_> = registry.authorities().map(|kept| (kept.oid, kept.record.clone())).collect();
    authorities.sort_unstable_by_key(|(oid, _)| std::cmp::Reverse(*oid));
    let listed: Vec<Value> = authorities.iter().map(|(_, authority)| authority_json(authority)).collect();
    Answer::ok(json!({ "certificates": listed }))
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    call.operations().delete(Kind::Authority, call.param("certificate_id")).await?;
    Answer::empty()
}

/// `POST /products/{product_id}/ca`
pub(super) async fn create_product_ca(call: Call) -> Result<Answer, Fault> {
    let made = call.operations().create_product_ca(call.param("product_id")).await?;
    let mut json = authority_json(&made.authority);
    json["certificate"] = made.certificate_pem.into();
    Answer::created(&made.authority.id, json)
}
