//! Devices of three clouds on all nodes, one of which is killed: who is shown to be online.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fulmar_mqtt::{ReasonCode, Version};
use rand::prelude::*;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Stage;
use crate::devices::{Device, Vendor};
use crate::load::Doors;
use crate::raw::RawClient;
use crate::rest::Rest;
use crate::wait_for;

/// What is promised for all devices together, from the kill on.
const ONLINE_AGAIN: Duration = Duration::from_secs(30);

/// How long is looked after a kill at the least: longer than a node's lease, whose end must put nobody OFFLINE who is
/// elsewhere by then.
const LOOKED: Duration = Duration::from_secs(15);

/// How long a connection must have been up for its device to count as one that must not be shown OFFLINE: every node has
/// applied its claim by then.
const SETTLED: Duration = Duration::from_secs(1);

/// How long all devices may take to connect for the first time.
const ARRIVAL: Duration = Duration::from_secs(180);

const CONNACK: Duration = Duration::from_secs(20);

/// Longer than any scenario.
const STAY: Duration = Duration::from_secs(3600);

/// CONNECTs under way at a time.
const CONNECTING_MAX: usize = 256;

/// What clients wait before they try again, with as much again by chance.
const RETRY_MS: u64 = 200;

/// A device's connection, as the device knows it.
#[derive(Debug, Default)]
struct Link {
    /// Nanoseconds after the fleet's start when it came up; 0: it is down.
    up_since: AtomicU64,
    node: AtomicUsize,
}

/// All devices, each at a node, and at the next one if it loses that.
struct Fleet {
    start: Instant,
    links: Vec<Link>,
    /// Their places among the links, by id.
    places: BTreeMap<String, usize>,
    doors: Arc<Doors>,
    connecting: Semaphore,
    over: AtomicBool,
    refused: Mutex<Option<String>>,
}

impl Fleet {
    fn new(devices: &[Device], doors: Arc<Doors>) -> Fleet {
        Fleet {
            start: Instant::now(),
            links: devices.iter().map(|_| Link::default()).collect(),
            places: devices.iter().enumerate().map(|(place, device)| (device.id(), place)).collect(),
            doors,
            connecting: Semaphore::new(CONNECTING_MAX),
            over: AtomicBool::new(false),
            refused: Mutex::new(None),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// Keeps one device connected.
    async fn keep(self: Arc<Fleet>, place: usize, device: Device) {
        let mut attempt = place;
        while !self.over.load(Ordering::Relaxed) {
            let (node, address) = self.doors.at(attempt);
            attempt += 1;
            let turn = self.connecting.acquire().await;
            let connected = connect(address, &device).await;
            drop(turn);
            match connected {
                Ok(mut client) => {
                    let link = &self.links[place];
                    link.node.store(node, Ordering::Relaxed);
                    link.up_since.store(self.now(), Ordering::Release);
                    // Whatever comes: nobody says anything to it.
                    let _ = client.expect_close(STAY).await;
                    link.up_since.store(0, Ordering::Release);
                }
                Err(error) if error.is::<Refused>() => {
                    *self.refused.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(format!("{device:?}: {error:#}"));
                }
                Err(_) => {}
            }
            let wait = RETRY_MS + rand::rng().random_range(0..RETRY_MS);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    /// Connections that are up, at nodes other than `gone`.
    fn up(&self, gone: Option<usize>) -> usize {
        let up = |link: &&Link| {
            link.up_since.load(Ordering::Acquire) != 0 && Some(link.node.load(Ordering::Relaxed)) != gone
        };
        self.links.iter().filter(up).count()
    }

    fn up_since(&self, place: usize) -> u64 {
        self.links[place].up_since.load(Ordering::Acquire)
    }

    fn refusal(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// CONNACK said no.
#[derive(Debug)]
struct Refused(ReasonCode);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused: {:?}", self.0)
    }
}

impl std::error::Error for Refused {}

async fn connect(address: std::net::SocketAddr, device: &Device) -> Result<RawClient<TcpStream>> {
    let mut client = RawClient::tcp(address, Version::V311).await?;
    let connack = client.handshake(device.connect(), CONNACK).await?;
    // A node that has just lost its leader says that it is unavailable.
    match connack.reason {
        ReasonCode::Success => Ok(client),
        ReasonCode::ServerUnavailable => anyhow::bail!("unavailable"),
        reason => Err(anyhow::Error::new(Refused(reason))),
    }
}

/// What one look at all devices has shown.
#[derive(Debug, Default)]
struct Look {
    online: usize,
    seen: usize,
    /// Shown OFFLINE, and connected all the time.
    wrong: Vec<String>,
}

/// Reads the lists of all products at one node.
async fn look(fleet: &Fleet, rest: &Rest) -> Result<Look> {
    let mut look = Look::default();
    for vendor in Vendor::OF_DEVICES {
        let mut after = None;
        loop {
            let asked = fleet.now();
            let before: Vec<u64> = (0..fleet.links.len()).map(|place| fleet.up_since(place)).collect();
            let page = rest.page(vendor.product_id(), after.as_deref()).await?;
            for (id, status) in page.statuses {
                let place = *fleet.places.get(&id).with_context(|| format!("a strange device {id}"))?;
                look.seen += 1;
                look.online += usize::from(status == "ONLINE");
                let since = before[place];
                let settled =
                    since != 0 && since + SETTLED.as_nanos() as u64 <= asked && fleet.up_since(place) == since;
                if settled && status != "ONLINE" {
                    look.wrong.push(format!("{id} is connected and shown {status}"));
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(look)
}

pub(super) async fn of_killed_node(stage: &mut Stage) -> Result<()> {
    let count = stage.settings.clients;
    let kinds = Vendor::OF_DEVICES.into_iter().cycle();
    let devices: Vec<Device> =
        kinds.take(count).enumerate().map(|(n, vendor)| Device::new(vendor, format!("d{n}"))).collect();
    let rest = Rest::sign_in(stage.cluster.member(0).rest).await?;
    rest.add_products().await?;
    rest.add(&devices).await?;

    let fleet = Arc::new(Fleet::new(&devices, stage.doors.clone()));
    let mut tasks = JoinSet::new();
    for (place, device) in devices.into_iter().enumerate() {
        tasks.spawn(fleet.clone().keep(place, device));
    }
    wait_for("all devices to connect", ARRIVAL, async || (fleet.up(None) == count).then_some(()))
        .await
        .with_context(|| format!("{} of {count} are; {:?}", fleet.up(None), fleet.refusal()))?;
    wait_for("all devices to be ONLINE", ONLINE_AGAIN, async || {
        look(&fleet, &rest).await.ok().filter(|look| look.online == count)
    })
    .await?;

    let mut kills = Vec::new();
    while kills.is_empty() || stage.time_left() {
        let gone = stage.any();
        let rest = rest.at(stage.cluster.member((gone + 1) % stage.cluster.count()).rest);
        stage.kill(gone).await?;
        let killed = Instant::now();
        kills.push(after_kill(stage, &fleet, &rest, gone, killed).await?);
        stage.start_again(gone).await?;
        if let Some(refused) = fleet.refusal() {
            stage.wrong(refused);
        }
    }
    fleet.over.store(true, Ordering::Relaxed);
    tasks.shutdown().await;
    let took: Vec<String> = kills.iter().map(|took| format!("{:.1}", took.as_secs_f64())).collect();
    stage.note(format!("{count} devices, all ONLINE again {} s after a kill", took.join(", ")));
    Ok(())
}

/// Looks until everybody is somewhere else and ONLINE, and until the killed node's lease is long over. Gives the time to
/// the first.
async fn after_kill(stage: &mut Stage, fleet: &Fleet, rest: &Rest, gone: usize, killed: Instant) -> Result<Duration> {
    let count = fleet.links.len();
    let mut all_online = None;
    let (mut last, mut wrong) = (Look::default(), Vec::new());
    while all_online.is_none() || killed.elapsed() < LOOKED {
        let elsewhere = fleet.up(Some(gone)) == count;
        // While there is no leader the API may answer that it is unavailable.
        match look(fleet, rest).await {
            Ok(look) => last = look,
            Err(error) if killed.elapsed() > ONLINE_AGAIN => return Err(error),
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
                continue;
            }
        }
        ensure!(last.seen == count, "the lists show {} of {count} devices", last.seen);
        wrong.append(&mut last.wrong);
        if all_online.is_none() && elsewhere && last.online == count {
            all_online = Some(killed.elapsed());
        }
        if killed.elapsed() > ONLINE_AGAIN {
            break;
        }
    }
    if all_online.is_none() || last.online != count {
        stage.wrong(format!(
            "{} of {count} devices are connected, {} shown ONLINE, {:.1} s after the kill",
            fleet.up(Some(gone)),
            last.online,
            killed.elapsed().as_secs_f64()
        ));
    }
    if !wrong.is_empty() {
        stage.wrong(format!("{} times a device was shown OFFLINE wrongly: {}", wrong.len(), wrong[0]));
    }
    Ok(all_online.unwrap_or(killed.elapsed()))
}
