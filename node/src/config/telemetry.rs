//! `[telemetry]`: where traces of requests go.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::units::{Secret, TimeSpan};

/// What the node tells of itself beside logs and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Where traces of requests go. Default: nowhere.
    pub otlp: Otlp,
}

/// Traces of requests, for a collector of OpenTelemetry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// `http://` or `https://`, host and port of the collector's gRPC. Default none: no traces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// PEM file of the authorities that sign the collector's certificate; needed with `https://`. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Headers of each request, in small letters, as in `authorization = "Bearer ..."`. Default none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Of so many in a hundred requests that no caller has decided about a trace is made. Default 100, 0 to 100.
    pub sampling_percent: u32,
    /// Time for the collector to take a batch; then it is dropped, and counted. Default `5s`, 100ms to 1m.
    pub timeout: TimeSpan,
    /// `service.name` of the node. Default `fulmar`.
    pub service_name: String,
    /// Further attributes of the resource, as in `"deployment.environment" = "test"`. Default none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resource: BTreeMap<String, String>,
}

impl Default for Otlp {
    fn default() -> Otlp {
        Otlp {
            endpoint: None,
            ca: None,
            headers: BTreeMap::new(),
            sampling_percent: 100,
            timeout: TimeSpan::s(5),
            service_name: "fulmar".into(),
            resource: BTreeMap::new(),
        }
    }
}

impl Telemetry {
    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        let otlp = &self.otlp;
        let encrypted = match otlp.endpoint.as_deref().map(|endpoint| endpoint.split_once("://")) {
            None | Some(Some(("http", _))) => false,
            Some(Some(("https", _))) => true,
            Some(_) => {
                problems
                    .add("telemetry.otlp.endpoint", "is no address; allowed: http://HOST:PORT or https://HOST:PORT");
                false
            }
        };
        if encrypted && otlp.ca.is_none() {
            problems.add("telemetry.otlp.endpoint", "is https, which needs telemetry.otlp.ca");
        }
        if otlp.sampling_percent > 100 {
            problems.add("telemetry.otlp.sampling_percent", format!("is {}; allowed: 0 to 100", otlp.sampling_percent));
        }
        problems.range("telemetry.otlp.timeout", otlp.timeout, TimeSpan::ms(100)..=TimeSpan::s(60));
        for (name, value) in &otlp.headers {
            let named = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
            if !named || name.ends_with("-bin") || !value.expose().bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
                let allowed = "small letters, digits and -_., and a value of ASCII";
                problems.add("telemetry.otlp.headers", format!("has {name:?}, which is no header; allowed: {allowed}"));
            }
        }
    }
}
