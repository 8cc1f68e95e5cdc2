//! Log output: text for people, JSON for machines, to standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Installs the subscriber of this process. `filter` is in the syntax of `tracing`, for example `info,fulmar=debug`.
///
/// # Errors
/// If the filter does not parse, or a subscriber is installed already.
pub fn install(filter: &str, json: bool) -> anyhow::Result<()> {
    // ractor makes a span for each actor, and enters it for each message, unless it is heard only from "warn" on; actix
    // says at "info" what it does at every start; openraft complains of a member that is away five times a second. A filter that
    // names them still decides.
    let filter = format!("ractor=warn,actix_server=warn,openraft=error,openraft::replication=off,sled=warn,{filter}");
    let filter = EnvFilter::builder().parse(filter).map_err(|error| anyhow::anyhow!("log.level: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()?;
    } else {
        let colours = std::io::stderr().is_terminal();
        registry.with(fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colours)).try_init()?;
    }
    Ok(())
}
