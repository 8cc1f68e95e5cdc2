//! `disconnect`: clients are cut off, and may come back at once. A ban keeps them away.

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::failure::Failure;
use super::filters::Filters;
use super::get::{named, one, told};
use super::output::Output;

#[derive(Debug, Args)]
pub(super) struct Disconnect {
    /// sessions; also KIND/NAME.
    #[arg(value_name = "KIND")]
    kind: String,
    /// Ids, or the names that people call them by.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub(super) async fn run(client: &Client, output: Output, of: &Disconnect) -> Result<(), Failure> {
    let (kind, names) = named(&of.kind, &of.names)?;
    let call = kind.needs(kind.disconnect.as_ref(), "disconnect")?;
    if names.is_empty() {
        return Err(Failure::usage(format!("disconnect which {}? Name them", kind.name)));
    }
    for name in &names {
        let item = one(client, kind, name, &Filters::default()).await?;
        let id = kind.id_of(&item).unwrap_or_else(|| name.clone());
        client.call(call.call, json!({ call.by: id })).await?;
        told(output, kind, name, "disconnected", Some(&id))?;
    }
    Ok(())
}
