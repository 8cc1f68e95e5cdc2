//! The console's door of a whole node that runs in the test's process: who is let in, and what browsers are told.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of #[test] functions")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fulmar::config::Config;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PASSWORD: &str = "only-on-loopback";
/// Argon2 of it, with the least effort.
const HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$1VDij4uZR6MhWHsLOjclsQ$xMNzHHcXVqfWE31TFVC4TGOdQcnpxAM80NGpy3wjuco";

/// Until a node serves, and until it answers.
const START: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

struct Node {
    http: SocketAddr,
    ws: SocketAddr,
    running: JoinHandle<()>,
    _dir: TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(named, _)| named.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} {}", self.head, self.body))
    }
}

impl Node {
    /// Starts one with a user of each role, named after it, and waits until it serves.
    async fn start() -> Node {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let (http, ws) = (free(), free());
        let users = ["viewer", "operator", "admin"]
            .map(|role| format!("[[rest.user]]\nname = \"{role}\"\npassword_hash = \"{HASH}\"\nrole = \"{role}\"\n"));
        let text = format!(
            "[node]\ndata_dir = {:?}\n[probes]\nenabled = false\n[[listener]]\naddress = \"{http}\"\nprotocol = \"http\"\n\
             roles = [\"console\"]\n[[listener]]\naddress = \"{ws}\"\nprotocol = \"ws\"\n{}",
            dir.path().join("data").display().to_string(),
            users.concat(),
        );
        let config = Config::from_toml_str(&text).unwrap();
        let running = tokio::spawn(async move { fulmar::node::run(config).await.expect("the node runs") });
        let node = Node { http, ws, running, _dir: dir };
        let until = Instant::now() + START;
        loop {
            if let Some(cookie) = node.sign_in("viewer").await
                && node.call(&cookie, "apps.list", &json!({})).await["status"] == 200
            {
                return node;
            }
            assert!(Instant::now() < until && !node.running.is_finished());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `lines` are further headers.
    async fn ask(&self, method: &str, path: &str, lines: &[&str], body: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.http).await.ok()?;
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let (host, length) = (self.http, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{lines}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        timeout(SOON, stream.read_to_string(&mut text)).await.ok()?.ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// As the page asks.
    async fn own(&self, method: &str, path: &str, cookie: &str, body: &str) -> Option<Answer> {
        let (origin, cookie) = (format!("Origin: http://{}", self.http), format!("Cookie: {cookie}"));
        self.ask(method, path, &["X-Fulmar-Console: 1", &origin, &cookie], body).await
    }

    /// The cookie of a user, or none.
    async fn sign_in(&self, user: &str) -> Option<String> {
        let body = json!({ "user": user, "password": PASSWORD }).to_string();
        let answer = self.own("POST", "/console/session", "", &body).await?;
        Some(answer.header("set-cookie")?.split(';').next()?.to_owned())
    }

    async fn call(&self, cookie: &str, name: &str, document: &Value) -> Value {
        let answer = self.own("POST", &format!("/console/api/{name}"), cookie, &document.to_string()).await.unwrap();
        answer.json()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_let_in_by_its_cookie_and_nothing_else_causes_a_change() {
    let node = Node::start().await;
    let origin = format!("Origin: http://{}", node.http);

    // Files, and what is said with each.
    let index = node.ask("GET", "/console/", &[], "").await.unwrap();
    assert_eq!((index.status, index.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = index.header("content-security-policy").unwrap();
    let connect = format!("connect-src 'self' ws://127.0.0.1:{}; ", node.ws.port());
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; ") && policy.contains(&connect), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(index.header(name), Some(value), "{name}");
    }
    let tag = format!("If-None-Match: {}", index.header("etag").unwrap());
    assert_eq!(node.ask("GET", "/console/", &[&tag], "").await.unwrap().status, 304);
    for (path, status) in
        [("/console", 308), ("/console/assets/app.js", 200), ("/console/assets/none.js", 404), ("/v5/x", 404)]
    {
        assert_eq!(node.ask("GET", path, &[], "").await.unwrap().status, status, "{path}");
    }

    // Signing in.
    let refused = node.own("POST", "/console/session", "", r#"{"user":"admin","password":"wrong"}"#).await.unwrap();
    assert_eq!((refused.status, refused.header("set-cookie")), (200, None));
    assert_eq!(refused.json()["status"], 401);
    let good = json!({ "user": "admin", "password": PASSWORD }).to_string();
    for lines in
        [&[][..], &["X-Fulmar-Console: 1"], &[&*origin], &["X-Fulmar-Console: 1", "Origin: http://evil.example"]]
    {
        assert_eq!(node.ask("POST", "/console/session", lines, &good).await.unwrap().status, 403, "{lines:?}");
    }
    let answer = node.own("POST", "/console/session", "", &good).await.unwrap();
    assert_eq!(answer.json()["body"], json!({ "user": "admin", "role": "admin", "project_id": "fulmar" }));
    let set = answer.header("set-cookie").unwrap();
    assert!(set.ends_with("; Path=/console; Max-Age=86400; HttpOnly; SameSite=Strict"), "{set}");
    assert!(!answer.body.contains("f1."), "the token is in the cookie alone: {}", answer.body);
    let admin = set.split(';').next().unwrap().to_owned();
    assert_eq!(node.own("GET", "/console/session", &admin, "").await.unwrap().json()["body"]["user"], "admin");
    assert_eq!(node.own("GET", "/console/session", "", "").await.unwrap().json()["body"], Value::Null);

    // Calls.
    let user = json!({ "body": { "name": "new", "password": "pass-word-1", "role": "viewer" } });
    let cookie = format!("Cookie: {admin}");
    for lines in
        [&[&*cookie][..], &[&*cookie, &*origin], &[&*cookie, "X-Fulmar-Console: 1", "Sec-Fetch-Site: cross-site"]]
    {
        let foreign = node.ask("POST", "/console/api/people.create_user", lines, &user.to_string()).await.unwrap();
        assert_eq!(foreign.status, 403, "{lines:?}");
    }
    assert_eq!(node.call(&admin, "people.create_user", &user).await["status"], 201);
    assert_eq!(node.call(&admin, "people.create_user", &user).await["fault"]["error_code"], "FULMAR.000002");
    assert_eq!(node.own("POST", "/console/api/apps.list", "", "{}").await.unwrap().status, 401);
    assert_eq!(node.own("POST", "/console/api/apps.nothing", &admin, "{}").await.unwrap().status, 404);
    assert_eq!(node.own("GET", "/console/api/apps.list", &admin, "").await.unwrap().status, 405);
    assert_eq!(node.own("POST", "/console/api/apps.list", &admin, "{").await.unwrap().status, 400);
    let details = node.call(&admin, "access.details", &json!({ "host": "iot.example" })).await;
    assert_eq!(details["body"]["addresses"][0]["roles"], json!(["console"]), "{details}");

    let gone = node.own("DELETE", "/console/session", &admin, "").await.unwrap();
    assert!(gone.header("set-cookie").unwrap().starts_with("fulmar-console=; Path=/console; Max-Age=0;"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_changes_nothing_in_the_console_and_no_path_is_a_way_around() {
    let node = Node::start().await;
    let viewer = node.sign_in("viewer").await.unwrap();
    let mut changes = 0;
    for route in fulmar::api::all().filter(|route| route.changes) {
        let call = matches!(route.handler, fulmar::api::Handler::Once(_));
        if !call {
            continue;
        }
        // Whatever its parameters are: a document that names all of the path lets the role decide.
        let mut document = json!({ "body": {} });
        if let Some(http) = &route.http {
            for name in http.params().filter(|name| *name != "project_id") {
                document[name] = "x".into();
            }
        } else {
            document = json!({});
        }
        let answer = node.call(&viewer, route.name, &document).await;
        assert_eq!(answer["status"], 403, "{}: {answer}", route.name);
        changes += 1;
    }
    assert!(changes > 30, "{changes}");
    for path in [
        "/console/api/../api/apps.list",
        "/console/stream/apps.list",
        "/console/download/apps.list",
        "/console/assets/../../x",
    ] {
        let answer = node.own("GET", path, &viewer, "").await.unwrap();
        assert!([404, 405].contains(&answer.status), "{path}: {}", answer.status);
    }
}
