//! Sinks elsewhere: web servers and other devices.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;

/// A web server that answers as it is told, and keeps what it was asked.
mod parking {
    use std::collections::VecDeque;
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// One request: its head in lower case, and its body.
    #[derive(Debug, Clone)]
    pub(in super::super) struct Request {
        pub(in super::super) head: String,
        pub(in super::super) body: Value,
    }

    impl Request {
        pub(in super::super) fn header(&self, name: &str) -> Option<&str> {
            self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        }
    }

    #[derive(Debug, Default)]
    pub(in super::super) struct Requests {
        /// Statuses of the next answers; then 200.
        pub(in super::super) answers: Mutex<VecDeque<u16>>,
        pub(super) taken: Mutex<Vec<(u16, Request)>>,
    }

    impl Requests {
        pub(super) fn all(&self) -> Vec<(u16, Request)> {
            self.taken.lock().unwrap().clone()
        }
    }

    pub(in super::super) async fn listen(requests: Arc<Requests>, at: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, requests.clone()));
            }
        });
        at
    }

    async fn serve(mut stream: TcpStream, requests: Arc<Requests>) -> Option<()> {
        let mut text = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            let end = loop {
                if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
                    break end + 4;
                }
                let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
                text.extend_from_slice(&chunk[..count]);
            };
            let head = String::from_utf8_lossy(&text[..end]).into_owned();
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let length: usize = length.unwrap_or_default();
            while text.len() < end + length {
                let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
                text.extend_from_slice(&chunk[..count]);
            }
            let body = serde_json::from_slice(&text[end..end + length]).unwrap_or_default();
            text.drain(..end + length);
            let status = requests.answers.lock().unwrap().pop_front().unwrap_or(200);
            requests.taken.lock().unwrap().push((status, Request { head, body }));
            let answer = format!("HTTP/1.1 {status} Status\r\nContent-Length: 2\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }
}

pub(super) use parking::{Requests, listen};

pub(super) fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Waits until so many requests were answered with 200.
pub(super) async fn until(requests: &Requests, count: usize) -> Vec<parking::Request> {
    cluster_tests::wait_for("posts", SOON * 2, async || {
        let taken: Vec<_> = requests.all().into_iter().filter(|(status, _)| *status == 200).collect();
        (taken.len() >= count).then(|| taken.into_iter().map(|(_, request)| request).collect())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {:?}", requests.all()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_server_gets_every_report_in_order_although_it_fails_at_first() {
    const REPORTS: usize = 10;
    let (cluster, rest, device) = start().await;
    let requests = Arc::new(Requests::default());
    requests.answers.lock().unwrap().extend([500, 503, 429]);
    let at = listen(requests.clone(), anywhere()).await;
    let detail = json!({ "http_forwarding": { "url": format!("http://{at}/events?x=1"), "token": "abcdef" } });
    let rule = rule(&rest, json!({}), "HTTP_FORWARDING", detail).await;
    activate(&cluster, &rest, &rule, true).await;
    let mut reporter = connect(&cluster, 1, &device).await;
    for number in 0..REPORTS {
        reporter.report(number).await;
    }
    let taken = until(&requests, REPORTS).await;
    let values: Vec<usize> = taken.iter().map(|request| value(&request.body)).collect();
    assert_eq!(values, (0..REPORTS).collect::<Vec<_>>());
    let all = requests.all();
    let keys: Vec<_> = all.iter().map(|(_, request)| request.header("idempotency-key").unwrap().to_owned()).collect();
    assert!(keys[..4].iter().all(|key| *key == keys[0]), "what is tried again has the same key: {keys:?}");
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), REPORTS);
    let (_, first) = &all[0];
    assert!(first.head.starts_with("POST /events?x=1 HTTP/1.1\r\n"), "{}", first.head);
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert!(first.header("signature").is_some_and(|signature| signature.len() == 64));
    assert!(first.header("timestamp").is_some_and(|timestamp| timestamp.len() == 13));
    // Refused for good: it is not tried again, and what follows goes on.
    requests.answers.lock().unwrap().push_back(400);
    let before = requests.all().len();
    reporter.report(100).await;
    reporter.report(101).await;
    until(&requests, REPORTS + 1).await;
    let after: Vec<_> = requests.all()[before..].iter().map(|(status, of)| (*status, value(&of.body))).collect();
    assert_eq!(after, [(400, 100), (200, 101)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_forwarded_to_devices_that_subscribe() {
    let (cluster, rest, device) = start().await;
    let other = Device::new(Vendor::Huawei, "display");
    rest.add(std::slice::from_ref(&other)).await.unwrap();
    let own = format!("$oc/devices/{}/user/shown", other.id());
    let detail = json!({ "mqtt_device_forwarding": { "topic": own, "ttl": 5 } });
    let rule = rule(&rest, json!({}), "MQTT_DEVICE_FORWARDING", detail).await;
    activate(&cluster, &rest, &rule, true).await;
    let mut display = connect(&cluster, 2, &other).await;
    display.client.send(&raw::subscribe(1, &own, QoS::AtLeastOnce)).await.unwrap();
    let granted = display.client.expect("an answer", SOON, |packet| match packet {
        Packet::SubAck(suback) => Some(suback.reasons[0]),
        _ => None,
    });
    assert_eq!(granted.await.unwrap(), ReasonCode::GrantedQoS1);
    let mut reporter = connect(&cluster, 0, &device).await;
    reporter.report(7).await;
    let shown = display.client.expect("an answer", SOON, |packet| match packet {
        Packet::Publish(publish) => Some(publish.clone()),
        _ => None,
    });
    let shown = shown.await.unwrap();
    assert_eq!(shown.topic.as_ref().unwrap().as_str(), own);
    assert_eq!(value(&serde_json::from_slice(&shown.payload).unwrap()), 7);
}
