//! Log output: text for people, JSON for machines, to standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// What is logged, to be changed while the process runs.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Installs the subscriber of this process. `filter` is in the syntax of `tracing`, for example `info,fulmar=debug`.
///
/// # Errors
/// If the filter does not parse, or a subscriber is installed already.
pub fn install(filter: &str, json: bool) -> anyhow::Result<()> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()?;
    } else {
        let colours = std::io::stderr().is_terminal();
        registry.with(fmt::layer().with_writer(|| OneLine).with_target(false).with_ansi(colours)).try_init()?;
    }
    // There is one subscriber in the life of a process, or it was an error above.
    let _ = FILTER.set(handle);
    Ok(())
}

/// Has other things logged from here on, in the same syntax.
///
/// # Errors
/// If the filter does not parse, or nothing is logged by [`install`].
pub fn set_level(filter: &str) -> anyhow::Result<()> {
    let handle = FILTER.get().ok_or_else(|| anyhow::anyhow!("no subscriber is installed"))?;
    Ok(handle.reload(parse(filter)?)?)
}

/// Whether a filter is one.
///
/// # Errors
/// Why it is none.
pub fn check(filter: &str) -> anyhow::Result<()> {
    parse(filter).map(|_| ())
}

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    // ractor makes a span for each actor, and enters it for each message, unless it is heard only from "warn" on; actix
    // says at "info" what it does at every start; openraft complains of a member that is away five times a second. A filter that
    // names them still decides.
    let filter = format!("ractor=warn,actix_server=warn,openraft=error,openraft::replication=off,sled=warn,{filter}");
    EnvFilter::builder().parse(filter).map_err(|error| anyhow::anyhow!("log.level: {error}"))
}

/// Standard error, where an event stays on its line: what clients call themselves may hold line feeds, and must not pass
/// for events of its own.
#[derive(Debug)]
struct OneLine;

impl Write for OneLine {
    /// Takes an event whole, with the line feed that ends it: so the layer writes it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&one_line(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn one_line(event: &[u8]) -> Vec<u8> {
    let (text, end) = event.strip_suffix(b"\n").map_or((event, &b""[..]), |text| (text, b"\n"));
    let mut line = Vec::with_capacity(event.len());
    for byte in text {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.extend_from_slice(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(one_line(b"connected id=a\r\n2026 INFO forged\n"), b"connected id=a\\r\\n2026 INFO forged\n");
        assert_eq!(one_line(b"\n"), b"\n");
        assert_eq!(one_line(b"no end"), b"no end");
    }
}
