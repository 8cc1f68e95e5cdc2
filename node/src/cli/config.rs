//! `fulmar config check|show|schema`: looks at a configuration without running it. Results go to standard output, what
//! is wrong to standard error.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, ConfigError, Loaded};

/// Says `ok`, or everything that is wrong with the configuration and the files it names, one problem a line, and exits
/// with 1.
pub(super) fn check(
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &[(String, String)],
) -> ExitCode {
    told(Loaded::load(path, environment, overrides).and_then(|loaded| {
        loaded.check_files()?;
        if let Some(warning) = loaded.config.cluster.warning() {
            eprintln!("warning: {warning}");
        }
        Ok("ok".into())
    }))
}

/// Prints the configuration that would be in effect as TOML, secrets left out; each value that is not a default says
/// where it came from.
pub(super) fn show(
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &[(String, String)],
) -> ExitCode {
    told(Loaded::load(path, environment, overrides).map(|loaded| loaded.to_toml().trim_end().to_owned()))
}

/// Prints the JSON schema of the configuration file.
pub(super) fn schema() -> ExitCode {
    told(Ok(Config::schema()))
}

fn told(result: Result<String, ConfigError>) -> ExitCode {
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
