//! The manifests of `k8s/`, played: a StatefulSet as it is rendered, with real processes in place of containers, on
//! addresses of this machine alone. What is read of it decides what happens: command, environment, ports, probes with their
//! periods and thresholds, preStop, grace period, ConfigMap, mounts, budget, order of updates. What is not Kubernetes' own:
//! Secrets are made here, the headless Service's names lead through a forwarder for each pod, which follows the pod to its
//! next address, and a Service is a choice among ready pods for each new connection, as kube-proxy makes it.

mod fleet;
mod kubelet;
mod manifest;
mod notes;
mod row;
mod sandbox;
mod scenarios;
mod secrets;
mod stage;
mod world;

use std::path::{Path, PathBuf};
use std::pin::Pin;

use anyhow::{Context, Result};

pub use fleet::Felt;
pub use manifest::Manifest;
pub use row::{Row, table};

/// How scenarios are played.
#[derive(Debug, Clone)]
pub struct Settings {
    pub devices: usize,
    /// Times that a cluster is started where only that is asked.
    pub times: usize,
    pub seed: u64,
    pub manifest: Manifest,
    /// The program that is the image.
    pub binary: PathBuf,
    /// An older release: its program, and its manifests if they are others.
    pub old: Option<(PathBuf, Manifest)>,
    /// Probe periods, back-offs and the delay of endpoints are divided by this; the nodes' own times are not.
    pub pace: f64,
    /// Told on standard error as it happens.
    pub aloud: bool,
}

type Act = for<'a> fn(&'a Settings) -> Pin<Box<dyn Future<Output = Result<Row>> + 'a>>;

/// One promise of the manifests.
pub struct Scenario {
    pub name: &'static str,
    pub promise: &'static str,
    act: Act,
}

impl Scenario {
    /// Plays it. What was violated is in the row.
    ///
    /// # Errors
    /// It could not begin.
    pub async fn run(&self, settings: &Settings) -> Result<Row> {
        let mut row = (self.act)(settings).await?;
        row.name = self.name.to_owned();
        Ok(row)
    }
}

/// The manifests of this repository as they are rendered: `three`, `single`, `five`.
///
/// # Errors
/// They cannot be read.
pub fn golden(name: &str) -> Result<Manifest> {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../k8s/golden/{name}.yaml")))
}

/// Rendered manifests in a file.
///
/// # Errors
/// They cannot be read, or have what cannot be played.
pub fn read(path: &Path) -> Result<Manifest> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Manifest::read(&text).with_context(|| path.display().to_string())
}

macro_rules! scenarios {
    ($($name:literal $promise:literal $act:path;)*) => {
        /// All of them.
        pub const ALL: &[Scenario] = &[$(Scenario {
            name: $name,
            promise: $promise,
            act: |settings| Box::pin($act(settings)),
        },)*];
    };
}

scenarios! {
    "first-start" "pods that are started together form one cluster, each time" scenarios::first_start;
    "rolling-restart" "a rolling restart loses nothing, and its clients come back at the drain's rate" scenarios::rolling_restart;
    "evictions" "machines that are drained at the same time take one pod after the other" scenarios::evictions;
    "scale" "one pod becomes three and five, and three again" scenarios::scale;
    "pod-loss" "a pod that is lost comes back by itself, with its volume and without" scenarios::pod_loss;
    "bad-config" "a bad configuration stops at the first pod, loses nothing, and is taken back" scenarios::bad_config;
    "image" "an older release runs beside this one, rolled forward and back" scenarios::image;
}

/// The one of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}
