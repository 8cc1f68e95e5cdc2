//! `config`: the contexts; and `login`, which keeps a token in one.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Client;
use super::connect::{self, Whom};
use super::contexts::{self, Context, Contexts};
use super::failure::Failure;
use super::kinds::{Column, text};
use super::output::{Output, put};
use super::table::table;
use crate::config::units::check_host_port;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List them; the current one has a star.
    GetContexts,
    /// Say which is current.
    CurrentContext,
    /// Make one current.
    UseContext {
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make or change one; what is not said stays.
    SetContext(Set),
    /// Forget one.
    DeleteContext {
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Set {
    #[arg(value_name = "NAME")]
    name: String,
    /// host:port of nodes' admin doors, separated by commas.
    #[arg(long = "nodes", value_name = "HOST:PORT,...", value_delimiter = ',')]
    nodes: Vec<String>,
    /// PEM file of the authorities that sign the doors' certificates.
    #[arg(long = "ca-file", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// File that holds the token, read at each call.
    #[arg(long = "with-token-file", value_name = "FILE")]
    with_token_file: Option<PathBuf>,
    /// Read a token from standard input, and keep it.
    #[arg(long, conflicts_with = "with_token_file")]
    token_stdin: bool,
    /// The token may go to another machine without TLS.
    #[arg(long)]
    without_tls: bool,
}

#[derive(Debug, Args)]
pub(super) struct Login {
    #[arg(long, short = 'u', value_name = "NAME")]
    user: String,
    /// Read the password from standard input instead of asking for it.
    #[arg(long)]
    password_stdin: bool,
}

const COLUMNS: &[Column] = &[
    text("CURRENT", "current"),
    text("NAME", "name"),
    text("NODES", "nodes"),
    text("TLS", "tls"),
    text("TOKEN", "token"),
];

fn here() -> Result<PathBuf, Failure> {
    contexts::path(|name| std::env::var(name).ok())
}

pub(super) fn run(output: Output, verb: &Verb) -> Result<(), Failure> {
    let path = here()?;
    let mut known = Contexts::load(&path)?;
    match verb {
        Verb::GetContexts => {
            let shown: Vec<Value> = known.context.iter().map(|(name, context)| shown(&known, name, context)).collect();
            match output.is_table() {
                true if shown.is_empty() => put("there are no contexts: `fulmar ctl config set-context` makes one"),
                true => put(&table(&shown, COLUMNS, output.style())),
                false => put(&output.document(&json!({ "kind": "List", "items": shown }))?),
            }
        }
        Verb::CurrentContext => match &known.current {
            Some(current) => put(current),
            None => Err(Failure::missing("no context is current: `fulmar ctl config use-context` chooses one")),
        },
        Verb::UseContext { name } => {
            known.find(Some(name))?;
            known.current = Some(name.clone());
            known.save(&path)?;
            put(&format!("{name} is the current context"))
        }
        Verb::SetContext(set) => {
            let context = known.context.entry(set.name.clone()).or_default();
            change(context, set)?;
            known.current.get_or_insert_with(|| set.name.clone());
            known.save(&path)?;
            put(&format!("context {} is set", set.name))
        }
        Verb::DeleteContext { name } => {
            known.find(Some(name))?;
            known.context.remove(name);
            known.current.take_if(|current| current == name);
            known.save(&path)?;
            put(&format!("context {name} is forgotten"))
        }
    }
}

fn shown(known: &Contexts, name: &str, context: &Context) -> Value {
    let token = match (&context.token, &context.token_file) {
        (Some(_), _) => "kept".to_owned(),
        (None, Some(file)) => file.display().to_string(),
        (None, None) => "-".to_owned(),
    };
    json!({
        "current": if known.current.as_deref() == Some(name) { "*" } else { "" },
        "name": name,
        "nodes": context.addresses,
        "tls": context.ca.is_some(),
        "token": token,
    })
}

fn change(context: &mut Context, set: &Set) -> Result<(), Failure> {
    for address in &set.nodes {
        check_host_port(address).map_err(|allowed| Failure::usage(format!("--nodes {address}: allowed: {allowed}")))?;
    }
    if !set.nodes.is_empty() {
        context.addresses.clone_from(&set.nodes);
    }
    // Wherever the next call is made from.
    let whole = |path: &Path, flag: &str| {
        path.canonicalize().map_err(|error| Failure::usage(format!("{flag} {}: {error}", path.display())))
    };
    if let Some(ca) = &set.ca_file {
        context.ca = Some(whole(ca, "--ca-file")?);
    }
    if let Some(file) = &set.with_token_file {
        (context.token, context.token_file) = (None, Some(whole(file, "--with-token-file")?));
    }
    if set.token_stdin {
        (context.token, context.token_file) = (Some(line()?), None);
    }
    context.plaintext |= set.without_tls;
    Ok(())
}

/// The first line of standard input.
fn line() -> Result<String, Failure> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(|error| Failure::usage(format!("standard input: {error}")))?;
    let line = line.trim_end_matches(['\n', '\r']).to_owned();
    if line.is_empty() { Err(Failure::usage("standard input: is empty")) } else { Ok(line) }
}

/// Asks for a password without showing it.
fn password() -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    if !stdin().is_terminal() {
        return Err(Failure::usage("no terminal to ask for the password: give --password-stdin"));
    }
    let failed = |error: rustix::io::Errno| Failure::refused(format!("cannot hide the password: {error}"));
    let before = tcgetattr(stdin()).map_err(failed)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let mut out = stderr();
    // Without the question one can answer all the same.
    let _ = write!(out, "password: ").and_then(|()| out.flush());
    tcsetattr(stdin(), OptionalActions::Flush, &hidden).map_err(failed)?;
    let line = line();
    tcsetattr(stdin(), OptionalActions::Flush, &before).map_err(failed)?;
    let _ = writeln!(out);
    line
}

/// Signs in, and keeps the token in the context: the named or current one, or a new one called `default`.
pub(super) async fn login(whom: &Whom, of: &Login) -> Result<(), Failure> {
    let context = whom.resolve(|name| std::env::var(name).ok())?;
    let password = if of.password_stdin { line()? } else { password()? };
    // Who signs in need not be known yet.
    let client = Client::new(connect::of_context(&context, "none")?);
    let user = json!({ "name": of.user, "password": password });
    let body = json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": user } } } });
    let (answer, metadata) = client.call_with_metadata("Iam/CreateToken", json!({ "body": body })).await?;
    let token = metadata.get("x-subject-token").and_then(|token| token.to_str().ok());
    let token = token.ok_or_else(|| Failure::refused("the node let you in, but gave no token"))?;
    let path = here()?;
    let mut known = Contexts::load(&path)?;
    let name =
        whom.context().map(str::to_owned).or_else(|| known.current.clone()).unwrap_or_else(|| "default".to_owned());
    let kept = known.context.entry(name.clone()).or_default();
    *kept = Context { token: Some(token.to_owned()), token_file: None, ..context };
    known.current.get_or_insert_with(|| name.clone());
    known.save(&path)?;
    let until = answer.pointer("/token/expires_at").and_then(Value::as_str).unwrap_or("it expires");
    put(&format!("{} is signed in, in the context {name}, until {until}", of.user))
}
