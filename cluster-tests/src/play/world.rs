//! A cluster of Kubernetes with one StatefulSet in it, of real processes on this machine: the controller that makes the
//! pods be as the manifests say, the one that tells the Service which of them are ready, and evictions within the budget.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::kubelet::{Kubelet, Order, State, at, exec};
use super::manifest::{Budget, Manifest, Volume};
use super::notes::Notes;
use super::sandbox::{Place, Sandbox, claim};
use super::secrets::Secrets;
use crate::harness::{free_address, free_port};
use crate::load::Doors;
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::wait_for;

/// Names of pods that lead somewhere: the most pods that there may be.
const PODS_MAX: usize = 7;

/// Between two looks of a controller.
const RECONCILE_EVERY: Duration = Duration::from_millis(20);

/// How long it takes until nodes balance by a change of the endpoints.
const PROPAGATION: Duration = Duration::from_millis(500);

/// The Service and port of it that devices come in by.
const DEVICES: (&str, &str) = ("fulmar", "mqtt");

/// For the first pods to be ready.
const FORMED: Duration = Duration::from_secs(120);

/// One look at a pod's figures.
const LOOK: Duration = Duration::from_secs(5);

/// For a command in a pod.
const COMMAND: Duration = Duration::from_secs(60);

/// What was applied last: manifests, and the image as a program.
#[derive(Clone)]
struct Applied {
    manifest: Arc<Manifest>,
    binary: PathBuf,
}

impl Applied {
    fn revision(&self) -> String {
        format!("{} {}", self.binary.display(), self.manifest.revision())
    }
}

struct Pod {
    uid: u64,
    revision: String,
    sandbox: Sandbox,
    state: Arc<State>,
    terminating: bool,
    /// With it goes its volume.
    volume_lost: bool,
    ready_since: Option<Instant>,
    orders: watch::Sender<Order>,
    task: AbortHandle,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pod {
    fn is_ready(&self) -> bool {
        !self.terminating && self.state.ready.load(Ordering::SeqCst)
    }
}

/// What the controllers share with whoever applies manifests.
struct Shared {
    applied: Mutex<Applied>,
    pods: Mutex<BTreeMap<usize, Pod>>,
    names: Vec<Proxy>,
    secrets: Secrets,
    doors: Arc<Doors>,
    notes: Arc<Notes>,
    dir: PathBuf,
    pace: f64,
}

/// See the module. Dropped, its processes are killed.
pub(super) struct World {
    shared: Arc<Shared>,
    controllers: [AbortHandle; 2],
    pub(super) doors: Arc<Doors>,
    pub(super) notes: Arc<Notes>,
    // Dropped last: holds volumes and output.
    _dir: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.controllers.iter().for_each(AbortHandle::abort);
        lock(&self.shared.pods).clear();
    }
}

impl World {
    /// An empty cluster, to which these manifests are applied with this program as the image.
    pub(super) async fn open(manifest: &Manifest, binary: &Path, pace: f64, aloud: bool) -> Result<World> {
        let dir = tempfile::tempdir()?;
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut names = Vec::new();
        for _ in 0..PODS_MAX {
            names.push(Proxy::start(nobody).await?);
        }
        let mut hosts = vec![manifest.service.clone(), "localhost".to_owned()];
        hosts.extend((0..PODS_MAX).map(|ordinal| format!("{}-{ordinal}.{}", manifest.name, manifest.service)));
        let (doors, notes) = (Arc::new(Doors::balanced(nobody)), Arc::new(Notes::new(aloud)));
        let shared = Arc::new(Shared {
            applied: Mutex::new(Applied { manifest: Arc::new(manifest.clone()), binary: binary.to_owned() }),
            pods: Mutex::default(),
            names,
            secrets: Secrets::new(hosts)?,
            doors: doors.clone(),
            notes: notes.clone(),
            dir: dir.path().to_owned(),
            pace,
        });
        let controllers = [
            tokio::spawn(control(shared.clone())).abort_handle(),
            tokio::spawn(endpoints(shared.clone())).abort_handle(),
        ];
        Ok(World { shared, controllers, doors, notes, _dir: dir })
    }

    pub(super) fn manifest(&self) -> Arc<Manifest> {
        lock(&self.shared.applied).manifest.clone()
    }

    /// `kubectl apply`.
    pub(super) fn apply(&self, manifest: Manifest) {
        self.shared.notes.say(format!("applied: {} replicas", manifest.replicas));
        lock(&self.shared.applied).manifest = Arc::new(manifest);
    }

    /// `kubectl apply` with another image, too.
    pub(super) fn apply_with_image(&self, manifest: Manifest, binary: &Path) {
        self.shared.notes.say(format!("the image is {}", binary.display()));
        *lock(&self.shared.applied) = Applied { manifest: Arc::new(manifest), binary: binary.to_owned() };
    }

    /// `kubectl scale`.
    pub(super) fn scale(&self, replicas: usize) {
        let mut manifest = self.manifest().as_ref().clone();
        manifest.replicas = replicas;
        self.apply(manifest);
    }

    /// The machine of a pod is gone, with it.
    pub(super) fn lose(&self, ordinal: usize) {
        self.order(ordinal, Order::Vanish);
    }

    /// The same, and its volume.
    pub(super) fn lose_with_volume(&self, ordinal: usize) {
        if let Some(pod) = lock(&self.shared.pods).get_mut(&ordinal) {
            pod.volume_lost = true;
        }
        self.lose(ordinal);
    }

    /// `kubectl delete pvc`, of a pod that is gone.
    pub(super) fn delete_claims(&self, ordinal: usize) -> Result<()> {
        delete_claims(&self.shared, &self.manifest(), ordinal)
    }

    fn order(&self, ordinal: usize, order: Order) {
        if let Some(pod) = lock(&self.shared.pods).get_mut(&ordinal) {
            self.shared.notes.say(format!("{}: {order:?}", pod.sandbox.pod));
            pod.terminating = true;
            pod.orders.send_replace(order);
        }
    }

    /// Asks for an eviction, as the drain of a machine does: false if the budget does not allow it now.
    pub(super) fn evict(&self, ordinal: usize) -> bool {
        let (manifest, mut pods) = (self.manifest(), lock(&self.shared.pods));
        let ready = pods.values().filter(|pod| pod.is_ready()).count();
        let least = match manifest.budget {
            None => 0,
            Some(Budget::MinAvailable(least)) => least,
            Some(Budget::MaxUnavailable(most)) => manifest.replicas.saturating_sub(most),
        };
        let Some(pod) = pods.get_mut(&ordinal).filter(|pod| pod.is_ready() && ready > least) else { return false };
        self.shared.notes.say(format!("{} is evicted", pod.sandbox.pod));
        pod.terminating = true;
        pod.orders.send_replace(Order::Terminate);
        true
    }

    /// What tells the runs of pods apart, by ordinal.
    pub(super) fn uids(&self) -> Vec<u64> {
        lock(&self.shared.pods).values().map(|pod| pod.uid).collect()
    }

    /// Times that containers of the pods that are there were started again.
    pub(super) fn restarts(&self) -> u32 {
        lock(&self.shared.pods).values().map(|pod| pod.state.restarts.load(Ordering::SeqCst)).sum()
    }

    pub(super) fn ready(&self) -> usize {
        lock(&self.shared.pods).values().filter(|pod| pod.is_ready()).count()
    }

    /// Whether all pods are there and ready, are of what was applied, and the Service knows.
    pub(super) fn is_rolled_out(&self) -> bool {
        let (applied, pods) = (lock(&self.shared.applied).clone(), lock(&self.shared.pods));
        let revision = applied.revision();
        pods.len() == applied.manifest.replicas
            && pods.values().all(|pod| pod.is_ready() && pod.revision == revision)
            && applied
                .manifest
                .target_port(DEVICES.0, DEVICES.1)
                .is_some_and(|port| self.doors.endpoints() == ready(&pods, port))
    }

    /// `kubectl rollout status`: waits for that.
    ///
    /// # Errors
    /// It does not come; what pods printed is told.
    pub(super) async fn rolled_out(&self, deadline: Duration) -> Result<()> {
        let done = wait_for("the rollout", deadline, async || self.is_rolled_out().then_some(())).await;
        done.with_context(|| self.tails())
    }

    /// Waits until all pods of the first manifests are ready.
    ///
    /// # Errors
    /// They are not, or a container had to be started again for it.
    pub(super) async fn formed(&self) -> Result<()> {
        let formed =
            wait_for("the first pods", FORMED, async || (self.is_rolled_out() || self.restarts() > 0).then_some(()));
        formed.await.with_context(|| self.tails())?;
        ensure!(self.restarts() == 0, "containers were started again\n{}", self.tails());
        Ok(())
    }

    fn pod(&self, ordinal: usize) -> Result<Sandbox> {
        lock(&self.shared.pods).get(&ordinal).map(|pod| pod.sandbox.clone()).context("there is no such pod")
    }

    /// `kubectl exec`: what it printed.
    ///
    /// # Errors
    /// There is no such pod, or the command fails.
    pub(super) async fn exec(&self, ordinal: usize, words: &[&str]) -> Result<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        exec(&self.pod(ordinal)?, &words, COMMAND).await
    }

    /// The figures of a pod.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) async fn metrics(&self, ordinal: usize) -> Result<Metrics> {
        let port = self.manifest().template()?.ports.get("probes").copied().context("no port is named probes")?;
        Metrics::of(at(self.pod(ordinal)?.address, port), LOOK).await
    }

    /// Of all pods.
    ///
    /// # Errors
    /// One does not answer.
    pub(super) async fn all_metrics(&self) -> Result<Vec<Metrics>> {
        let ordinals: Vec<usize> = lock(&self.shared.pods).keys().copied().collect();
        let mut all = Vec::new();
        for ordinal in ordinals {
            all.push(self.metrics(ordinal).await.with_context(|| format!("of pod {ordinal}"))?);
        }
        Ok(all)
    }

    /// The last that each pod printed.
    pub(super) fn tails(&self) -> String {
        let mut text = String::new();
        for pod in lock(&self.shared.pods).values() {
            let dir = pod_dir(&self.shared.dir, &pod.sandbox.pod, pod.uid);
            let said = std::fs::read_to_string(dir.join(format!("{}.stderr", pod.sandbox.pod))).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n  ");
            text.push_str(&format!("{} (ready: {}) printed last\n  {tail}\n", pod.sandbox.pod, pod.is_ready()));
        }
        text
    }
}

fn delete_claims(shared: &Shared, manifest: &Manifest, ordinal: usize) -> Result<()> {
    let pod = format!("{}-{ordinal}", manifest.name);
    for mount in manifest.template()?.mounts {
        if let Volume::Claim(name) = mount.volume {
            let directory = claim(&shared.dir, &name, &pod);
            std::fs::remove_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        }
    }
    shared.notes.say(format!("the volume of {pod} is deleted"));
    Ok(())
}

fn pod_dir(dir: &Path, pod: &str, uid: u64) -> PathBuf {
    dir.join(format!("{pod}.{uid}"))
}

/// The controller of the StatefulSet, until it is aborted.
async fn control(shared: Arc<Shared>) {
    let mut uid = 0;
    loop {
        if let Err(error) = reconcile(&shared, &mut uid) {
            shared.notes.wrong(format!("the controller: {error:#}"));
        }
        sleep(RECONCILE_EVERY).await;
    }
}

/// One round, as Kubernetes does it: pods that are missing are made, at once if they are parallel; those that are too many
/// go; then of those that are not as applied the one of the highest ordinal goes, as long as all above it are available. A
/// pod that is not as applied goes whether or not it is well: so a bad rollout is taken back.
fn reconcile(shared: &Arc<Shared>, uid: &mut u64) -> Result<()> {
    let (applied, mut pods) = (lock(&shared.applied).clone(), lock(&shared.pods));
    let (manifest, revision) = (&applied.manifest, applied.revision());
    let gone = |pod: &Pod| pod.state.gone.load(Ordering::SeqCst);
    for (ordinal, _) in pods.iter().filter(|(_, pod)| pod.volume_lost && gone(pod)) {
        delete_claims(shared, manifest, *ordinal)?;
    }
    pods.retain(|_, pod| !gone(pod));
    for pod in pods.values_mut() {
        pod.ready_since = if pod.is_ready() { pod.ready_since.or_else(|| Some(Instant::now())) } else { None };
    }
    let min_ready = manifest.min_ready.div_f64(shared.pace);
    let available = |pod: &Pod| pod.ready_since.is_some_and(|since| since.elapsed() >= min_ready);
    for ordinal in 0..manifest.replicas {
        match pods.get(&ordinal) {
            None => {
                *uid += 1;
                pods.insert(ordinal, create(shared, &applied, ordinal, *uid)?);
                if !manifest.parallel {
                    return Ok(());
                }
            }
            Some(pod) if !manifest.parallel && !available(pod) => return Ok(()),
            Some(_) => {}
        }
    }
    let terminate = |pod: &mut Pod| {
        pod.terminating = true;
        pod.orders.send_replace(Order::Terminate);
        shared.notes.say(format!("{} is to terminate", pod.sandbox.pod));
    };
    let (mut condemned, mut terminated) = (false, false);
    for (_, pod) in pods.range_mut(manifest.replicas..).rev() {
        condemned = true;
        if !pod.terminating && (manifest.parallel || !terminated) {
            terminate(pod);
        }
        terminated = true;
    }
    if condemned && !manifest.parallel {
        return Ok(());
    }
    for (_, pod) in pods.range_mut(..manifest.replicas).rev() {
        if pod.revision != revision && !pod.terminating {
            terminate(pod);
            return Ok(());
        }
        if !available(pod) {
            return Ok(());
        }
    }
    Ok(())
}

fn create(shared: &Arc<Shared>, applied: &Applied, ordinal: usize, uid: u64) -> Result<Pod> {
    let manifest = &applied.manifest;
    let template = manifest.template()?;
    let ports: Vec<u16> = template.ports.values().copied().collect();
    let address = free_address(&ports)?;
    let name = shared.names.get(ordinal).context("more pods than can be played")?;
    name.aim(at(address, template.ports.get("peer").copied().context("no port is named peer")?));
    let names: Vec<SocketAddr> = shared.names.iter().map(Proxy::address).collect();
    let dir = pod_dir(&shared.dir, &format!("{}-{ordinal}", manifest.name), uid);
    std::fs::create_dir_all(&dir)?;
    let place = Place {
        manifest,
        ordinal,
        address,
        names: &names,
        secret: &shared.secrets.files(address)?,
        dir: &dir,
        claims: &shared.dir,
        binary: &applied.binary,
    };
    let sandbox = Sandbox::build(&template, &place)?;
    let (state, (orders, obeyed)) = (Arc::new(State::default()), watch::channel(Order::Run));
    let (notes, pace) = (shared.notes.clone(), shared.pace);
    let kubelet = Kubelet { template, sandbox: sandbox.clone(), dir, state: state.clone(), notes, pace };
    let task = tokio::spawn(kubelet.run(obeyed)).abort_handle();
    let revision = applied.revision();
    Ok(Pod { uid, revision, sandbox, state, terminating: false, volume_lost: false, ready_since: None, orders, task })
}

/// The endpoints of a Service at this port of its pods.
fn ready(pods: &BTreeMap<usize, Pod>, port: u16) -> Vec<(usize, SocketAddr)> {
    let ready = pods.iter().filter(|(_, pod)| pod.is_ready());
    ready.map(|(ordinal, pod)| (*ordinal, at(pod.sandbox.address, port))).collect()
}

/// The controller of the Service's endpoints, and of the balancing on every machine, until it is aborted: connections go to
/// pods that are ready and not about to leave, a moment after they are so.
async fn endpoints(shared: Arc<Shared>) {
    let (mut told, mut seen, mut since) = (Vec::new(), Vec::new(), Instant::now());
    loop {
        let manifest = lock(&shared.applied).manifest.clone();
        let Some(port) = manifest.target_port(DEVICES.0, DEVICES.1) else {
            return shared.notes.wrong(format!("no port {} of a Service {}", DEVICES.1, DEVICES.0));
        };
        let now = ready(&lock(&shared.pods), port);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if seen != told && since.elapsed() >= PROPAGATION.div_f64(shared.pace) {
            told = seen.clone();
            shared.doors.set_endpoints(told.clone());
        }
        sleep(RECONCILE_EVERY).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
