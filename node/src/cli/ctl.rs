//! `fulmar ctl`: asks a running node, over gRPC, about its cluster, and has it changed. Results go to standard output,
//! what is wrong to standard error: exit 0 done, 1 refused, 2 wrong usage, 69 nobody answers.

mod connect;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use fulmar_proto::admin::v1::cluster_client::ClusterClient;
use fulmar_proto::admin::v1::{DrainRequest, JoinRequest, ListMembersRequest, ListMembersResponse, RemoveRequest};
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use connect::{Door, Token};

/// As sysexits counts it: a service is unavailable.
const EXIT_UNREACHABLE: u8 = 69;

const EXIT_USAGE: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    to: connect::Whom,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    of: Of,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Of {
    /// The cluster and its members.
    #[command(subcommand)]
    Cluster(Verb),
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Who is a member, who leads, and how everybody is.
    Members,
    /// Make a running node without data a member.
    Join {
        /// host:port of its peer listener: what its `cluster.advertise` says.
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    /// End a membership for good: the node does not come back under its id.
    Remove {
        /// Its id, or the beginning of it.
        #[arg(value_name = "NODE", value_parser = node_prefix)]
        node: String,
    },
    /// Have a node let its clients go, hand over what it leads, and end its process.
    Drain {
        /// Its id, or the beginning of it; without, the node at --address.
        #[arg(value_name = "NODE", value_parser = node_prefix)]
        node: Option<String>,
    },
}

/// What went wrong: how the process ends, and what is said.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn refused(text: impl Into<String>) -> Failure {
        Failure { code: 1, text: text.into() }
    }

    fn usage(text: impl Into<String>) -> Failure {
        Failure { code: EXIT_USAGE, text: text.into() }
    }

    fn unreachable(text: impl Into<String>) -> Failure {
        Failure { code: EXIT_UNREACHABLE, text: text.into() }
    }
}

fn node_prefix(text: &str) -> Result<String, String> {
    let well = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    well.then(|| text.to_ascii_lowercase())
        .ok_or_else(|| "expected up to 16 hex digits, as `members` prints them".into())
}

/// Does what was asked, and says how it went.
pub(super) fn run(options: &Options) -> ExitCode {
    match done(options) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(Failure { code, text }) => {
            eprintln!("fulmar ctl: {text}");
            ExitCode::from(code)
        }
    }
}

fn done(options: &Options) -> Result<String, Failure> {
    let doors = connect::doors(&options.to, |name| std::env::var(name).ok())?;
    // Several libraries speak TLS; all are to use this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::refused(format!("cannot start: {error}")))?;
    let Of::Cluster(verb) = &options.of;
    runtime.block_on(ask(&doors, verb, options.output))
}

type Client = ClusterClient<InterceptedService<Channel, Token>>;

async fn ask(doors: &[Door], verb: &Verb, output: Output) -> Result<String, Failure> {
    // Whoever answers first knows the members.
    let (mut client, members, door) = first(doors).await?;
    let because = |status: Status| failure(&status, door);
    match verb {
        Verb::Members => {
            let members = of_leader(doors, members).await;
            Ok(match output {
                Output::Table => show::table(&members),
                Output::Json => show::json(&members),
            })
        }
        Verb::Join { address } => {
            let answer = client.join(JoinRequest { address: address.clone() }).await.map_err(because)?;
            let node = id(answer.into_inner().node);
            Ok(told(output, "joined", &node, &format!("{node} is a member now; `members` shows how far it is")))
        }
        Verb::Remove { node } => {
            let node = find(&members, node)?;
            client.remove(RemoveRequest { node }).await.map_err(because)?;
            let node = id(node);
            Ok(told(output, "removed", &node, &format!("{node} is no member any more, and will not be one again")))
        }
        Verb::Drain { node } => {
            let (mut client, node, door) = match node {
                Some(node) => {
                    let node = find(&members, node)?;
                    let (client, door) = of_node(doors, node).await?;
                    (client, node, door)
                }
                None if doors.len() > 1 => {
                    return Err(Failure::usage("drain which node? Name it: `members` lists them"));
                }
                None => (client, members.node, door),
            };
            client.drain(DrainRequest {}).await.map_err(|status| failure(&status, door))?;
            let node = id(node);
            Ok(told(
                output,
                "draining",
                &node,
                &format!("{node} is leaving; its process ends when its clients are gone"),
            ))
        }
    }
}

fn told(output: Output, what: &str, node: &str, text: &str) -> String {
    match output {
        Output::Table => text.to_owned(),
        Output::Json => serde_json::json!({ what: node }).to_string(),
    }
}

/// How nodes are called: 16 hex digits.
fn id(node: u64) -> String {
    format!("{node:016x}")
}

/// The first door that answers, and what it says of the members.
async fn first(doors: &[Door]) -> Result<(Client, ListMembersResponse, &Door), Failure> {
    let mut failed = None;
    for door in doors {
        match members(door).await {
            Ok((client, members)) => return Ok((client, members, door)),
            // Another one may be up. A wrong token is wrong everywhere.
            Err(failure) if failure.code == EXIT_UNREACHABLE => failed = failed.or(Some(failure)),
            Err(failure) => return Err(failure),
        }
    }
    let failed = failed.unwrap_or_else(|| Failure::usage("no node has a door for admins"));
    Err(match doors.len() {
        0 | 1 => failed,
        count => Failure { text: format!("none of {count} nodes answers; the first: {}", failed.text), ..failed },
    })
}

/// What the leader says, if it has one of these doors: it alone knows how far behind the others are.
async fn of_leader(doors: &[Door], first: ListMembersResponse) -> ListMembersResponse {
    if doors.len() > 1 && first.node != first.leader {
        for door in doors {
            if let Ok((_, members)) = members(door).await
                && members.node == members.leader
            {
                return members;
            }
        }
    }
    first
}

/// The door of one node.
async fn of_node(doors: &[Door], node: u64) -> Result<(Client, &Door), Failure> {
    let mut answered = Vec::new();
    for door in doors {
        match members(door).await {
            Ok((client, members)) if members.node == node => return Ok((client, door)),
            Ok((_, members)) => answered.push(format!("{} at {}", id(members.node), door.address)),
            Err(_) => {} // another one may be its own
        }
    }
    let node = id(node);
    Err(Failure::refused(format!(
        "a node is drained by itself, and {node} does not answer here, but {}: give --address of its own admin door, or \
         send its process SIGTERM",
        answered.join(", ")
    )))
}

async fn members(door: &Door) -> Result<(Client, ListMembersResponse), Failure> {
    let (channel, token) = door.connect().await?;
    let mut client = ClusterClient::with_interceptor(channel, token);
    let members = client.list_members(ListMembersRequest {}).await.map_err(|status| failure(&status, door))?;
    Ok((client, members.into_inner()))
}

/// The member whose id begins so.
fn find(members: &ListMembersResponse, prefix: &str) -> Result<u64, Failure> {
    let known: Vec<u64> = members.members.iter().map(|member| member.node).collect();
    let found: Vec<u64> = known.iter().copied().filter(|node| id(*node).starts_with(prefix)).collect();
    let list = |nodes: &[u64]| nodes.iter().map(|node| id(*node)).collect::<Vec<String>>().join(", ");
    match found.as_slice() {
        [node] => Ok(*node),
        [] => Err(Failure::refused(format!("{prefix} begins the id of no member; they are {}", list(&known)))),
        several => Err(Failure::refused(format!("{prefix} begins several ids: {}; give more of it", list(several)))),
    }
}

/// What a node's answer comes to, and what to do about it.
fn failure(status: &Status, door: &Door) -> Failure {
    use tonic::Code;
    let said = status.message();
    // What the connection came to, not what the node said.
    if std::error::Error::source(status).is_some() {
        return Failure::unreachable(format!("{}: {said}; {}", door.address, door.advice()));
    }
    match status.code() {
        Code::Unauthenticated => Failure::refused(format!(
            "{}: {said}; give it with --token-file, --token or FULMAR_ADMIN_TOKEN",
            door.address
        )),
        Code::Unavailable => {
            Failure::unreachable(format!("{}: {said}; is the node up? Its /readyz says how it is", door.address))
        }
        Code::Cancelled | Code::DeadlineExceeded => Failure::unreachable(format!(
            "{}: no answer in time; without a quorum nothing is changed: `members` shows who is down",
            door.address
        )),
        Code::Unimplemented => Failure::refused(format!("{}: no admin door of Fulmar answers there", door.address)),
        _ => Failure::refused(said),
    }
}

#[cfg(test)]
mod tests {
    use fulmar_proto::admin::v1::Member;

    use super::*;

    #[test]
    fn a_prefix_that_one_member_has_is_enough() {
        let member = |node| Member { node, ..Member::default() };
        let members = ListMembersResponse {
            members: vec![member(0x0218_d8f8_0d80_20ec), member(0x0219), member(0xffff_0000_0000_0000)],
            ..ListMembersResponse::default()
        };
        let found = |prefix: &str| find(&members, prefix).map_err(|failure| failure.text);
        assert_eq!(found("02"), Ok(0x0218_d8f8_0d80_20ec));
        assert_eq!(found("f"), Ok(0xffff_0000_0000_0000));
        assert_eq!(found("0000000000000219"), Ok(0x0219));
        let several = found("0").expect_err("two begin so");
        assert!(several.contains("0218d8f80d8020ec, 0000000000000219") && several.contains("more"), "{several}");
        assert!(found("a").expect_err("none begins so").contains("ffff000000000000"));
    }

    #[test]
    fn ids_are_hex_digits_in_either_case() {
        assert_eq!(node_prefix("02AB"), Ok("02ab".to_owned()));
        for wrong in ["", "x", "0x1", "00000000000000000", "-1"] {
            assert!(node_prefix(wrong).is_err(), "{wrong}");
        }
    }
}
