//! The JSON line of a run. Absent fields have no meaning in the scenario, or were not measured (no pid).

use cluster_tests::histogram::Histogram;
use serde::Serialize;
use serde_json::Value;

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) broker: String,
    pub(crate) parameters: Value,
    /// Of the whole run, warm-up included, as are the following up to `reordered`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acknowledged: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<u64>,
    /// Over all receivers, duplicates aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delivered: Option<u64>,
    /// Acknowledged (QoS 0: sent) but not delivered by the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duplicated: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reordered: Option<u64>,
    /// Deliveries a second of the measured section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) msgs_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connects_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<Latency>,
    /// From when a message was due to its PUBACK or PUBCOMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ack_latency_us: Option<Latency>,
    /// User and system time of the broker in the measured section, and until its last message was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_cpu_us_per_delivered: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_cpu_us_per_connection: Option<f64>,
    /// Share of one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_cpu_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_pss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_open_fds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rss_per_connection_bytes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) driver_cpu_us_per_delivered: Option<f64>,
    /// What a registry of many devices weighs and costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registry: Option<Value>,
    pub(crate) driver_cpu_share: f64,
    /// Length of the measured section.
    pub(crate) measured_s: f64,
    pub(crate) seed: u64,
    /// What went wrong, a line per task: a connection that ended, a message that nobody asked for.
    pub(crate) errors: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    pub(crate) samples: u64,
}

impl Latency {
    /// From nanoseconds; `None` without samples.
    pub(crate) fn of(histogram: &Histogram) -> Option<Latency> {
        let us = |share| round(histogram.quantile(share) as f64 / 1e3);
        (histogram.count() > 0).then(|| Latency {
            p50: us(0.5),
            p90: us(0.9),
            p99: us(0.99),
            p999: us(0.999),
            max: us(1.0),
            samples: histogram.count(),
        })
    }
}

/// Three decimals are more than any figure here is exact to.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
