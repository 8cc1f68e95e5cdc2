//! To a web server: each parcel is the body of a POST. What it answers with 2xx it has taken; with another 4xx than 408
//! and 429 it never will; everything else is tried again. Redirects are not followed, answers not read.
//!
//! Each request says which parcel it is in `Idempotency-Key`. With a token it also has `timestamp` (milliseconds since
//! 1970), `nonce` (32 hexadecimal digits) and `signature`: SHA-256, in lower-case hex, of token, timestamp and nonce, put
//! one after the other in the order of their bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fulmar_platform::Secret;
use futures_util::future::join_all;
use reqwest::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use sha2::{Digest, Sha256};

use super::detail::Webhook;
use super::lane;
use crate::cluster::clock::wall_ms;
use crate::dispatch::Dispatch;
use crate::rule_engine::sink::{Handed, Parcel};
use crate::telemetry::spans::{self, Kind};

/// Time for a connection, and for a whole request.
const CONNECT: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(15);

/// Requests of one action at a time, of different devices.
const AT_ONCE_MAX: usize = 8;

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    Taken,
    /// It would be refused again.
    Refused(String),
    Failed(String),
}

impl Posted {
    /// As metrics name it.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Posted::Taken => "taken",
            Posted::Refused(_) => "refused",
            Posted::Failed(_) => "failed",
        }
    }
}

/// A client for one receiver.
///
/// # Errors
/// It cannot be made, and why.
pub(in crate::rule_engine) fn client(
    authority_der: Option<&[u8]>,
    sni: bool,
) -> Result<reqwest::ClientBuilder, String> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .timeout(REQUEST)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tls_sni(sni)
        .pool_max_idle_per_host(AT_ONCE_MAX);
    if let Some(der) = authority_der {
        let authority = reqwest::Certificate::from_der(der).map_err(|error| reason(&error))?;
        builder = builder.tls_certs_only([authority]);
    }
    Ok(builder)
}

/// Sends one request and looks at what it is answered with.
pub(in crate::rule_engine) async fn post(client: &Client, url: Url, headers: HeaderMap, body: Bytes) -> Posted {
    let mut span = spans::root("webhook", Kind::Client);
    let mut request = client.post(url).headers(headers).body(body);
    if let Some(context) = span.context() {
        request = request.header("traceparent", context.header());
    }
    let posted = match request.send().await {
        Ok(response) => judge(response.status()),
        Err(error) => Posted::Failed(reason(&error)),
    };
    span.set("fulmar.outcome", posted.outcome());
    if let Posted::Refused(problem) | Posted::Failed(problem) = &posted {
        span.fail(problem);
    }
    posted
}

fn judge(status: StatusCode) -> Posted {
    let again = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    match status {
        status if status.is_success() => Posted::Taken,
        status if status.is_client_error() && !again => Posted::Refused(format!("was answered with {status}")),
        status => Posted::Failed(format!("was answered with {status}")),
    }
}

/// An error with what is behind it, and without the address: that may hold what others must not see.
fn reason(error: &reqwest::Error) -> String {
    let mut text = match error {
        error if error.is_timeout() => "took too long".to_owned(),
        error if error.is_connect() => "no connection".to_owned(),
        _ => "failed".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// `signature` of a request.
#[must_use]
pub fn sign(token: &str, timestamp: &str, nonce: &str) -> String {
    let mut parts = [token, timestamp, nonce];
    parts.sort_unstable();
    hex::encode(Sha256::digest(parts.concat()))
}

/// See the module.
pub struct ToWebhook {
    dispatch: Arc<Dispatch>,
    webhook: Webhook,
    /// Of a name that is not the host's the address is looked up when it is made: then it is made anew after a failure.
    client: Option<(Client, Url)>,
}

impl ToWebhook {
    #[must_use]
    pub fn new(webhook: Webhook, dispatch: Arc<Dispatch>) -> ToWebhook {
        ToWebhook { dispatch, webhook, client: None }
    }

    /// Hands parcels over: those of one device one after the other, of different ones a few at a time.
    pub async fn hand_over(&mut self, parcels: &[Parcel]) -> Handed {
        let mut handed = Handed { done: 0, refused: Vec::new(), problem: None };
        while let Some(rest) = parcels.get(handed.done..).filter(|rest| !rest.is_empty()) {
            let (client, url) = match self.connect().await {
                Ok(client) => client,
                Err(problem) => {
                    handed.problem = Some(problem);
                    return handed;
                }
            };
            let some = rest.get(..together(rest)).unwrap_or_default();
            let requests =
                some.iter().map(|parcel| post(&client, url.clone(), self.headers(parcel), parcel.body.clone()));
            for posted in join_all(requests).await {
                self.dispatch.metrics().webhook(posted.outcome());
                match posted {
                    Posted::Taken => {}
                    Posted::Refused(problem) => {
                        handed.refused.push(handed.done);
                        handed.problem = Some(problem);
                    }
                    Posted::Failed(problem) => {
                        // Those behind it, of other devices, may have been taken: they come again, with the same key.
                        handed.problem = Some(problem);
                        self.client = None;
                        return handed;
                    }
                }
                handed.done += 1;
            }
        }
        handed
    }

    async fn connect(&mut self) -> Result<(Client, Url), String> {
        if let Some(ready) = &self.client {
            return Ok(ready.clone());
        }
        let made = self.make().await?;
        Ok(self.client.insert(made).clone())
    }

    async fn make(&self) -> Result<(Client, Url), String> {
        let Webhook { url, cert_id, cn_name, sni, .. } = &self.webhook;
        let mut url = Url::parse(url).map_err(|error| format!("the address cannot be read: {error}"))?;
        let authority = match cert_id {
            Some(id) => {
                let state = self.dispatch.replica().read();
                let authority = state.registry().authority(id).map(|kept| kept.record.clone());
                drop(state);
                Some(authority.ok_or_else(|| format!("there is no certificate {id}"))?)
            }
            None => None,
        };
        let mut builder = client(authority.as_ref().map(|authority| &*authority.certificate_der), *sni)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        if let Some(name) = cn_name.as_deref().filter(|name| *name != host && url.scheme() == "https") {
            // The certificate is for another name: it is connected to the host under that one.
            let port = url.port_or_known_default().unwrap_or(443);
            let plain = host.trim_matches(['[', ']']);
            let found = tokio::net::lookup_host((plain, port)).await.map_err(|error| format!("{host}: {error}"))?;
            builder = builder.resolve_to_addrs(name, &found.collect::<Vec<_>>());
            url.set_host(Some(name)).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok((builder.build().map_err(|error| reason(&error))?, url))
    }

    fn headers(&self, parcel: &Parcel) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Where it is connected to under another name the receiver is still asked for by its own.
        let own = Url::parse(&self.webhook.url).ok();
        let host = own.as_ref().and_then(|url| {
            let host = url.host_str()?;
            Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
        });
        let mut set = |name: &'static str, value: &str| {
            // Keys are made of ids, which are printable; one that is not is left out.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        if let Some(host) = host.filter(|_| self.webhook.cn_name.is_some()) {
            set(HOST.as_str(), &host);
        }
        set("idempotency-key", &parcel.key);
        if let Some(token) = &self.webhook.token {
            let (timestamp, nonce) = (wall_ms().to_string(), hex::encode(rand::random::<[u8; 16]>()));
            set("signature", &sign(token.expose(), &timestamp, &nonce));
            set("timestamp", &timestamp);
            set("nonce", &nonce);
        }
        headers
    }
}

/// How many of these, from the first on, are of different devices.
fn together(parcels: &[Parcel]) -> usize {
    let mut lanes: Vec<String> = Vec::new();
    let different = parcels.iter().take(AT_ONCE_MAX).take_while(|parcel| {
        let lane = lane(parcel);
        let new = !lanes.contains(&lane);
        lanes.push(lane);
        new
    });
    different.count()
}

/// What Sensoro's callbacks are signed with, in their headers.
#[must_use]
pub(in crate::rule_engine) fn sensoro_headers(secret: &Secret, url: &str, body: &[u8], nonce: &str) -> HeaderMap {
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit as _, Mac as _};

    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A key of any length will do for HMAC.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) {
        for part in [nonce.as_bytes(), b"POST", url.as_bytes(), body] {
            mac.update(part);
        }
        let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        for (name, value) in [("x-access-nonce", nonce), ("x-access-signature", &*signature)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_what_to_do() {
        let outcome = |code: u16| judge(StatusCode::from_u16(code).expect("a status")).outcome();
        for (code, wanted) in [
            (200, "taken"),
            (204, "taken"),
            (301, "failed"),
            (400, "refused"),
            (404, "refused"),
            (408, "failed"),
            (429, "failed"),
            (500, "failed"),
            (503, "failed"),
        ] {
            assert_eq!(outcome(code), wanted, "{code}");
        }
    }

    #[test]
    fn signatures() {
        // SHA-256 of "1700000000000abcnonce" and so on, whatever the order they are given in.
        let whole = hex::encode(Sha256::digest("1700000000000abcnonce"));
        assert_eq!(sign("abc", "1700000000000", "nonce"), whole);
        assert_eq!(sign("nonce", "abc", "1700000000000"), whole);
        let headers = sensoro_headers(&Secret::new("key"), "http://h/x", b"{}", "1");
        // HMAC-SHA256 of "1POSThttp://h/x{}" under "key", in base64, as Python computes it.
        assert_eq!(headers["x-access-signature"], "zzAzPfxLxxykvCLGeOaC6eax2oGvNmTCjb3OvlSwRdA=");
        assert_eq!(headers["x-access-nonce"], "1");
    }

    #[test]
    fn those_of_one_device_go_one_after_the_other() {
        let of = |device: &str| Parcel {
            key: "k".into(),
            body: format!("{{\"notify_data\":{{\"header\":{{\"device_id\":\"{device}\"}}}}}}").into(),
            topic: None,
            at_ms: 0,
        };
        let parcels: Vec<Parcel> = ["a", "b", "a", "c"].map(of).into();
        assert_eq!((together(&parcels), together(&parcels[2..]), together(&[])), (2, 2, 0));
        let many: Vec<Parcel> = (0..20).map(|number| of(&number.to_string())).collect();
        assert_eq!(together(&many), AT_ONCE_MAX);
    }

    /// A server that answers each connection's one request with the next of these, over TLS with its own authority.
    async fn server(statuses: Vec<u16>) -> (std::net::SocketAddr, Vec<u8>, tokio::task::JoinHandle<Vec<String>>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("an authority").der().to_vec();
        let issuer = rcgen::Issuer::new(params, key);
        let own = rcgen::KeyPair::generate().expect("a key");
        let names = vec!["receiver.example".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("a name");
        params.subject_alt_names.push(rcgen::SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
        let certificate = params.signed_by(&own, &issuer).expect("a certificate").der().clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they fit");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let served = tokio::spawn(async move {
            let mut heads = Vec::new();
            for status in statuses {
                let (stream, _) = listener.accept().await.expect("a connection");
                let mut stream = acceptor.accept(stream).await.expect("a handshake");
                let mut text = Vec::new();
                while !text.ends_with(b"{}") {
                    let mut chunk = [0; 1024];
                    let count = stream.read(&mut chunk).await.expect("a request");
                    text.extend_from_slice(&chunk[..count]);
                }
                heads.push(String::from_utf8(text).expect("text"));
                let answer =
                    format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\nLocation: /y\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("an answer");
                stream.shutdown().await.expect("an end");
            }
            heads
        });
        (at, authority, served)
    }

    #[tokio::test]
    async fn requests_go_to_who_the_authority_vouches_for() {
        // Whoever comes first installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (at, authority, served) = server(vec![500, 302, 200]).await;
        let url = Url::parse(&format!("https://{at}/x")).expect("an address");
        let builder = client(Some(&authority), true).expect("a client");
        let trusting = builder.resolve("receiver.example", at).build().expect("a client");
        let body = Bytes::from_static(b"{}");
        for (host, outcome) in [(None, "failed"), (None, "failed"), (Some("receiver.example"), "taken")] {
            let mut url = url.clone();
            if let Some(host) = host {
                url.set_host(Some(host)).expect("a host");
            }
            let posted = post(&trusting, url, HeaderMap::new(), body.clone()).await;
            assert_eq!(posted.outcome(), outcome, "{posted:?}");
        }
        let heads = served.await.expect("served");
        assert!(heads.iter().all(|head| head.starts_with("POST /x HTTP/1.1\r\n")), "{heads:?}");

        let (at, _, served) = server(vec![200]).await;
        let url = Url::parse(&format!("https://{at}/x")).expect("an address");
        let posted = post(&trusting, url, HeaderMap::new(), body).await;
        assert_eq!(posted.outcome(), "failed", "another authority: {posted:?}");
        served.abort();
    }
}
