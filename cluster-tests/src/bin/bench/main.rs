//! Measures an MQTT broker: what a delivered message costs its CPU, how late messages are, what connections weigh; and
//! whether anything was lost, doubled or reordered. One process, one thread, fulmar-mqtt's codec; one JSON line a run.

mod board;
mod commands;
mod compare;
mod connections;
mod durable;
mod failover;
mod link;
mod load;
mod measure;
mod messages;
mod options;
mod own;
mod payload;
mod publisher;
mod push;
mod registry;
mod report;
mod restart;
mod rules;
mod sizes;
mod subscriber;
mod table;
mod takeover;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cluster_tests::sys;

use options::{Arguments, Task};

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    // Children inherit it: driver and broker have the same room.
    sys::raise_fd_limit()?;
    match task {
        Task::Compare(options) => compare::run(&options),
        Task::Durable(options) => on_one_thread(durable::run(&options)),
        Task::Takeover(options) => on_one_thread(takeover::run(&options)),
        Task::Push(options) => on_one_thread(push::run(&options)),
        Task::Failover(options) => on_one_thread(failover::run(&options)),
        Task::Messages(options) => on_one_thread(messages::run(&options)),
        Task::Registry(options) => registry::run(&options),
        Task::Commands(options) => on_one_thread(commands::run(&options)),
        Task::Rules(options) => on_one_thread(rules::run(&options)),
        Task::Restart(options) => on_one_thread(restart::run(&options)),
        Task::Sizes(options) => on_one_thread(sizes::run(&options)),
        Task::Run(scenario) => {
            let report = on_one_thread(async {
                let target = measure::Target::open(scenario.target()).await?;
                scenario.measure(&target).await
            })?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
    }
}

/// The driver takes one core at most and leaves the others to the broker; its tasks share state without locks.
fn on_one_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
