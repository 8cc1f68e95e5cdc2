//! `fulmar dev`, as a newcomer meets it.

use std::net::TcpListener;
use std::process::Command;

use cluster_tests::client::{Client, Options, Protocol};
use cluster_tests::harness::{DevOptions, Endpoints, Fulmar, Node, Process, ServeOptions, free_base, fulmar_binary};
use cluster_tests::sys::Signal;
use cluster_tests::{raw, wait_for};
use fulmar_mqtt::{ReasonCode, Version};

use crate::support::{SOON, http_get, raw_client, raw_connect};

/// Runs `fulmar` to its end.
async fn fulmar(arguments: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(fulmar_binary().unwrap());
    command.args(arguments);
    let mut process = Process::spawn("fulmar", command, dir.path()).unwrap();
    let status = process.exited(SOON).await.unwrap();
    (status.code(), process.stderr())
}

/// Waits until `fulmar dev` has printed this.
async fn told(dev: &mut Fulmar, what: &str) {
    wait_for(what, SOON, async || dev.process().stdout().contains(what).then_some(())).await.unwrap();
}

#[tokio::test]
async fn endpoints_are_printed_first_and_written_as_designed() {
    let mut dev = Fulmar::dev(DevOptions::default()).await.unwrap();
    let output = dev.process().stdout();
    let path = output.lines().next().unwrap().strip_prefix("endpoints: ").unwrap();
    assert!(path.ends_with("/endpoints.json"), "{path}");
    let text = std::fs::read_to_string(path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let keys = |value: &serde_json::Value| {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys.join(" ")
    };
    assert_eq!(keys(&json), "ca credentials nodes version");
    assert_eq!(json["version"], 1);
    assert_eq!(json["nodes"].as_array().unwrap().len(), 1);
    let node = &json["nodes"][0];
    assert_eq!(keys(node), "admin config data_dir https mqtt mqtts node peer pid probes rest ws wss");
    assert_eq!(node["node"], 0);
    let port = |door: &str| {
        let address = node[door].as_str().unwrap();
        address.strip_prefix("127.0.0.1:").unwrap_or_else(|| panic!("{door} is {address}")).parse::<u16>().unwrap()
    };
    let base = port("mqtt") - 1;
    let offsets =
        ["mqtt", "mqtts", "ws", "wss", "rest", "https", "admin", "peer", "probes"].map(|door| port(door) - base);
    assert_eq!(offsets, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for path in [&json["ca"], &node["config"], &node["data_dir"]] {
        assert!(std::path::Path::new(path.as_str().unwrap()).exists(), "{path}");
    }
    assert_eq!(keys(&json["credentials"]), "admin application devices generic rest");
    assert_eq!(keys(&json["credentials"]["rest"]), "ak password project_id sk user");
    let dialects =
        json["credentials"]["devices"].as_array().unwrap().iter().map(|device| device["dialect"].as_str().unwrap());
    assert_eq!(dialects.collect::<Vec<_>>(), ["huawei", "aliyun", "tencent", "sensoro"]);
    assert_eq!(keys(&json["credentials"]["admin"]), "token");
    assert_eq!(keys(&json["credentials"]["generic"]), "password username");
    for word in
        ["mosquitto_sub", "mosquitto_pub", "routing-rule", "batchtasks", "Ctrl-C", "ctl cluster members --endpoints"]
    {
        assert!(output.contains(word), "the tour has no {word}:\n{output}");
    }
    for probe in ["/livez", "/readyz", "/startupz", "/metrics"] {
        let address = dev.endpoints().nodes[0].probes.unwrap();
        assert_eq!(http_get(address, probe).await.unwrap().0, 200, "{probe}");
    }
}

#[tokio::test]
async fn a_node_is_a_process_in_its_own_group() {
    let mut dev = Fulmar::dev(DevOptions::default()).await.unwrap();
    let dev_pid = dev.process().pid();
    let pid = dev.node(0).pid();
    // [proc(5)] After the command in parentheses: state, parent, process group.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u32> =
        stat.rsplit_once(')').unwrap().1.split(' ').skip(2).take(2).map(|f| f.parse().unwrap()).collect();
    assert_eq!(fields, [dev_pid, pid], "parent, process group");
    assert_ne!(dev_pid, pid);
}

#[tokio::test]
async fn a_killed_node_stays_down_and_the_printed_command_starts_it_again() {
    let mut dev = Fulmar::dev(DevOptions::default()).await.unwrap();
    let endpoints = dev.endpoints().nodes[0].clone();
    let id = std::fs::read_to_string(endpoints.data_dir.join("node-id")).unwrap();
    dev.node(0).kill().await.unwrap();
    let command = wait_for("the command that starts the node again", SOON, async || {
        let output = dev.process().stdout();
        let (_, after) = output.split_once(&format!("node 0 (pid {}) has ended", endpoints.pid))?;
        let (line, complete) = after.lines().nth(1).zip(Some(after.matches('\n').count() >= 2))?;
        complete.then(|| line.trim().to_owned())
    });
    let command = command.await.unwrap();
    assert!(!dev.node(0).alive());

    let dir = tempfile::tempdir().unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    let mut by_hand = Command::new(words[0]);
    by_hand.args(&words[1..]);
    let mut by_hand = Process::spawn("by-hand", by_hand, dir.path()).unwrap();
    dev.node(0).wait_until_ready(SOON).await.unwrap();
    raw_client(endpoints.mqtt, Version::V311, "again").await;
    assert_eq!(std::fs::read_to_string(endpoints.data_dir.join("node-id")).unwrap(), id, "it is the same node");

    // What was started by hand is not dev's to stop.
    dev.process().signal(Signal::Interrupt).unwrap();
    assert_eq!(dev.process().exited(SOON).await.unwrap().code(), Some(0));
    assert!(by_hand.status().unwrap().is_none(), "the node started by hand survives");
    raw_client(endpoints.mqtt, Version::V311, "still").await;
}

#[tokio::test]
async fn ctrl_c_stops_the_node_and_exits_well() {
    for signal in [Signal::Interrupt, Signal::Terminate, Signal::Hangup] {
        let mut dev = Fulmar::dev(DevOptions::default()).await.unwrap();
        let mut client = raw_client(dev.endpoints().nodes[0].mqtt, Version::V5, "watcher").await;
        dev.process().signal(signal).unwrap();
        let told = crate::support::close_reason(&mut client).await;
        assert_eq!(told, Some(ReasonCode::ServerShuttingDown));
        drop(client);
        assert_eq!(dev.process().exited(SOON).await.unwrap().code(), Some(0), "{signal:?}");
        dev.node(0).wait_until_gone(SOON).await.unwrap();
    }
}

#[tokio::test]
async fn identity_and_credentials_are_kept_with_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let options = DevOptions { data_dir: Some(dir.path().join("kept")), ..DevOptions::default() };
    let mut seen: Vec<(String, String, String)> = Vec::new();
    for _ in 0..2 {
        let mut dev = Fulmar::dev(options.clone()).await.unwrap();
        let node = dev.endpoints().nodes[0].clone();
        let id = std::fs::read_to_string(node.data_dir.join("node-id")).unwrap();
        let ca = std::fs::read_to_string(dev.endpoints().ca.clone().unwrap()).unwrap();
        seen.push((id, ca, dev.endpoints().credentials.to_string()));
        dev.process().signal(Signal::Interrupt).unwrap();
        dev.process().exited(SOON).await.unwrap();
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn three_nodes_are_one_cluster_and_the_tour_keeps_its_word() {
    let mut dev = Fulmar::dev(DevOptions { nodes: 3, ..DevOptions::default() }).await.unwrap();
    let nodes = dev.endpoints().nodes.clone();
    let base = nodes[0].mqtt.port();
    assert_eq!(nodes.iter().map(|node| node.mqtt.port() - base).collect::<Vec<u16>>(), [0, 100, 200]);
    let tour = dev.process().stdout();
    for step in [
        format!("mosquitto_sub -p {} ", nodes[0].mqtt.port()),
        format!("mosquitto_pub -p {} ", nodes[1].mqtt.port()),
        format!("kill -9 {}", nodes[0].pid),
        format!("mosquitto_sub -p {} ", nodes[2].mqtt.port()),
    ] {
        assert!(tour.contains(&step), "the tour has no {step}:\n{tour}");
    }

    let options = Options::new(Protocol::V5, "tour").persistent(3600);
    let mut subscriber = Client::connect(nodes[0].mqtt, options.clone()).await.unwrap();
    subscriber.subscribe("tour/#", 1).await.unwrap();
    subscriber.disconnect().await.unwrap();
    let mut publisher = Client::connect(nodes[1].mqtt, Options::new(Protocol::V5, "publisher")).await.unwrap();
    for index in 0..3 {
        publisher.publish_acked(&format!("tour/{index}"), 1, format!("job {index}")).await.unwrap();
    }
    dev.node(0).kill().await.unwrap();
    let again =
        wait_for("the session at node 2", SOON, async || Client::connect(nodes[2].mqtt, options.clone()).await.ok());
    let mut again = again.await.unwrap();
    assert!(again.session_present());
    let received = again.collect(3, SOON).await.unwrap();
    let payloads: Vec<&[u8]> = received.iter().map(|message| &message.payload[..]).collect();
    assert_eq!(payloads, [b"job 0", b"job 1", b"job 2"]);

    // What is there besides the tour is told in lines.
    told(&mut dev, &format!("node 0 (pid {}) has ended", nodes[0].pid)).await;
    dev.node(0).restart().await.unwrap();
    told(&mut dev, "node 0 is back").await;
    dev.process().signal(Signal::Interrupt).unwrap();
    assert_eq!(dev.process().exited(SOON).await.unwrap().code(), Some(0));
    assert!(dev.node(0).alive(), "what was started by hand is not dev's to stop");
}

#[tokio::test]
async fn no_nodes_and_too_many_are_refused_clearly() {
    for nodes in ["0", "33"] {
        let (code, error) = fulmar(&["dev", "--nodes", nodes]).await;
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains("--nodes") && error.contains("1..=32"), "{error}");
    }
}

#[tokio::test]
async fn a_directory_of_more_nodes_is_not_used_with_fewer() {
    let dir = tempfile::tempdir().unwrap();
    for index in 0..3 {
        std::fs::create_dir_all(dir.path().join(format!("node-{index}/data"))).unwrap();
    }
    let (code, error) = fulmar(&["dev", "--nodes", "1", "--data-dir", dir.path().to_str().unwrap()]).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("--data-dir") && error.contains("use --nodes 3"), "{error}");
}

#[tokio::test]
async fn host_per_node_excludes_host_and_base_port() {
    for other in [["--host", "127.0.0.1"], ["--base-port", "21000"]] {
        let (code, error) = fulmar(&["dev", "--host-per-node", other[0], other[1]]).await;
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains("--host-per-node") && error.contains(other[0]), "{error}");
    }
}

#[tokio::test]
async fn a_host_that_others_could_reach_is_refused() {
    let (code, error) = fulmar(&["dev", "--host", "0.0.0.0"]).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("--host") && error.contains("0.0.0.0"), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_listener() {
    let base = free_base(1).unwrap();
    // Whatever else listens there is as good.
    let _taken = TcpListener::bind(("127.0.0.1", base + 3));
    let (code, error) = fulmar(&["dev", "--nodes", "1", "--base-port", &base.to_string()]).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains(&format!("ws-{}", base + 3)), "the listener is not named: {error}");
    assert!(error.contains(&format!("127.0.0.1:{}", base + 3)), "the address is not named: {error}");
    assert!(error.contains("in use"), "{error}");
}

#[tokio::test]
async fn credentials_work_and_wrong_ones_are_refused() {
    let dev = Fulmar::dev(DevOptions::default()).await.unwrap();
    let address = dev.endpoints().nodes[0].mqtt;
    let Endpoints { credentials, .. } = dev.endpoints();
    let given = |key: &str| credentials["generic"][key].as_str().unwrap().to_owned();
    let (user, password) = (given("username"), given("password"));
    for protocol in [Protocol::V4, Protocol::V5] {
        let right = Options { credentials: Some((user.clone(), password.clone())), ..Options::new(protocol, "right") };
        let mut client = Client::connect(address, right).await.unwrap();
        client.publish_acked("a", 1, "x").await.unwrap();
    }
    for (user, password) in [(user.as_str(), "wrong"), ("nobody", password.as_str())] {
        for version in [Version::V31, Version::V311, Version::V5] {
            let mut connect = raw::connect(version, "wrong");
            connect.username = Some(user.into());
            connect.password = Some(password.as_bytes().to_vec().into());
            // The codec reads code 4 of 3.x as 0x86.
            let (mut client, connack) = raw_connect(address, connect).await;
            assert_eq!(connack.reason, ReasonCode::BadUserNameOrPassword, "{version:?} {user}");
            assert!(client.expect_close(SOON).await.unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn the_written_configuration_serves_by_itself() {
    let mut dev = Fulmar::dev(DevOptions::default()).await.unwrap();
    let node = dev.endpoints().nodes[0].clone();
    dev.node(0).kill().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = ServeOptions {
        config: node.config.clone(),
        mqtt: node.mqtt,
        probes: node.probes,
        env: Vec::new(),
        output_dir: dir.path().to_owned(),
        binary: None,
    };
    let mut by_us = Node::serve(options).await.unwrap();
    raw_client(node.mqtt, Version::V5, "a").await;
    by_us.terminate().await.unwrap();
}
