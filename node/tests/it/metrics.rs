//! Every figure has its line in `telemetry/README.md`, and every line its figure; what the dashboard and the alerts ask for is
//! among them.
#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of #[test] functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fulmar::config::Config;
use fulmar::telemetry::Metrics;
use fulmar::telemetry::metrics::{Form, Turned};
use fulmar_broker::plane::backlog::Dropped;
use fulmar_mqtt::ReasonCode;
use fulmar_platform::Dialect;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Until a node serves.
const START: Duration = Duration::from_secs(60);

/// Labels of a metric: their names, and their values; `None` where these are not from a closed list.
type Labels = BTreeMap<String, Option<BTreeSet<String>>>;

#[derive(Debug, PartialEq, Eq)]
struct Line {
    kind: String,
    unit: String,
    labels: Labels,
}

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The names of the table, with what it says of them.
fn table() -> BTreeMap<String, Line> {
    let text = std::fs::read_to_string(path("src/telemetry/README.md")).unwrap();
    let mut table = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `fulmar_") || line.starts_with("| `process_")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, unit, labels, meaning] = cells[..] else { panic!("no line of the table: {line}") };
        assert!(!meaning.is_empty(), "{line}");
        let labels = labels.split("; ").filter(|label| !label.is_empty()).map(|label| {
            let (name, values) = label.split_once(": ").unwrap_or_else(|| panic!("a label without values: {line}"));
            let closed = values.split(' ').all(|value| value.starts_with('`') && value.ends_with('`'));
            let values = closed.then(|| values.split(' ').map(|value| value.trim_matches('`').to_owned()).collect());
            (name.trim_matches('`').to_owned(), values)
        });
        let said = Line { kind: kind.to_owned(), unit: unit.to_owned(), labels: labels.collect() };
        assert!(table.insert(name.trim_matches('`').to_owned(), said).is_none(), "twice in the table: {line}");
    }
    assert!(table.len() > 50, "the table was not read: {} lines", table.len());
    table
}

/// Kinds of what was scraped by name, and the labels and values that were seen.
fn scraped(text: &str, seen: &mut BTreeMap<String, (String, BTreeMap<String, BTreeSet<String>>)>) {
    let mut now = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            now = name.to_owned();
            seen.entry(now.clone()).or_insert_with(|| (kind.to_owned(), BTreeMap::new()));
        } else if !line.starts_with('#') && !line.is_empty() {
            let sample = line.split(['{', ' ']).next().unwrap();
            let (kind, labels) = seen.get_mut(&now).unwrap_or_else(|| panic!("{line} has no type"));
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.strip_suffix(end));
            let of = if kind == "histogram" { stem.unwrap_or(sample) } else { sample };
            assert_eq!(of, now, "a sample under another name");
            let inside =
                line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(inside, _)| inside);
            for (name, value) in inside.split(',').filter_map(|label| label.split_once('=')) {
                if name != "le" {
                    labels.entry(name.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
}

/// Counts once what has labels, and so is not there before it is counted.
fn count_all(metrics: &Metrics) {
    metrics.admin_refused("busy");
    metrics.connect_refused(Dialect::Generic, ReasonCode::NotAuthorized);
    metrics.publish_denied(Dialect::Huawei);
    metrics.subscribe_denied(Dialect::Huawei);
    metrics.uplink_unread(Dialect::Aliyun);
    metrics.reported(Dialect::Tencent, "event");
    metrics.downlink_dropped("queue_full");
    metrics.called("timeout");
    metrics.answer_dropped("late");
    metrics.shadow_dropped("crowded");
    metrics.uplink_changes_dropped("rejected", 1);
    metrics.disconnected(ReasonCode::ServerShuttingDown);
    metrics.pushed("live", 1);
    metrics.webhook("taken");
    metrics.sensoro("pushed");
    metrics.banned("address");
    metrics.turned_away("mqtt-1883", Turned::NoConnect);
    metrics.target_done("success");
    metrics.watch_ended("slow");
    metrics.backlog_dropped(Dropped::Full, 1);
    metrics.calls_answered.answered("rest", "devices", 200, Duration::from_millis(3));
    metrics.traffic.clients("mqtt-1883", 5, "generic").inc();
    metrics.tls_files.ends("admin", 1);
    metrics.tls_files.reloaded("ok");
}

async fn get(address: &str, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.starts_with("HTTP/1.1 200") && (path != "/metrics" || head.contains("version=0.0.4")))
        .then(|| body.to_owned())
}

/// What a node that serves says of itself.
async fn scrape() -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (probes, mqtt) = (free(), free());
    let text = format!(
        "[node]\ndata_dir = {:?}\n[probes]\naddress = \"{probes}\"\n[[listener]]\naddress = \"{mqtt}\"\n",
        dir.path().join("data").display().to_string(),
    );
    let config = Config::from_toml_str(&text).unwrap();
    let running = tokio::spawn(async move { fulmar::node::run(config).await.expect("the node runs") });
    let until = Instant::now() + START;
    while get(&probes.to_string(), "/readyz").await.is_none() {
        assert!(Instant::now() < until && !running.is_finished(), "the node does not become ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One of them is let in, so that what is counted of clients is there.
    let mut client = TcpStream::connect(mqtt).await.unwrap();
    client.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01m").await.unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    let said = get(&probes.to_string(), "/metrics").await.expect("figures in the text format of Prometheus");
    running.abort();
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_is_in_the_table_and_every_line_of_it_is_a_figure() {
    let table = table();
    let metrics = Metrics::default();
    count_all(&metrics);
    let mut seen = BTreeMap::new();
    scraped(&metrics.render(Form::Prometheus, &[], &[]), &mut seen);
    scraped(&scrape().await, &mut seen);
    let mut wrong = Vec::new();
    for (name, (kind, labels)) in &seen {
        let Some(line) = table.get(name) else {
            let names: Vec<&String> = labels.keys().collect();
            wrong.push(format!("not in the table: {name}, {kind}, labels {names:?}"));
            continue;
        };
        let unit = match name.trim_end_matches("_total") {
            name if name.ends_with("_seconds") => "s",
            name if name.ends_with("_bytes") || name.ends_with("_bytes_max") => "B",
            _ => "",
        };
        if (line.kind.as_str(), line.unit.as_str()) != (kind.as_str(), unit) {
            wrong.push(format!("{name} is a {kind} in {unit:?}, and the table has {}, {:?}", line.kind, line.unit));
        }
        if !labels.keys().eq(line.labels.keys()) {
            wrong.push(format!("{name} has the labels {:?}, and in the table {:?}", labels.keys(), line.labels.keys()));
        }
        for (label, values) in labels {
            let Some(Some(closed)) = line.labels.get(label) else { continue };
            wrong.extend(
                values.difference(closed).map(|value| format!("{name}: {label}={value:?} is not in the table")),
            );
        }
        if kind == "counter" && !name.ends_with("_total") {
            wrong.push(format!("{name} is a counter and does not say so"));
        }
    }
    wrong
        .extend(table.keys().filter(|name| !seen.contains_key(*name)).map(|name| format!("only in the table: {name}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Names of metrics in an expression or a file of them.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("fulmar_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn what_the_dashboard_and_the_alerts_ask_for_is_in_the_table() {
    let table = table();
    for file in ["../deploy/grafana/fulmar.json", "../deploy/alerts/fulmar.rules.yaml"] {
        let text = std::fs::read_to_string(path(file)).unwrap();
        let asked = names(&text);
        assert!(asked.len() > 10, "{file} asks for nearly nothing: {asked:?}");
        for name in asked {
            let stem = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .filter(|stem| table.get(*stem).is_some_and(|line| line.kind == "histogram"));
            assert!(table.contains_key(stem.unwrap_or(&name)), "{file} asks for {name}, which there is not");
        }
    }
}
