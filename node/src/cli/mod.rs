//! The command line.

mod config;
mod ctl;
mod dev;
mod drain;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::log::Format;
use crate::config::{Config, environment};
use crate::telemetry;

/// A clustered, actor-based MQTT message router.
#[derive(Debug, Parser)]
#[command(name = "fulmar", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run one node.
    Serve(Configured),
    /// Have the node of a data directory let its clients go and stay, and wait until they are gone: exit 0 if they are, or
    /// if no node runs there, 1 if it takes longer than the timeout.
    Drain(drain::Options),
    /// Run a cluster on this machine to try things out: certificates, demo credentials, every endpoint printed.
    Dev(dev::Options),
    /// Ask running nodes about their cluster, or have it changed.
    Ctl(Box<ctl::Options>),
    /// Look at a configuration without running it.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Look at the data of a node that is not running, or at a backup, and change nothing: exit 0 if it is intact, 1 if the log has a torn
    /// tail that nobody was promised, 2 if it is damaged, 3 if it cannot be read or a node has it open.
    Verify {
        /// What `node.data_dir` names, or the file of a backup.
        #[arg(value_name = "DATA_DIR")]
        data_dir: PathBuf,
        /// How what was found is printed.
        #[arg(short = 'o', long, value_enum, default_value_t = verify::Output::Table)]
        output: verify::Output,
    },
}

/// Where a configuration comes from: the file, then `FULMAR__SECTION__KEY` of the environment, then `--set`.
#[derive(Debug, Args)]
struct Configured {
    /// Configuration file, TOML. Without one, every key has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One key's value, for example `--set session.receive_maximum=64`. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Say what is wrong with a configuration; exit 1 if anything is.
    Check(Configured),
    /// Print the configuration that would be in effect, without secrets.
    Show(Configured),
    /// Print the JSON schema of the configuration file.
    Schema,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Configured {
    fn load(&self) -> anyhow::Result<Config> {
        Ok(Config::load(self.config.as_deref(), environment(), &self.set)?)
    }
}

/// Runs the program and says how it went: 0 well, 1 not, 2 for a wrong command line; `verify` and `ctl` have
/// their own.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.verb {
        Verb::Serve(configured) => serve(&configured),
        Verb::Drain(options) => drain::run(&options),
        Verb::Dev(options) => dev::run(options),
        Verb::Ctl(options) => return ctl::run(&options),
        Verb::Config(verb) => return config_verb(&verb),
        Verb::Verify { data_dir, output } => return verify::run(&data_dir, output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fulmar: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers a wrong command line, or one that asks for help. 2 would say of `verify` that the data is damaged.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be said where standard error is closed.
    let _ = error.print();
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if std::env::args().nth(1).as_deref() == Some("verify") => ExitCode::from(verify::EXIT_USAGE),
        code => ExitCode::from(u8::try_from(code).unwrap_or(1)),
    }
}

fn config_verb(verb: &ConfigVerb) -> ExitCode {
    match verb {
        ConfigVerb::Check(from) => config::check(from.config.as_deref(), environment(), &from.set),
        ConfigVerb::Show(from) => config::show(from.config.as_deref(), environment(), &from.set),
        ConfigVerb::Schema => config::schema(),
    }
}

fn serve(configured: &Configured) -> anyhow::Result<()> {
    let config = configured.load()?;
    telemetry::log::install(&config.log.level, config.log.format == Format::Json)?;
    // Only a build for tests has fail points; they are set in the environment.
    let _faults = fail::has_failpoints().then(fail::FailScenario::setup);
    // Several libraries speak TLS; all are to use this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(crate::node::run(config));
    // What has not ended by now has had its grace time.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn three_nodes_are_run_unless_one_says_otherwise() {
        let nodes = |line: &[&str]| match Cli::try_parse_from(line).map(|cli| cli.verb) {
            Ok(Verb::Dev(options)) => format!("{options:?}"),
            other => panic!("{other:?}"),
        };
        assert!(nodes(&["fulmar", "dev"]).contains("nodes: 3,"));
        assert!(nodes(&["fulmar", "dev", "--nodes", "1"]).contains("nodes: 1,"));
    }

    #[test]
    fn flags_of_ctl_stand_anywhere_and_exclude_each_other() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(drop).map_err(|error| error.to_string());
        for well in [
            "fulmar ctl cluster members --endpoints e.json --output json",
            "fulmar ctl --address a:1 --token-file t --ca c cluster remove 02ab",
            "fulmar ctl cluster drain",
            "fulmar ctl rebalance --dry-run --rate 5",
            "fulmar ctl cluster --plaintext join a:7400",
            "fulmar ctl get devices --product-id p -o wide --limit 0",
            "fulmar ctl get rules -l active=true,event=report --context dev",
            "fulmar ctl describe device/meter",
            "fulmar ctl delete -f a.yaml",
            "fulmar ctl apply -f a.yaml -f b.json --dry-run",
            "fulmar ctl completion bash",
            "fulmar ctl login --user ann --password-stdin",
            "fulmar ctl config set-context x --nodes a:1,b:1 --ca-file c",
        ] {
            assert_eq!(parse(well), Ok(()), "{well}");
        }
        for (wrong, wanted) in [
            ("fulmar ctl cluster members --endpoints e --address a:1", "--address"),
            ("fulmar ctl cluster members --token t --token-file f", "--token-file"),
            ("fulmar ctl cluster members --ca c --plaintext", "--plaintext"),
            ("fulmar ctl cluster remove", "NODE"),
            ("fulmar ctl cluster remove xyz", "hex digits"),
            ("fulmar ctl cluster members --output xml", "table, wide, json, yaml"),
            ("fulmar ctl get", "KIND"),
            ("fulmar ctl apply", "--file"),
            ("fulmar ctl test-rule --event {}", "RULE"),
        ] {
            let error = parse(wrong).expect_err(wrong);
            assert!(error.contains(wanted), "{wrong}: {error}");
        }
    }
}
