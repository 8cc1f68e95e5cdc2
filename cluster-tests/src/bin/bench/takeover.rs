//! `bench takeover`: client ids with sessions that stay are wanted at one node after the other; how long it takes from the
//! start of connect() to the CONNACK while the older connection is open.

use anyhow::Result;
use cluster_tests::histogram::Histogram;
use cluster_tests::sys::monotonic_ns;
use serde_json::json;

use crate::link::Link;
use crate::options::TakeoverOptions;
use crate::own::OwnCluster;
use crate::report::Latency;

/// Nodes that take turns.
const NODES: usize = 3;

pub(crate) async fn run(options: &TakeoverOptions) -> Result<()> {
    let own = OwnCluster::start(&options.node, NODES).await?;
    let (addresses, mut took, mut first) = (own.cluster.addresses(), Histogram::default(), Histogram::default());
    let mut links: Vec<Option<Link>> = (0..options.clients).map(|_| None).collect();
    for turn in 0..options.clients + options.count {
        let (client, round) = ((turn % options.clients) as usize, (turn / options.clients) as usize);
        let address = addresses[(client + round) % NODES];
        let begun = monotonic_ns();
        let (link, _) = Link::open_persistent(address, own.version, turn, &format!("t{client}")).await?;
        let histogram = if links[client].is_some() { &mut took } else { &mut first };
        histogram.record(monotonic_ns() - begun);
        // The older one, which the node that had it has closed or is closing.
        if let Some(mut older) = links[client].replace(link) {
            older.closed().await.or_else(reset)?;
        }
    }
    let line = json!({
        "scenario": "takeover",
        "broker": format!("fulmar x {NODES}"),
        "parameters": { "count": options.count, "clients": options.clients },
        "takeover_us": Latency::of(&took),
        "first_connect_us": Latency::of(&first),
    });
    println!("{line}");
    Ok(())
}

/// A close that comes as a reset is one too.
fn reset(error: anyhow::Error) -> Result<()> {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    if kind == Some(std::io::ErrorKind::ConnectionReset) { Ok(()) } else { Err(error) }
}
