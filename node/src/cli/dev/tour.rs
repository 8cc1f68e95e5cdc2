//! What is printed once all nodes serve: where, and what to try.

mod plane;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::Place;
use super::fleet::program;
use super::kit::Kit;

/// Prints where everything is and a tour to copy. `pids`: the process of each node.
pub(super) fn print(endpoints: &Path, places: &[Place], pids: &[u32], kit: &Kit) {
    print!("{}", text(endpoints, places, pids, kit));
}

fn text(endpoints: &Path, places: &[Place], pids: &[u32], kit: &Kit) -> String {
    let endpoints = endpoints.display();
    let mut lines = vec![format!("endpoints: {endpoints}")];
    lines.push("node      pid  mqtt             mqtts  ws     wss    rest   https  admin  peer   probes".to_owned());
    for (place, pid) in places.iter().zip(pids) {
        let [mqtts, ws, wss, rest, https, admin, peer, probes] =
            [place.mqtts, place.ws, place.wss, place.rest, place.https, place.admin, place.peer, place.probes]
                .map(|door| door.port());
        let mqtt = place.mqtt.to_string();
        lines.push(format!(
            "{:>4}  {pid:>7}  {mqtt:<15}  {mqtts:<5}  {ws:<5}  {wss:<5}  {rest:<5}  {https:<5}  {admin:<5}  {peer:<5}  {probes}",
            place.index
        ));
    }
    lines.push(format!("CA {}, WebSocket path /mqtt", kit.ca.display()));
    let credentials = &kit.credentials;
    lines.push(format!(
        "Clients may come without a name, or as {} with password {}.",
        credentials.username, credentials.password
    ));
    lines.push("Devices of four clouds, as mosquitto_pub takes them (-p as above, any node):".to_owned());
    for device in credentials.demo.devices() {
        let said = |name: &str| device[name].as_str().unwrap_or_default().to_owned();
        let (client_id, username, password) = (said("client_id"), said("username"), said("password"));
        lines.push(format!("  {:<8} -i '{client_id}' -u '{username}' -P '{password}'", said("dialect")));
    }
    lines.push(
        "Applications: access key and code are in that file; the user name is accessKey=KEY|timestamp=MILLISECONDS."
            .to_owned(),
    );
    lines.push(format!(
        "REST: project {}, user {}, password {}; keys to sign with are in {endpoints}.",
        super::seed::PROJECT,
        super::seed::USER,
        credentials.demo.password
    ));
    if let [first, ..] = places {
        let (user, password) = (super::seed::USER, &credentials.demo.password);
        lines.push(format!(
            "Console: http://{}/console/ on any node; sign in as {user} with password {password}.",
            first.rest
        ));
    }
    lines.push(String::new());
    lines.extend(plane::lines(places, kit));
    lines.extend(commands(places, pids));
    lines.push(String::new());
    let members = format!("{} ctl cluster members --endpoints {endpoints}", program());
    if let [_] = places {
        lines.push("Ctrl-C stops the node. Its cluster, as it sees it:".to_owned());
    } else {
        lines.push("Ctrl-C stops the nodes. Who is a member, and who leads:".to_owned());
    }
    lines.push(format!("  {members}"));
    lines.push("or, as long as its context `dev` is the current one:".to_owned());
    lines.push(format!("  {} ctl get nodes", program()));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What a client of mosquitto needs to find a node.
fn at(mqtt: SocketAddr) -> String {
    let host = match mqtt.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => String::new(),
        host => format!("-h {host} "),
    };
    format!("{host}-p {}", mqtt.port())
}

fn commands(places: &[Place], pids: &[u32]) -> Vec<String> {
    let session = "-V 5 -i tour -c -x 3600 -q 1 -t 'tour/#'";
    match (places, pids) {
        ([first, second, third, ..], [pid, ..]) => vec![
            "Lose a node and not one message; paste this into another terminal:".to_owned(),
            format!("  mosquitto_sub {} {session} -E", at(first.mqtt)),
            format!("  for i in 1 2 3; do mosquitto_pub {} -q 1 -t tour/$i -m \"job $i\"; done", at(second.mqtt)),
            format!("  kill -9 {pid}"),
            format!("  mosquitto_sub {} {session} -v -C 3", at(third.mqtt)),
        ],
        ([first, others @ ..], _) => vec![
            "Try it from two other terminals:".to_owned(),
            format!("  mosquitto_sub {} -t 'demo/#' -v", at(first.mqtt)),
            format!(
                "  mosquitto_pub {} -t demo/hello -m 'hello, fulmar' -q 1",
                at(others.first().unwrap_or(first).mqtt)
            ),
        ],
        ([], _) => Vec::new(),
    }
}
