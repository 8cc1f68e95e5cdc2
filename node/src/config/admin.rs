//! `[admin]`: the door through which people look after a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::{ConfigError, Problems};
use super::tls;
use super::tree::Tree;
use super::units::{self, Secret};

const TOKEN_ALLOWED: &str = "16 to 256 letters, digits and signs of ASCII, without spaces";

/// Administration of the cluster, over gRPC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// IP address and port; port 0 lets the system choose. Needs a token. Default none: no such door.
    #[serde(deserialize_with = "units::optional_address", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<SocketAddr>,
    /// What an admin must show, 16 to 256 ASCII letters, digits and signs. This or `token_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// File that holds the token on its first line. This or `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Whether others may reach the door without TLS. An address of this machine alone needs neither. Default `false`.
    pub plaintext: bool,
    /// TLS of the door. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<AdminTls>,
}

/// What the door shows to admins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// PEM file of the certificate and its chain, the door's own first. Required.
    pub cert: PathBuf,
    /// PEM file of the private key. Required.
    pub key: PathBuf,
    /// PEM file of the authorities that sign the certificates of clients: then each must show one. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// PEM file of revocation lists, each signed by an authority of `client_ca`. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<PathBuf>,
}

impl Admin {
    /// The token, from its file if one is named; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    pub fn load_token(&self) -> Result<Option<Secret>, ConfigError> {
        let tree = Tree::empty();
        let mut problems = Problems::new(&tree);
        let token = self.read_token(&mut problems);
        problems.into_result().map(|()| token)
    }

    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        match (&self.token, &self.token_file) {
            (Some(_), Some(_)) => problems.add("admin.token_file", "is given beside token; choose one"),
            (Some(token), None) => check_token("admin.token", token.expose(), "is", problems),
            (None, None) => {
                if let Some(address) = self.address {
                    problems.add("admin.address", format!("is {address}, which needs admin.token or admin.token_file"));
                }
            }
            (None, Some(_)) => {}
        }
        match (self.address, &self.tls) {
            (Some(address), None) if !self.plaintext && !address.ip().is_loopback() => problems.add(
                "admin.address",
                format!("is {address}, which needs admin.tls, or admin.plaintext = true where nobody listens in"),
            ),
            (_, Some(_)) if self.plaintext => {
                problems.add("admin.plaintext", "is true beside admin.tls; choose one");
            }
            _ => {}
        }
        if self.tls.as_ref().is_some_and(|tls| tls.crl.is_some() && tls.client_ca.is_none()) {
            problems.add("admin.tls.crl", tls::CRL_NEEDS_CA);
        }
    }

    /// Reads the files that this names.
    pub(super) fn read_files(&self, now: i64, problems: &mut Problems<'_>) {
        self.read_token(problems);
        if let Some(tls) = &self.tls {
            tls.paths().read(Some(now), problems);
        }
    }

    fn read_token(&self, problems: &mut Problems<'_>) -> Option<Secret> {
        let Some(path) = &self.token_file else { return self.token.clone() };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let token = text.lines().next().unwrap_or_default().trim();
                let is = format!("names {}, whose first line is", path.display());
                check_token("admin.token_file", token, &is, problems);
                Some(Secret::new(token))
            }
            Err(error) => {
                let message = format!("names {}, which cannot be read: {error}", path.display());
                problems.add("admin.token_file", message);
                None
            }
        }
    }
}

/// Says that a token is none, without saying what it is.
fn check_token(key: &str, token: &str, is: &str, problems: &mut Problems<'_>) {
    if !(16..=256).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        problems.add(key, format!("{is} something else; allowed: {TOKEN_ALLOWED}"));
    }
}
