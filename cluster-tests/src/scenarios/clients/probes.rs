//! Clients that subscribe and unsubscribe all the time, one at each node: how long SUBACK takes where nothing is broken.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fulmar_mqtt::{Packet, QoS, ReasonCode, Version};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::histogram::Histogram;
use crate::load::Doors;
use crate::raw::{self, RawClient};

/// Between two subscriptions.
const PAUSE: Duration = Duration::from_millis(50);

/// A SUBACK that takes longer counts as having taken so long.
const LONGEST: Duration = Duration::from_secs(20);

/// Between two tries to connect.
const BETWEEN: Duration = Duration::from_millis(100);

/// Filters that take turns: more than linger.
const FILTERS: u64 = 500;

/// See the module. Dropped, they end.
pub(crate) struct SubackProbes {
    doors: Arc<Doors>,
    seen: Arc<Mutex<Histogram>>,
    tasks: JoinSet<()>,
}

impl SubackProbes {
    pub(crate) fn new(doors: Arc<Doors>) -> SubackProbes {
        SubackProbes { doors, seen: Arc::default(), tasks: JoinSet::new() }
    }

    /// One more node is looked at.
    pub(crate) fn add(&mut self, node: usize) {
        self.tasks.spawn(run(self.doors.clone(), self.seen.clone(), node));
    }

    /// All SUBACKs so far, in nanoseconds.
    pub(crate) fn seen(&self) -> Histogram {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends them, so that nothing is open when books are looked at.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

async fn run(doors: Arc<Doors>, seen: Arc<Mutex<Histogram>>, node: usize) {
    let mut number = 0;
    loop {
        let (_, address) = doors.at(node);
        if let Some(mut client) = connect(address, node).await {
            while let Some(took) = turn(&mut client, &doors, node, &mut number).await {
                if let Some(took) = took {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).record(took.as_nanos() as u64);
                }
                sleep(PAUSE).await;
            }
        }
        sleep(BETWEEN).await;
    }
}

async fn connect(address: SocketAddr, node: usize) -> Option<RawClient<TcpStream>> {
    let mut client = RawClient::tcp(address, Version::V5).await.ok()?;
    let connack = client.handshake(raw::connect(Version::V5, &format!("suback-probe-{node}")), LONGEST).await.ok()?;
    (connack.reason == ReasonCode::Success).then_some(client)
}

/// Subscribes and unsubscribes. Says how long SUBACK took, if nothing was broken meanwhile; `None` if the connection is.
async fn turn(
    client: &mut RawClient<TcpStream>,
    doors: &Doors,
    node: usize,
    number: &mut u64,
) -> Option<Option<Duration>> {
    *number += 1;
    let filter = format!("suback-probe/{node}/{}", *number % FILTERS);
    let (steady, begun) = (doors.steady(node), Instant::now());
    client.send(&raw::subscribe(1, &filter, QoS::AtLeastOnce)).await.ok()?;
    let suback = client.expect("SUBACK", LONGEST, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
    let took = (steady.is_some() && doors.steady(node) == steady).then(|| begun.elapsed());
    if let Err(error) = suback {
        // Silence for so long is an answer; the end of the connection is none.
        return if raw::is_late(&error) { Some(took) } else { None };
    }
    client.send(&raw::unsubscribe(2, &filter)).await.ok()?;
    client.expect("UNSUBACK", LONGEST, |packet| matches!(packet, Packet::UnsubAck(_)).then_some(())).await.ok()?;
    Some(took)
}
