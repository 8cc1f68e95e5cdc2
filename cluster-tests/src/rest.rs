//! A client of a node's REST API: registers devices, and asks who is online.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::devices::{Device, Vendor};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// Requests at a time where there are many.
const AT_A_TIME: usize = 32;

/// Devices of a page: the most that the API gives.
const PAGE: usize = 50;

/// Who calls, in the configuration of [`config`].
pub(crate) const USER: &str = "tester";
pub(crate) const PASSWORD: &str = "only-on-loopback";
/// Argon2 of it, with the least effort.
pub(crate) const PASSWORD_HASH: &str =
    "$argon2id$v=19$m=64,t=1,p=1$1VDij4uZR6MhWHsLOjclsQ$xMNzHHcXVqfWE31TFVC4TGOdQcnpxAM80NGpy3wjuco";
const PROJECT: &str = "fulmar";

/// The configuration of a node whose API this client is let into.
#[must_use]
pub fn config(address: SocketAddr) -> String {
    format!(
        "[[rest.user]]\nname = \"{USER}\"\npassword_hash = \"{PASSWORD_HASH}\"\nrole = \"admin\"\n\
         [[listener]]\naddress = \"{address}\"\nprotocol = \"http\"\nroles = [\"api\", \"device_auth\"]\n"
    )
}

/// Signed in at one node; the token is good at all of them.
#[derive(Debug, Clone)]
pub struct Rest {
    address: SocketAddr,
    token: String,
    /// `traceparent` of each request, if any.
    traceparent: Option<String>,
}

/// What came back.
struct Answer {
    status: u16,
    token: Option<String>,
    body: String,
}

impl Rest {
    /// # Errors
    /// There is nobody, or the user is not let in.
    pub async fn sign_in(address: SocketAddr) -> Result<Rest> {
        let user = json!({ "name": USER, "password": PASSWORD });
        let identity = json!({ "methods": ["password"], "password": { "user": user } });
        let body = json!({ "auth": { "identity": identity, "scope": { "project": { "id": PROJECT } } } });
        let answer = request(address, "POST", "/v3/auth/tokens", "", Some(&body)).await?;
        let token = answer.token.with_context(|| format!("no token: {} {}", answer.status, answer.body))?;
        Ok(Rest { address, token, traceparent: None })
    }

    /// The same caller at another node.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Rest {
        Rest { address, ..self.clone() }
    }

    /// The same for a caller that has a trace: `traceparent` as the W3C has it.
    #[must_use]
    pub fn traced(&self, traceparent: &str) -> Rest {
        Rest { traceparent: Some(traceparent.to_owned()), ..self.clone() }
    }

    fn headers(&self) -> String {
        let parent = self.traceparent.iter().map(|parent| format!("traceparent: {parent}\r\n"));
        parent.chain([format!("X-Auth-Token: {}\r\n", self.token)]).collect()
    }

    /// `path` is relative to the project.
    ///
    /// # Errors
    /// It is refused, or not answered.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let whole = format!("/v5/iot/{PROJECT}{path}");
        let answer = request(self.address, method, &whole, &self.headers(), body).await?;
        ensure!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
        if answer.body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&answer.body)?) }
    }

    /// As [`Rest::call`], with whatever status and body come back.
    ///
    /// # Errors
    /// It is not answered.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let whole = format!("/v5/iot/{PROJECT}{path}");
        let answer = request(self.address, method, &whole, &self.headers(), body).await?;
        let json = if answer.body.is_empty() { Value::Null } else { serde_json::from_str(&answer.body)? };
        Ok((answer.status, json))
    }

    /// A connection of this caller that stays open.
    ///
    /// # Errors
    /// There is nobody.
    pub async fn open(&self) -> Result<Kept> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Kept { stream: BufReader::new(stream), rest: self.clone() })
    }

    /// Creates both products of each vendor.
    ///
    /// # Errors
    /// One is refused.
    pub async fn add_products(&self) -> Result<()> {
        for vendor in Vendor::OF_DEVICES {
            for id in [vendor.product_id(), vendor.other_product_id()] {
                self.call("POST", "/products", Some(&vendor.product(id))).await?;
            }
        }
        Ok(())
    }

    /// Creates devices, many at a time.
    ///
    /// # Errors
    /// One is refused.
    pub async fn add(&self, devices: &[Device]) -> Result<()> {
        let mut calls = JoinSet::new();
        for device in devices {
            if calls.len() == AT_A_TIME {
                joined(&mut calls).await?;
            }
            let (rest, (path, body)) = (self.clone(), device.record());
            calls.spawn(async move { rest.call("POST", path, Some(&body)).await });
        }
        while !calls.is_empty() {
            joined(&mut calls).await?;
        }
        Ok(())
    }

    /// The status of a device, as its record says.
    ///
    /// # Errors
    /// There is no such device.
    pub async fn status(&self, device: &Device) -> Result<String> {
        let shown = self.call("GET", &format!("/devices/{}", device.id()), None).await?;
        Ok(shown["status"].as_str().context("a device without a status")?.to_owned())
    }

    /// A page of the devices of a product, newest first: of all, or of those after a marker.
    ///
    /// # Errors
    /// It is not answered.
    pub async fn page(&self, product_id: &str, after: Option<&str>) -> Result<Page> {
        let after = after.map(|marker| format!("&marker={marker}")).unwrap_or_default();
        let path = format!("/devices?product_id={product_id}&limit={PAGE}{after}");
        let page = self.call("GET", &path, None).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let devices = page["devices"].as_array().context("a page without devices")?;
        let statuses: Option<Vec<_>> =
            devices.iter().map(|device| Some((text(&device["device_id"])?, text(&device["status"])?))).collect();
        let next = if devices.len() < PAGE { None } else { text(&page["page"]["marker"]) };
        Ok(Page { statuses: statuses.context("a device without id or status")?, next })
    }
}

/// A connection that stays open, for one request after the other.
pub struct Kept {
    stream: BufReader<TcpStream>,
    rest: Rest,
}

impl Kept {
    /// Status and body of the answer. `path` is relative to the project.
    ///
    /// # Errors
    /// The connection ends, or what comes is no answer with a length.
    pub async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let Rest { address, token, .. } = &self.rest;
        let head = format!(
            "{method} /v5/iot/{PROJECT}{path} HTTP/1.1\r\nHost: {address}\r\nX-Auth-Token: {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.get_mut().write_all(format!("{head}{body}").as_bytes()).await?;
        let (mut status, mut length, mut line) = (None, 0, String::new());
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the connection has ended");
            let text = line.trim_end();
            if status.is_none() {
                status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
            } else if text.is_empty() {
                break;
            } else if let Some((name, value)) = text.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok((status.context("an answer without a status")?, String::from_utf8(body)?))
    }
}

/// Some devices of a list.
#[derive(Debug)]
pub struct Page {
    /// Id and status.
    pub statuses: Vec<(String, String)>,
    /// The marker of the page after it.
    pub next: Option<String>,
}

async fn joined(calls: &mut JoinSet<Result<Value>>) -> Result<()> {
    calls.join_next().await.context("there is a call")??.map(drop)
}

/// One request on a connection of its own.
async fn request(address: SocketAddr, method: &str, path: &str, headers: &str, body: Option<&Value>) -> Result<Answer> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let asked = tokio::time::timeout(ANSWER, asked).await;
    let text = asked.with_context(|| format!("{method} {path} is not answered"))?.with_context(|| path.to_owned())?;
    read(&text)
}

/// An answer that ends with its connection: its length is that of what came.
fn read(text: &str) -> Result<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("an answer without a status")?;
    let headers: BTreeMap<String, &str> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value)).collect();
    if headers.contains_key("transfer-encoding") {
        bail!("a chunked answer: {head}");
    }
    let token = headers.get("x-subject-token").map(|token| (*token).to_owned());
    Ok(Answer { status: status.parse()?, token, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = read("HTTP/1.1 201 Created\r\nX-Subject-Token: abc\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!((answer.status, answer.token.as_deref(), answer.body.as_str()), (201, Some("abc"), "{}"));
        assert!(read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").is_err());
        assert!(read("nothing").is_err());
    }
}
