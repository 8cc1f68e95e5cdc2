//! Durable rules: what was acknowledged reaches the sink, whatever becomes of nodes and sinks meanwhile.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;

/// Above 80 % of this, what goes to sessions that wait is refused: so a sink can be made to refuse, and to take again.
const CONFIG: &str = "[limits]\nreplicated_bytes_max = \"1MiB\"\n";

/// Bytes of the first of what fills it.
const LARGE: usize = 60_000;

/// Reports while the sink takes nothing.
const REPORTS: i64 = 200;

/// A session that waits and is not there, with so much in its queue that no more is taken for any.
async fn fill(cluster: &Cluster) -> Options {
    let options = Options::new(Protocol::V4, "hoarder").persistent(3600);
    let mut hoarder = Client::connect(cluster.mqtt(0), options.clone()).await.unwrap();
    hoarder.subscribe("fill/#", 1).await.unwrap();
    hoarder.disconnect().await.unwrap();
    let mut filler = Client::connect(cluster.mqtt(1), Options::new(Protocol::V5, "filler")).await.unwrap();
    for size in [LARGE, 5_000, 400, 1] {
        loop {
            let ticket = filler.publish("fill/x", 1, false, vec![7; size]).await.unwrap();
            if filler.acked(ticket, SOON).await.unwrap() == "QuotaExceeded" {
                break;
            }
        }
    }
    options
}

async fn empty(cluster: &Cluster, node: usize, options: Options) -> Client {
    let mut hoarder = Client::connect(cluster.mqtt(node), options).await.unwrap();
    let first = hoarder.receive(SOON).await.unwrap();
    assert_eq!(first.payload.len(), LARGE);
    hoarder
}

fn backlog(status: &Value) -> &Value {
    &status["actions"][0]["backlog"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_sink_is_down_and_then_its_owner_dies() {
    let device = huawei("d0");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device), CONFIG).await;
    let options =
        json!({ "guarantee": "durable", "select": "notify_data.body.services[0].properties.temperature AS t" });
    let (rule_id, _) = make(&rest, &rule("device.property", "report", options), "out/durable", 1).await;
    activate(&rest, &rule_id, true).await;
    runs(&mut cluster, &rest, &rule_id, true).await;
    // Each node says under which id it is an owner.
    let mut ids = Vec::new();
    for node in 0..3 {
        ids.push(status(&rest.at(cluster.member(node).rest), &rule_id).await["node_id"].clone());
    }
    let app = Options::new(Protocol::V4, "app").persistent(3600);
    let mut first = Client::connect(cluster.mqtt(0), app.clone()).await.unwrap();
    first.subscribe("out/durable", 1).await.unwrap();
    let mut reporter = Reporter::connect(&cluster, 0, &device).await;
    reporter.report(-1).await;
    assert_eq!(next(&mut first).await, json!({ "t": -1 }), "while the sink takes it");
    let hoarder = fill(&cluster).await;
    for number in 0..REPORTS {
        reporter.report(number).await;
        // Where the device is: what was acknowledged is in the log.
        if number % 50 == 0 {
            let status = status(&rest, &rule_id).await;
            assert!(backlog(&status)["appended"].as_i64() >= Some(number + 2), "{number}: {status}");
        }
    }
    let before = status(&rest, &rule_id).await;
    assert_eq!(backlog(&before)["entries"], REPORTS, "{before}");
    let owner = ids.iter().position(|id| *id == backlog(&before)["owner_node_id"]).unwrap();
    let asked = rest.at(cluster.member(owner).rest);
    assert!(status(&asked, &rule_id).await["actions"][0]["last_error"]["message"].is_string());
    drop((first, reporter));
    cluster.kill(owner).await.unwrap();
    let alive = cluster.live();
    let mut again = Client::connect(cluster.mqtt(alive[0]), app).await.unwrap();
    let _hoarder = empty(&cluster, alive[1], hoarder).await;
    let (mut seen, mut repeated) = (BTreeSet::new(), 0);
    while seen.len() < usize::try_from(REPORTS).unwrap() {
        let received: Value = serde_json::from_str(&again.receive(LONG).await.unwrap().text()).unwrap();
        let number = received["t"].as_i64().unwrap();
        if number < 0 || !seen.insert(number) {
            repeated += 1;
        }
    }
    println!("{REPORTS} delivered after the owner's end, {repeated} of them again");
    let there = rest.at(cluster.member(alive[0]).rest);
    cluster_tests::wait_for("an empty backlog", LONG, async || {
        let status = status(&there, &rule_id).await;
        let books = backlog(&status);
        let whole = books["appended"] == REPORTS + 1 && books["settled"] == REPORTS + 1;
        (whole && books["entries"] == 0 && books["owner_node_id"] != ids[owner]).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overflow_is_counted_and_the_newest_stay() {
    let device = huawei("o0");
    let config = format!("{CONFIG}rule_backlog_bytes_max = \"1MiB\"\n");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device), &config).await;
    let body = rule("device.message", "report", json!({ "guarantee": "durable" }));
    let (rule_id, _) = make(&rest, &body, "out/overflow", 1).await;
    activate(&rest, &rule_id, true).await;
    runs(&mut cluster, &rest, &rule_id, true).await;
    let mut app = Client::connect(cluster.mqtt(0), Options::new(Protocol::V4, "app").persistent(3600)).await.unwrap();
    app.subscribe("out/overflow", 1).await.unwrap();
    let hoarder = fill(&cluster).await;
    let mut reporter = Reporter::connect(&cluster, 1, &device).await;
    for number in 0..40 {
        reporter.send("messages/up", &json!({ "number": number, "ballast": "x".repeat(50_000) })).await;
    }
    // Where the device is: what was acknowledged is applied there.
    let full = status(&rest.at(cluster.member(1).rest), &rule_id).await;
    let (entries, dropped) = (&backlog(&full)["entries"], &backlog(&full)["dropped"]["full"]);
    assert_eq!(entries.as_u64().unwrap() + dropped.as_u64().unwrap(), 40, "{full}");
    assert!(dropped.as_u64() > Some(15), "{full}");
    let counted = |metrics: Vec<(usize, cluster_tests::metrics::Metrics)>| {
        metrics.iter().map(|(_, metrics)| metrics.get("fulmar_backlogs_dropped_total{reason=\"full\"}")).sum::<u64>()
    };
    assert_eq!(Some(counted(cluster.all_metrics().await)), dropped.as_u64());
    let _hoarder = empty(&cluster, 2, hoarder).await;
    loop {
        let received = next(&mut app).await;
        if received["notify_data"]["body"]["content"]["number"] == 39 {
            break;
        }
    }
    rest.call("DELETE", &format!("/routing-rule/rules/{rule_id}"), None).await.unwrap();
    reporter.send("messages/up", &json!({ "number": 41 })).await;
}
