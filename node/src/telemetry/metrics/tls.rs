//! Certificates that are shown, and files of TLS that were read again.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabel {
    r#use: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// See the module.
#[derive(Debug, Default)]
pub struct TlsFiles {
    ends: Family<UseLabel, Gauge>,
    reloads: Family<ResultLabel, Counter<u64, AtomicU64>>,
}

impl TlsFiles {
    pub(super) fn register(registry: &mut Registry) -> TlsFiles {
        let files = TlsFiles::default();
        let help = "Unix time at which the certificate ends that is shown, by where it is shown";
        registry.register("tls_cert_not_after_seconds", help, files.ends.clone());
        let help = "Files of TLS that have changed: read again and in use, or not fit for it";
        registry.register("tls_reloads", help, files.reloads.clone());
        // Shown from the start: an alert on an increase sees the first one only if it comes after a 0.
        for result in ["ok", "failed"] {
            let _ = files.reloads.get_or_create(&ResultLabel { result });
        }
        files
    }

    /// Notes when the certificate ends that is shown at `place`: `listener:` and its name, `admin` or `peer`.
    pub fn ends(&self, place: &str, at_s: i64) {
        self.ends.get_or_create(&UseLabel { r#use: place.to_owned() }).set(at_s);
    }

    /// Counts changed files: `ok` or `failed`.
    pub fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&ResultLabel { result }).inc();
    }
}
