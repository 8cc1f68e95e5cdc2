//! mosquitto, the broker to compare with, set up for the same conditions as Fulmar.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Broker, Process, START_DEADLINE, free_port, wait_for_connack};

/// Everyone may do anything, small writes go out at once, and queues are so deep that a run loses nothing: mosquitto
/// acks before it delivers and reads one packet per connection and round, so that among 200 publishers a subscriber's
/// acks wait and what it has long received still fills its queue. At 100,000 it then drops what it has acked.
const CONFIG: &str = "allow_anonymous true
max_queued_messages 1000000
max_inflight_messages 100
persistence false
set_tcp_nodelay true
log_type none
";

/// A running mosquitto.
pub struct Mosquitto {
    process: Process,
    mqtt: SocketAddr,
    // Dropped last: holds the configuration and the output.
    _dir: TempDir,
}

impl Mosquitto {
    /// Starts it on a free port and waits until it serves.
    ///
    /// # Errors
    /// It is not installed, or does not serve; its output is shown.
    pub async fn start() -> Result<Mosquitto> {
        let dir = tempfile::tempdir()?;
        let mqtt = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let config = dir.path().join("mosquitto.conf");
        std::fs::write(&config, format!("listener {} {}\n{CONFIG}", mqtt.port(), mqtt.ip()))?;
        let mut command = Command::new(binary());
        command.arg("-c").arg(&config);
        let process = Process::spawn("mosquitto", command, dir.path())?;
        let served = wait_for_connack(mqtt, START_DEADLINE).await;
        served.with_context(|| process.tail())?;
        Ok(Mosquitto { process, mqtt, _dir: dir })
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Broker for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn mqtt(&self) -> SocketAddr {
        self.mqtt
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Daemons live where the PATH of ordinary users does not lead.
fn binary() -> PathBuf {
    let places = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].map(Path::new);
    places.into_iter().find(|path| path.is_file()).unwrap_or(Path::new("mosquitto")).to_owned()
}
