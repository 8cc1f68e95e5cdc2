//! Whom to ask, and with what: from flags, the environment, or the `endpoints.json` of a `fulmar dev`.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::Failure;
use crate::config::units::check_host_port;

/// From a name to a connection, the handshake of TLS included.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// For an answer: longer than a node waits for its cluster.
const ANSWER_WITHIN: Duration = Duration::from_secs(35);

#[derive(Debug, Args)]
pub(super) struct Whom {
    /// host:port of a node's admin door. Otherwise FULMAR_ADMIN_ADDRESS, or 127.0.0.1:9090.
    #[arg(long, global = true, value_name = "HOST:PORT", conflicts_with = "endpoints")]
    address: Option<String>,
    /// What the door wants to be shown; a file or the environment hides it better. Otherwise FULMAR_ADMIN_TOKEN.
    #[arg(long, global = true, value_name = "TOKEN", conflicts_with_all = ["token_file", "endpoints"])]
    token: Option<String>,
    /// File that holds it on its first line.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "endpoints")]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities that sign the door's certificate: asks over TLS. Otherwise FULMAR_ADMIN_CA.
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["endpoints", "plaintext"])]
    ca: Option<PathBuf>,
    /// Send the token to another machine without TLS.
    #[arg(long, global = true, conflicts_with = "endpoints")]
    plaintext: bool,
    /// `endpoints.json` of a `fulmar dev`: says all of it, for every node.
    #[arg(long, global = true, value_name = "PATH")]
    endpoints: Option<PathBuf>,
}

/// One node's admin door.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) address: String,
    token: Token,
    /// Authorities, as PEM; `None`: no TLS.
    ca: Option<Vec<u8>>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("address", &self.address).field("tls", &self.ca.is_some()).finish_non_exhaustive()
    }
}

/// What every request shows.
#[derive(Clone)]
pub(super) struct Token(MetadataValue<Ascii>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl Token {
    fn new(token: &str) -> Result<Token, Failure> {
        let mut value = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Failure::usage("the token is something else than letters, digits and signs of ASCII"))?;
        value.set_sensitive(true);
        Ok(Token(value))
    }
}

/// The doors to ask, the first that answers being enough.
pub(super) fn doors(options: &Whom, environment: impl Fn(&str) -> Option<String>) -> Result<Vec<Door>, Failure> {
    if let Some(path) = &options.endpoints {
        return of_dev(path);
    }
    let address = options.address.clone().or_else(|| environment("FULMAR_ADMIN_ADDRESS"));
    let address = address.unwrap_or_else(|| "127.0.0.1:9090".to_owned());
    check_host_port(&address).map_err(|allowed| Failure::usage(format!("--address {address}: allowed: {allowed}")))?;
    let token = match (&options.token, &options.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => read(path, "--token-file")?.lines().next().unwrap_or_default().trim().to_owned(),
        (None, None) => environment("FULMAR_ADMIN_TOKEN").ok_or_else(|| {
            Failure::usage("no token: give the node's [admin] token with --token-file, --token or FULMAR_ADMIN_TOKEN")
        })?,
    };
    let ca = options.ca.clone().or_else(|| environment("FULMAR_ADMIN_CA").map(PathBuf::from));
    let ca = ca.filter(|_| !options.plaintext).map(|path| read(&path, "--ca")).transpose()?.map(String::into_bytes);
    if ca.is_none() && !options.plaintext && !local(&address) {
        return Err(Failure::usage(format!(
            "{address} is another machine: give --ca to ask it over TLS, or --plaintext to send it the token as it is"
        )));
    }
    Ok(vec![Door { address, token: Token::new(&token)?, ca }])
}

/// Whether nobody can listen on the way.
fn local(address: &str) -> bool {
    host(address) == "localhost" || host(address).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Of host:port, without the brackets of an IPv6 address.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn read(path: &PathBuf, flag: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::usage(format!("{flag} {}: {error}", path.display())))
}

fn of_dev(path: &PathBuf) -> Result<Vec<Door>, Failure> {
    let wrong = |what: &str| Failure::usage(format!("--endpoints {}: {what}", path.display()));
    let endpoints: Value =
        serde_json::from_str(&read(path, "--endpoints")?).map_err(|error| wrong(&error.to_string()))?;
    let token = endpoints["credentials"]["admin"]["token"].as_str();
    let token = Token::new(token.ok_or_else(|| wrong("has no credentials.admin.token"))?)?;
    let ca = endpoints["ca"].as_str().map(|ca| read(&PathBuf::from(ca), "--endpoints, ca")).transpose()?;
    let ca = ca.map(String::into_bytes);
    let nodes = endpoints["nodes"].as_array().ok_or_else(|| wrong("has no nodes"))?;
    let addresses = nodes.iter().filter_map(|node| node["admin"].as_str());
    Ok(addresses.map(|address| Door { address: address.to_owned(), token: token.clone(), ca: ca.clone() }).collect())
}

impl Door {
    /// What to look at if nobody answers.
    pub(super) fn advice(&self) -> &'static str {
        match self.ca {
            Some(_) => "is the node up, and is its certificate of that authority and for that host?",
            None => "is the node up, and does it want TLS (--ca)?",
        }
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<(Channel, Token), Failure> {
        let address = &self.address;
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"));
        let mut endpoint = endpoint
            .map_err(|error| Failure::usage(format!("{address}: {error}")))?
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN);
        if let Some(ca) = &self.ca {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(host(address));
            endpoint = endpoint.tls_config(tls).map_err(|error| Failure::usage(format!("--ca: {}", causes(&error))))?;
        }
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| Failure::unreachable(format!("{address}: {}; {}", causes(&error), self.advice())))?;
        Ok((channel, self.token.clone()))
    }
}

/// An error with what it came from.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Whom {
        Whom { address: None, token: None, token_file: None, ca: None, plaintext: false, endpoints: None }
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn flags_come_before_the_environment() {
        let environment = |name: &str| match name {
            "FULMAR_ADMIN_ADDRESS" => Some("127.0.0.1:1".to_owned()),
            "FULMAR_ADMIN_TOKEN" => Some("of-the-environment".to_owned()),
            _ => None,
        };
        let found = doors(&given(), environment).expect("all is there");
        assert_eq!((found.len(), found[0].address.as_str()), (1, "127.0.0.1:1"));
        assert_eq!(found[0].token.0, "Bearer of-the-environment");
        let options = Whom { address: Some("[::1]:2".into()), token: Some("flag".into()), ..given() };
        let found = doors(&options, environment).expect("all is there");
        assert_eq!((found[0].address.as_str(), host(&found[0].address)), ("[::1]:2", "::1"));
        assert_eq!(found[0].token.0, "Bearer flag");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let missing = doors(&given(), nothing).expect_err("no token");
        assert!(missing.code == 2 && missing.text.contains("--token-file"), "{}", missing.text);
        let token = Some("t".to_owned());
        for (address, wanted) in [("nowhere", "--address"), ("10.0.0.1:9090", "--ca"), ("fulmar.example:9090", "--ca")]
        {
            let wrong = Whom { address: Some(address.into()), token: token.clone(), ..given() };
            let failure = doors(&wrong, nothing).expect_err(address);
            assert!(failure.code == 2 && failure.text.contains(wanted), "{address}: {}", failure.text);
        }
        let plain = Whom { address: Some("10.0.0.1:9090".into()), token: token.clone(), plaintext: true, ..given() };
        assert!(doors(&plain, nothing).is_ok());
        let file = Whom { token_file: Some("/nowhere/token".into()), ..given() };
        assert!(doors(&file, nothing).expect_err("no such file").text.contains("/nowhere/token"));
        let sign = Whom { token: Some("a\nb".into()), ..given() };
        assert!(!doors(&sign, nothing).expect_err("no header").text.contains('\n'), "the token is not shown");
    }

    #[test]
    fn endpoints_of_dev_say_everything() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, ca) = (dir.path().join("endpoints.json"), dir.path().join("ca.crt"));
        fs::write(&ca, "PEM").expect("written");
        let text = serde_json::json!({
            "ca": ca,
            "nodes": [{ "admin": "127.0.0.1:21007" }, { "admin": null }, { "admin": "127.0.0.1:21207" }],
            "credentials": { "admin": { "token": "secret" } },
        });
        fs::write(&path, text.to_string()).expect("written");
        let options = Whom { endpoints: Some(path.clone()), ..given() };
        let found = doors(&options, |_| Some("10.0.0.1:1".to_owned())).expect("all is there");
        let addresses: Vec<&str> = found.iter().map(|door| door.address.as_str()).collect();
        assert_eq!(addresses, ["127.0.0.1:21007", "127.0.0.1:21207"], "the environment does not count");
        assert!(found.iter().all(|door| door.ca.as_deref() == Some(b"PEM") && door.token.0 == "Bearer secret"));
        fs::write(&path, "{}").expect("written");
        assert!(doors(&options, nothing).expect_err("no token").text.contains("credentials.admin.token"));
    }
}
