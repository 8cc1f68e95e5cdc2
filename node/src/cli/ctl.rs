//! `fulmar ctl`: asks running nodes, over gRPC, about their cluster, and has it changed. Results go to standard output,
//! everything else to standard error; README.md beside this says how it ends.

mod apply;
mod backup;
mod client;
mod connect;
pub(super) mod contexts;
mod device;
mod disconnect;
mod documents;
pub(super) mod failure;
mod filters;
mod get;
mod kinds;
mod members;
mod output;
mod progress;
mod recover;
mod settings;
mod table;
mod top;
mod trace;
mod watch;
mod why;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use client::Client;
use failure::Failure;
use output::{Output, note, put};

/// What `--help` says at its end.
const ENDS: &str = "\
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 not found, 4 not allowed or not signed in, 69 nobody answers.
Whom to ask: flags, then FULMAR_ADMIN_ADDRESS, _TOKEN, _CA, _CERT and _KEY, then the current context of FULMAR_CONFIG
or ~/.config/fulmar/config.toml. `fulmar dev` makes a context `dev`.";

#[derive(Debug, Args)]
#[command(after_help = ENDS)]
pub(super) struct Options {
    #[command(flatten)]
    to: connect::Whom,
    /// How results are printed.
    #[arg(short = 'o', long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    of: Of,
}

#[derive(Debug, Subcommand)]
enum Of {
    /// List things of a kind, or show some: nodes, devices, products, rules...
    Get(get::Get),
    /// Show things with what belongs to them.
    Describe(get::Describe),
    /// Delete things.
    Delete(get::Delete),
    /// Close connections of sessions, which stay for as long as they are to.
    Disconnect(disconnect::Disconnect),
    /// Make what documents describe.
    Create(apply::Apply),
    /// Have things be as documents describe: makes or changes them, or leaves them as they are.
    Apply(apply::Apply),
    /// Show things of a kind as they change; goes on at another node if one goes.
    Watch(watch::Watch),
    /// The cluster and its members.
    #[command(subcommand)]
    Cluster(members::Verb),
    /// Make a new cluster of one out of a stopped node's data, after a majority of the voters was lost for good.
    Recover(recover::Recover),
    /// Have a node let its clients go, hand over what it leads, and end its process.
    Drain {
        /// Its id, or the beginning of it.
        #[arg(value_name = "NODE", value_parser = members::node_prefix)]
        node: String,
    },
    /// Even out the connections of the nodes, after one has joined or come back. Stopped with Ctrl-C.
    Rebalance(members::Rebalance),
    /// Say what keeps a client from its messages.
    Why(why::Why),
    /// Follow messages hop by hop over the nodes.
    #[command(subcommand)]
    Trace(trace::Trace),
    /// What is busy.
    Top(top::Top),
    /// Write everything that is replicated into a file, while the cluster goes on.
    Backup(backup::Backup),
    /// Make a cluster what it was when a backup was written.
    Restore(backup::Restore),
    /// Send a device a command, and show its answer.
    Command(device::Command),
    /// Have a rule judge an event, and change nothing.
    TestRule(device::TestRule),
    /// Make any call of the admin API.
    Call {
        /// As in Devices/Show.
        #[arg(value_name = "SERVICE/METHOD")]
        method: String,
        /// The request, as JSON; `-` reads it from standard input.
        #[arg(value_name = "JSON", default_value = "{}")]
        request: String,
    },
    /// Sign in as a user, and keep the token in the context.
    Login(settings::Login),
    /// The contexts: clusters known by name.
    #[command(subcommand)]
    Config(settings::Verb),
    /// Print what a shell needs to complete `fulmar`.
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Does what was asked, and says how it went.
pub(super) fn run(options: &Options) -> ExitCode {
    match done(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn done(options: &Options) -> Result<(), Failure> {
    match &options.of {
        Of::Config(verb) => return settings::run(options.output, verb),
        Of::Completion { shell } => return completion(*shell),
        Of::Recover(of) => return recover::run(options.output, of),
        _ => {}
    }
    // Several libraries speak TLS; all are to use this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::refused(format!("cannot start: {error}")))?;
    runtime.block_on(asked(options))
}

async fn asked(options: &Options) -> Result<(), Failure> {
    if let Of::Login(of) = &options.of {
        return settings::login(&options.to, of).await;
    }
    let client = Client::new(connect::doors(&options.to, |name| std::env::var(name).ok())?);
    let (client, output) = (&client, options.output);
    match &options.of {
        Of::Get(of) => get::get(client, output, of).await,
        Of::Describe(of) => get::describe(client, output, of).await,
        Of::Delete(of) => get::delete(client, output, of).await,
        Of::Disconnect(of) => disconnect::run(client, output, of).await,
        Of::Create(of) => apply::run(client, output, of, true).await,
        Of::Apply(of) => apply::run(client, output, of, false).await,
        Of::Watch(of) => watch::run(client, output, of).await,
        Of::Cluster(verb) => members::run(client, output, verb).await,
        Of::Drain { node } => members::drain(client, output, Some(node)).await,
        Of::Rebalance(of) => members::rebalance(client, output, of).await,
        Of::Why(of) => why::run(client, output, of).await,
        Of::Trace(of) => trace::run(client, output, of).await,
        Of::Top(of) => top::run(client, output, of).await,
        Of::Backup(of) => backup::backup(client, output, of).await,
        Of::Restore(of) => backup::restore(client, output, of).await,
        Of::Command(of) => device::command(client, output, of).await,
        Of::TestRule(of) => device::test_rule(client, output, of).await,
        Of::Call { method, request } => call(client, output, method, request).await,
        Of::Login(_) | Of::Config(_) | Of::Completion { .. } | Of::Recover(_) => Ok(()),
    }
}

/// One call as it is; of one that streams, an answer a line until it ends.
async fn call(client: &Client, output: Output, name: &str, request: &str) -> Result<(), Failure> {
    let request: Value = device::given(request, "JSON")?;
    let method = client::method(name)?;
    if method.is_client_streaming() {
        return Err(Failure::usage(format!("{name} takes a stream of requests, which `call` does not send")));
    }
    if !method.is_server_streaming() {
        return put(&output.document(&client.call(name, request).await?)?);
    }
    let mut answers = client.stream(name, request).await?;
    while let Some(answer) = client.next(&mut answers).await? {
        put(&answer.to_string())?;
    }
    Ok(())
}

fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    let mut command = <super::Cli as clap::CommandFactory>::command();
    clap_complete::generate(shell, &mut command, "fulmar", &mut text);
    put(String::from_utf8_lossy(&text).trim_end())
}
