//! Whom to ask, and with what: from flags, the environment, a context, or the `endpoints.json` of a `fulmar dev`.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::contexts::{self, Context, Contexts};
use super::failure::Failure;
use crate::config::units::check_host_port;

/// From a name to a connection, the handshake of TLS included.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Between two pings of a connection, and until one that stays unanswered ends it.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Names a file that holds a token, as the flag does.
const TOKEN_FILE_VARIABLE: &str = "FULMAR_ADMIN_TOKEN_FILE";

/// Where nobody says otherwise.
const ADDRESS: &str = "127.0.0.1:9090";

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Whom to ask")]
pub(super) struct Whom {
    /// host:port of nodes' admin doors, separated by commas. Otherwise FULMAR_ADMIN_ADDRESS, the context's, or
    /// 127.0.0.1:9090.
    #[arg(long, global = true, value_name = "HOST:PORT", conflicts_with = "endpoints")]
    address: Option<String>,
    /// What the door wants to be shown; a file or the environment hides it better. Otherwise FULMAR_ADMIN_TOKEN.
    #[arg(long, global = true, value_name = "TOKEN", conflicts_with_all = ["token_file", "endpoints"])]
    token: Option<String>,
    /// File that holds it on its first line. Otherwise FULMAR_ADMIN_TOKEN_FILE.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "endpoints")]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities that sign the door's certificate: asks over TLS. Otherwise FULMAR_ADMIN_CA.
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["endpoints", "plaintext"])]
    ca: Option<PathBuf>,
    /// PEM file of a certificate to show, for doors that want one. Otherwise FULMAR_ADMIN_CERT.
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["endpoints", "plaintext"])]
    cert: Option<PathBuf>,
    /// PEM file of its key. Otherwise FULMAR_ADMIN_KEY.
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["endpoints", "plaintext"])]
    key: Option<PathBuf>,
    /// Send the token to another machine without TLS.
    #[arg(long, global = true, conflicts_with = "endpoints")]
    plaintext: bool,
    /// `endpoints.json` of a `fulmar dev`: says all of it, for every node.
    #[arg(long, global = true, value_name = "PATH")]
    endpoints: Option<PathBuf>,
    /// A context by its name, instead of the current one.
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "endpoints")]
    context: Option<String>,
}

/// One node's admin door.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) address: String,
    token: Token,
    /// Authorities, as PEM; `None`: no TLS.
    ca: Option<Vec<u8>>,
    /// Certificate and key to show, as PEM.
    identity: Option<[Vec<u8>; 2]>,
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

impl Whom {
    /// Whom and with what, without looking at files other than the contexts'.
    pub(super) fn resolve(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Context, Failure> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let given = self.address.clone().or_else(|| set("FULMAR_ADMIN_ADDRESS"));
        let given: Option<Vec<String>> =
            given.map(|list| list.split(',').map(|address| address.trim().to_owned()).collect());
        let contexts = match (contexts::path(&environment), &self.context) {
            (Ok(path), _) => Contexts::load(&path)?,
            (Err(failure), Some(_)) => return Err(failure),
            (Err(_), None) => Contexts::default(),
        };
        let known = contexts.find(self.context.as_deref())?;
        // A context's token is not for addresses that it does not name.
        let knows = |context: &&Context| {
            self.context.is_some()
                || given.as_ref().is_none_or(|given| given.iter().all(|one| context.addresses.contains(one)))
        };
        let known = known.filter(knows).cloned().unwrap_or_default();
        let file = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| set(name).map(PathBuf::from));
        let addresses = given.unwrap_or(known.addresses);
        let (token, token_file) = match (&self.token, &self.token_file) {
            (Some(token), _) => (Some(token.clone()), None),
            (None, Some(path)) => (None, Some(path.clone())),
            (None, None) => match (set("FULMAR_ADMIN_TOKEN"), set(TOKEN_FILE_VARIABLE)) {
                (Some(token), _) => (Some(token), None),
                (None, Some(path)) => (None, Some(path.into())),
                (None, None) => (known.token, known.token_file),
            },
        };
        Ok(Context {
            addresses: if addresses.is_empty() { vec![ADDRESS.to_owned()] } else { addresses },
            ca: file(&self.ca, "FULMAR_ADMIN_CA").or(known.ca).filter(|_| !self.plaintext),
            cert: file(&self.cert, "FULMAR_ADMIN_CERT").or(known.cert),
            key: file(&self.key, "FULMAR_ADMIN_KEY").or(known.key),
            token,
            token_file,
            plaintext: self.plaintext || known.plaintext,
        })
    }

    /// The name of the context that is to be changed: the one that was named, else the current one.
    pub(super) fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }
}

/// The doors to ask, the first that answers being enough.
pub(super) fn doors(options: &Whom, environment: impl Fn(&str) -> Option<String>) -> Result<Vec<Door>, Failure> {
    match &options.endpoints {
        Some(path) => of_dev(path),
        None => {
            let context = options.resolve(&environment)?;
            let of_environment = options.token_file.is_none() && environment(TOKEN_FILE_VARIABLE).is_some();
            let named_by = if of_environment { TOKEN_FILE_VARIABLE } else { "--token-file" };
            of_context(&context, &token(&context, named_by)?)
        }
    }
}

/// What a context shows. `named_by`: what has named its file.
fn token(context: &Context, named_by: &str) -> Result<String, Failure> {
    match (&context.token, &context.token_file) {
        (Some(token), _) => Ok(token.clone()),
        (None, Some(path)) => match read(path, named_by)?.lines().next().unwrap_or_default().trim() {
            "" => Err(Failure::usage(format!("{named_by} {}: has no token on its first line", path.display()))),
            token => Ok(token.to_owned()),
        },
        (None, None) => Err(Failure::usage(format!(
            "no token: give the node's [admin] token with --token-file, --token, FULMAR_ADMIN_TOKEN or \
             {TOKEN_FILE_VARIABLE}, sign in with `fulmar ctl login`, or name a context"
        ))),
    }
}

/// The doors of a context, which are shown a token.
pub(super) fn of_context(context: &Context, token: &str) -> Result<Vec<Door>, Failure> {
    let bytes = |path: &PathBuf, flag| read(path, flag).map(String::into_bytes);
    let ca = context.ca.as_ref().map(|path| bytes(path, "--ca")).transpose()?;
    let identity = match (&context.cert, &context.key) {
        (Some(cert), Some(key)) => Some([bytes(cert, "--cert")?, bytes(key, "--key")?]),
        (None, None) => None,
        _ => return Err(Failure::usage("--cert and --key go together")),
    };
    let token = Token::new(token)?;
    let door = |address: &String| {
        check_host_port(address)
            .map_err(|allowed| Failure::usage(format!("--address {address}: allowed: {allowed}")))?;
        if ca.is_none() && !context.plaintext && !local(address) {
            return Err(Failure::usage(format!(
                "{address} is another machine: give --ca to ask it over TLS, or --plaintext to send it the token as it is"
            )));
        }
        Ok(Door { address: address.clone(), token: token.clone(), ca: ca.clone(), identity: identity.clone() })
    };
    context.addresses.iter().map(door).collect()
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

fn read(path: &Path, flag: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::usage(format!("{flag} {}: {error}", path.display())))
}

fn of_dev(path: &Path) -> Result<Vec<Door>, Failure> {
    let wrong = |what: &str| Failure::usage(format!("--endpoints {}: {what}", path.display()));
    let endpoints: Value =
        serde_json::from_str(&read(path, "--endpoints")?).map_err(|error| wrong(&error.to_string()))?;
    let token = endpoints["credentials"]["admin"]["token"].as_str();
    let token = Token::new(token.ok_or_else(|| wrong("has no credentials.admin.token"))?)?;
    let ca = endpoints["ca"].as_str().map(|ca| read(&PathBuf::from(ca), "--endpoints, ca")).transpose()?;
    let ca = ca.map(String::into_bytes);
    let nodes = endpoints["nodes"].as_array().ok_or_else(|| wrong("has no nodes"))?;
    let addresses = nodes.iter().filter_map(|node| node["admin"].as_str());
    let door =
        |address: &str| Door { address: address.to_owned(), token: token.clone(), ca: ca.clone(), identity: None };
    Ok(addresses.map(door).collect())
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
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        if let Some(ca) = &self.ca {
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(host(address));
            if let Some([cert, key]) = &self.identity {
                tls = tls.identity(Identity::from_pem(cert, key));
            }
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
        Whom::default()
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
    fn a_file_that_the_environment_names_holds_the_token() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        let of_file = |name: &str| (name == TOKEN_FILE_VARIABLE).then(|| file.display().to_string());
        let shown = |options: &Whom, environment: &dyn Fn(&str) -> Option<String>| {
            doors(options, environment).map(|doors| doors[0].token.0.clone()).map_err(|failure| failure.text)
        };
        let missing = shown(&given(), &of_file).expect_err("no such file");
        assert!(missing.starts_with(&format!("{TOKEN_FILE_VARIABLE} {}: No such file", file.display())), "{missing}");
        fs::write(&file, "\n").expect("written");
        let empty = shown(&given(), &of_file).expect_err("an empty line");
        assert!(empty.starts_with(&format!("{TOKEN_FILE_VARIABLE} {}: has no token", file.display())), "{empty}");
        fs::write(&file, "of-the-file\r\n").expect("written");
        assert_eq!(shown(&given(), &of_file).expect("it is there"), "Bearer of-the-file");
        let both = |name: &str| of_file(name).or((name == "FULMAR_ADMIN_TOKEN").then(|| "itself".to_owned()));
        assert_eq!(shown(&given(), &both).expect("it is there"), "Bearer itself");
        let flag = Whom { token: Some("flag".into()), ..given() };
        assert_eq!(shown(&flag, &both).expect("it is there"), "Bearer flag");
        let other = Whom { token_file: Some("/nowhere/token".into()), ..given() };
        let wrong = shown(&other, &both).expect_err("flags come first");
        assert!(wrong.starts_with("--token-file /nowhere/token"), "{wrong}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let missing = doors(&given(), nothing).expect_err("no token");
        for way in ["--token-file", TOKEN_FILE_VARIABLE] {
            assert!(missing.code == 2 && missing.text.contains(way), "{}", missing.text);
        }
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

    #[test]
    fn a_context_comes_last_and_its_token_goes_to_its_own_nodes_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config.toml");
        let text = "current = 'a'\n[context.a]\naddresses = ['127.0.0.1:1', '127.0.0.1:2']\ntoken = 'of-a'\n\
                    [context.b]\naddresses = ['10.0.0.1:1']\ntoken = 'of-b'\nplaintext = true\n";
        fs::write(&file, text).expect("written");
        let file = file.to_str().expect("text").to_owned();
        let environment = |name: &str| (name == "FULMAR_CONFIG").then(|| file.clone());
        let found = |options: &Whom| {
            let doors = doors(options, environment).map_err(|failure| failure.text)?;
            Ok::<_, String>(doors.into_iter().map(|door| (door.address, door.token.0)).collect::<Vec<_>>())
        };
        let of_a = found(&given()).expect("the current one");
        assert_eq!(of_a.len(), 2);
        assert!(of_a.iter().all(|(_, token)| token == "Bearer of-a"));
        let of_b = found(&Whom { context: Some("b".into()), ..given() }).expect("the named one");
        assert_eq!((of_b[0].0.as_str(), &of_b[0].1), ("10.0.0.1:1", &MetadataValue::from_static("Bearer of-b")));
        let one = found(&Whom { address: Some("127.0.0.1:2".into()), ..given() }).expect("one of its own");
        assert_eq!((one.len(), one[0].0.as_str()), (1, "127.0.0.1:2"));
        let stranger = found(&Whom { address: Some("127.0.0.1:3".into()), ..given() }).expect_err("not its own");
        assert!(stranger.starts_with("no token"), "{stranger}");
        let flag = found(&Whom { token: Some("flag".into()), ..given() }).expect("flags come first");
        assert_eq!(flag[0].1, "Bearer flag");
    }
}
