//! The REST API over plain HTTP, as a client without an SDK meets it.

mod documents;
mod life;
mod people;
mod refusals;

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::harness::{DevOptions, Fulmar};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request is answered within this time.
const ANSWER: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    json: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// `error_code` and `error_msg`.
    fn error(&self) -> (&str, &str) {
        (self.json["error_code"].as_str().unwrap_or_default(), self.json["error_msg"].as_str().unwrap_or_default())
    }
}

/// One request, with nothing added but its length.
async fn request(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let ask = async {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method != "GET" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        // One that is too long may be refused while it is being sent.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let answer = tokio::time::timeout(ANSWER, ask).await.unwrap_or_else(|_| panic!("{method} {path}: no answer"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let json = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap_or_default() };
    Answer { status, head: head.to_owned(), json }
}

/// Someone who is signed in at a node.
#[derive(Clone)]
struct Rest {
    at: SocketAddr,
    project: String,
    token: String,
}

fn sign_in_body(user: &str, password: &str) -> Value {
    json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": { "name": user, "password": password } } },
        "scope": { "project": { "name": "fulmar" } },
    } })
}

async fn sign_in(at: SocketAddr, user: &str, password: &str) -> Answer {
    request(at, "POST", "/v3/auth/tokens", &[], sign_in_body(user, password).to_string().as_bytes()).await
}

/// A development cluster, and where its nodes have their REST doors.
async fn cluster(nodes: u16, env: &[(&str, &str)]) -> (Fulmar, Vec<SocketAddr>) {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let fulmar = Fulmar::dev(DevOptions { nodes, env, ..DevOptions::default() }).await.unwrap();
    let doors = fulmar.endpoints().nodes.iter().map(|node| node.rest.unwrap()).collect();
    (fulmar, doors)
}

impl Rest {
    /// As the user whom `fulmar dev` has made.
    async fn demo(fulmar: &Fulmar, at: SocketAddr) -> Rest {
        let known = &fulmar.endpoints().credentials["rest"];
        Rest::user(at, known["user"].as_str().unwrap(), known["password"].as_str().unwrap()).await
    }

    async fn user(at: SocketAddr, name: &str, password: &str) -> Rest {
        let answer = sign_in(at, name, password).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let project = answer.json["token"]["project"]["id"].as_str().unwrap().to_owned();
        Rest { at, project, token: answer.header("x-subject-token").unwrap().to_owned() }
    }

    fn elsewhere(&self, at: SocketAddr) -> Rest {
        Rest { at, ..self.clone() }
    }

    /// `path` is relative to the project.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, body.as_bytes()).await
    }

    async fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let path = format!("/v5/iot/{}{path}", self.project);
        let headers = [("X-Auth-Token", self.token.as_str()), ("Content-Type", "application/json")];
        request(self.at, method, &path, &headers, body).await
    }

    /// What is answered with this status.
    async fn call(&self, method: &str, path: &str, body: Value, status: u16) -> Value {
        let answer = self.ask(method, path, &body).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        answer.json
    }
}

/// A product as small as it may be.
fn product(name: &str) -> Value {
    json!({
        "name": name, "device_type": "Meter", "protocol_type": "MQTT", "data_format": "json",
        "service_capabilities": [{ "service_id": "Meter", "properties": [{ "property_name": "level", "data_type": "int" }] }],
    })
}
