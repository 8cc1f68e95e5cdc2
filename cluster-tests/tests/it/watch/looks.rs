//! Sessions, subscriptions, retained messages and nodes, asked of a node that has none of them.

use cluster_tests::harness::{Cluster, ClusterOptions};
use cluster_tests::raw::{RawClient, connect, persistent, publish, subscribe};
use cluster_tests::wait_for;
use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tonic::Code;

use super::admin;
use crate::support::SOON;

async fn client(cluster: &Cluster, node: usize, packet: fulmar_mqtt::packet::Connect) -> RawClient<TcpStream> {
    let mut client = RawClient::tcp(cluster.mqtt(node), Version::V5).await.unwrap();
    let connack = client.handshake(packet, SOON).await.unwrap();
    assert_eq!(connack.reason, ReasonCode::Success);
    client
}

async fn subscribed(client: &mut RawClient<TcpStream>, filter: &str, qos: QoS) {
    client.send(&subscribe(1, filter, qos)).await.unwrap();
    let suback = client.expect("SUBACK", SOON, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
    suback.unwrap();
}

fn names(list: &Value, member: &str, name: &str) -> Vec<String> {
    let list = list[member].as_array().cloned().unwrap_or_default();
    list.iter().map(|one| one[name].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_other_nodes_are_seen_and_steered() {
    let cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let (here, node) = (admin(&cluster, 2), admin(&cluster, 0));
    let name = |id: &str| format!("default/generic/{id}");
    let mut kept = client(&cluster, 0, persistent(Version::V5, "look-kept")).await;
    subscribed(&mut kept, "look/+", QoS::AtLeastOnce).await;
    let mut clean = client(&cluster, 1, connect(Version::V5, "look-clean")).await;
    subscribed(&mut clean, "look/#", QoS::AtMostOnce).await;
    // Not acknowledged by `kept`.
    clean.send(&Packet::Publish(publish(7, "look/1", QoS::AtLeastOnce, "x"))).await.unwrap();
    kept.expect("PUBLISH", SOON, |packet| matches!(packet, Packet::Publish(_)).then_some(())).await.unwrap();

    let list = here.call("Sessions/List", json!({ "prefix": "look-", "limit": 1 })).await.unwrap();
    assert_eq!(names(&list, "sessions", "session"), [name("look-clean")]);
    assert!(list["sessions"][0]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{list}");
    let next = json!({ "prefix": "look-", "marker": list["marker"] });
    let list = here.call("Sessions/List", next).await.unwrap();
    assert_eq!(names(&list, "sessions", "session"), [name("look-kept")]);
    let of_node = json!({ "node": list["sessions"][0]["node"], "address": "127.0.0.1", "connected": true });
    let list = here.call("Sessions/List", of_node).await.unwrap();
    assert_eq!(names(&list, "sessions", "session"), [name("look-kept")]);
    let elsewhere = here.call("Sessions/List", json!({ "address": "10.0.0.1" })).await.unwrap();
    assert_eq!(names(&elsewhere, "sessions", "session"), [""; 0]);

    let shown = here.call("Sessions/Show", json!({ "session": name("look-kept") })).await.unwrap();
    let connection = &shown["connection"];
    assert_eq!((&connection["protocol"], &connection["inflight"]), (&json!("5"), &json!(1)), "{shown}");
    assert_eq!(connection["unacknowledged"][0]["qos"], 1, "{shown}");
    assert_eq!(shown["session"]["queued"], 1, "{shown}");
    assert!(shown["queue_oldest"].is_string(), "{shown}");
    assert_eq!(names(&shown, "subscriptions", "filter"), ["look/+"]);
    let shown = here.call("Sessions/Show", json!({ "session": name("look-clean") })).await.unwrap();
    assert_eq!(names(&shown, "subscriptions", "filter"), ["look/#"], "only its node knows them");
    assert_eq!(shown["connection"]["messages_in"], 1, "{shown}");

    let who = here.call("Subscriptions/List", json!({ "topic": "look/2" })).await.unwrap();
    assert_eq!(names(&who, "subscriptions", "filter"), ["look/#", "look/+"], "{who}");
    let who = here.call("Subscriptions/List", json!({ "filter": "look/#" })).await.unwrap();
    assert_eq!(names(&who, "subscriptions", "session"), [name("look-clean")]);
    let error = here.call("Subscriptions/List", json!({})).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);

    here.call("Sessions/Disconnect", json!({ "session": name("look-kept") })).await.unwrap();
    let told = kept.expect_close(SOON).await.unwrap();
    let reason = told.iter().find_map(|packet| match packet {
        Packet::Disconnect(disconnect) => Some(disconnect.reason),
        _ => None,
    });
    assert_eq!(reason, Some(ReasonCode::AdministrativeAction));
    let list = here.call("Sessions/List", json!({ "connected": false })).await.unwrap();
    assert_eq!(names(&list, "sessions", "session"), [name("look-kept")]);
    let again = here.call("Sessions/Disconnect", json!({ "session": name("look-kept") })).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    here.call("Sessions/Clear", json!({ "session": name("look-kept") })).await.unwrap();
    let gone = node.call("Sessions/Show", json!({ "session": name("look-kept") })).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    here.call("Sessions/Clear", json!({ "session": name("look-clean") })).await.unwrap();
    clean.expect_close(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_are_listed_exported_and_deleted() {
    let cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let mut client = client(&cluster, 0, connect(Version::V5, "keeper")).await;
    for number in 0..5_u16 {
        let mut message = publish(number + 1, &format!("kept/{number}"), QoS::AtLeastOnce, format!("p{number}"));
        message.retain = true;
        client.send(&Packet::Publish(message)).await.unwrap();
        client.expect("PUBACK", SOON, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await.unwrap();
    }
    let here = admin(&cluster, 2);
    let (mut seen, mut marker) = (Vec::new(), Value::Null);
    loop {
        let page = json!({ "filter": "kept/+", "limit": 2, "marker": marker });
        let list = here.call("Retained/List", page).await.unwrap();
        assert!(list["messages"].as_array().is_none_or(|page| page.len() <= 2), "{list}");
        seen.extend(names(&list, "messages", "topic"));
        marker = list["marker"].clone();
        if marker.is_null() {
            break;
        }
    }
    assert_eq!(seen, (0..5).map(|number| format!("kept/{number}")).collect::<Vec<_>>());
    let got = here.call("Retained/Get", json!({ "topic": "kept/3" })).await.unwrap();
    assert_eq!((&got["payload"], &got["publisher"]), (&json!("cDM="), &json!("default/generic/keeper")));
    here.call("Retained/Delete", json!({ "topic": "kept/3" })).await.unwrap();
    let gone = admin(&cluster, 1).call("Retained/Get", json!({ "topic": "kept/3" })).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let mut export = here.stream("Retained/Export", json!({ "filter": "kept/#" })).await.unwrap();
    let mut exported = Vec::new();
    while let Some(part) = export.message().await.unwrap() {
        exported.extend(names(&part, "messages", "topic"));
    }
    assert_eq!(exported, ["kept/0", "kept/1", "kept/2", "kept/4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_from_another_one_and_seen_to_go() {
    let mut cluster = Cluster::start(3, ClusterOptions::default()).await.unwrap();
    let here = admin(&cluster, 2);
    let members = wait_for("everybody reaches everybody", SOON, async || {
        let list = here.call("Cluster/ListMembers", json!({})).await.ok()?;
        let members = list["members"].as_array()?.clone();
        let well = |member: &Value| {
            member["reached"] == true
                && member["acts"] == true
                && member["stage"] == "serving"
                && member["reaches"].as_array().is_some_and(|reached| reached.len() == 2)
        };
        members.iter().all(well).then_some(members)
    })
    .await
    .unwrap();
    assert_eq!(members.len(), 3);
    let away = admin(&cluster, 1).call("Cluster/ListMembers", json!({})).await.unwrap()["node"].clone();
    let mut client = client(&cluster, 1, connect(Version::V5, "leaver")).await;
    let metrics = here.call("Cluster/Metrics", json!({})).await.unwrap();
    let of = metrics["nodes"].as_array().unwrap().iter().find(|node| node["node"] == away).unwrap();
    assert_eq!(of["metrics"]["sessions_connected"], 1, "{metrics}");
    let mut watch = here.stream("Cluster/Watch", json!({})).await.unwrap();

    let mut progress = here.stream("Cluster/Drain", json!({ "node": away })).await.unwrap();
    let mut stages: Vec<String> = Vec::new();
    while let Some(part) = progress.message().await.unwrap() {
        assert_eq!(part["node"], away);
        stages.push(part["stage"].as_str().unwrap().to_owned());
    }
    assert_eq!(stages.last().map(String::as_str), Some("ended"), "{stages:?}");
    client.expect_close(SOON).await.unwrap();
    wait_for("the end of the process", SOON, async || (!cluster.node(1).alive()).then_some(())).await.unwrap();
    let list = here.call("Cluster/ListMembers", json!({})).await.unwrap();
    let gone = list["members"].as_array().unwrap().iter().find(|member| member["node"] == away).unwrap();
    assert!(gone["reached"] != true && gone["problem"].is_string(), "{gone}");
    let mut kinds = Vec::new();
    while let Some(news) = watch.message().await.unwrap() {
        kinds.push(news["kind"].as_str().unwrap().to_owned());
        let down = |event: &Value| event["what"] == "down" && event["node"] == away;
        if news["kind"] == "changed" && news["events"].as_array().unwrap().iter().any(down) {
            break;
        }
    }
    assert!(["current", "synced", "observed"].iter().all(|kind| kinds.iter().any(|known| known == kind)), "{kinds:?}");
}
