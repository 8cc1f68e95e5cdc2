//! `[shutdown]`: how a node lets its clients go, and how long it takes to leave.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::units::TimeSpan;

/// Bytes of a server reference.
const REFERENCE_BYTES_MAX: usize = 1_024;

/// The end of a node after SIGTERM, and its drain, which SIGUSR1 (`fulmar drain`) asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Time after SIGTERM for everything below, until queues are flushed; then what is left is cut. A second SIGTERM cuts
    /// at once. Clients are told faster than `disconnect_rate` where that would take longer. Default `10s`, 0s to 1h.
    pub grace: TimeSpan,
    /// How long a node that drains goes on as before, but for `/readyz`: until balancers send it no more connections.
    /// Less than `grace`. Default `0s`.
    pub balancer_wait: TimeSpan,
    /// Clients a second that are told to go; so many come to the other nodes. `0`: all at once. Default 1000, at most
    /// 1000000.
    pub disconnect_rate: u32,
    /// Where MQTT 5 clients are told to go instead (Server Reference, with reason 0x9C), for example
    /// `mqtt.example:8883`. Default none: they are told that the server is shutting down (0x8B).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_reference: Option<String>,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown {
            grace: TimeSpan::s(10),
            balancer_wait: TimeSpan::ZERO,
            disconnect_rate: 1_000,
            server_reference: None,
        }
    }
}

impl Shutdown {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        problems.range("shutdown.grace", self.grace, TimeSpan::ZERO..=TimeSpan::s(3_600));
        problems.range("shutdown.disconnect_rate", self.disconnect_rate, 0..=1_000_000);
        if !self.balancer_wait.is_zero() && self.balancer_wait >= self.grace {
            let (wait, grace) = (self.balancer_wait, self.grace);
            problems.add("shutdown.balancer_wait", format!("is {wait}; allowed: less than shutdown.grace, {grace}"));
        }
        let well = |text: &String| (1..=REFERENCE_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
        if self.server_reference.as_ref().is_some_and(|text| !well(text)) {
            let allowed = format!("1 to {REFERENCE_BYTES_MAX} bytes without control characters");
            problems.add("shutdown.server_reference", format!("is no such text; allowed: {allowed}"));
        }
    }
}
