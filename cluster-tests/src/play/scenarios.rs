//! What is done to a played cluster.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::prelude::*;

use super::Settings;
use super::row::Row;
use super::stage::{ROLLOUT, Stage, ctl, members, one_cluster};
use super::world::World;
use crate::wait_for;

/// Messages that are acknowledged between two steps.
const BETWEEN: u64 = 300;

/// What no node takes for a configuration.
const NONSENSE: &str = "\n[nonsense]\nkey = 1\n";

/// Times that a container with a bad configuration is seen to end.
const ENDS: u32 = 2;

/// For pods to be gone, and for a container to end as often.
const STEP: Duration = Duration::from_secs(180);

/// Runs an act on the manifests as they are.
macro_rules! staged {
    ($settings:expr, $act:path) => {{
        let mut stage = Stage::open($settings, &$settings.manifest, &$settings.binary).await?;
        let acted = $act(&mut stage).await;
        Ok(stage.finish(acted).await)
    }};
}

/// All pods at once, on no data, again and again: exactly one cluster, and everybody ready.
pub(super) async fn first_start(settings: &Settings) -> Result<Row> {
    let begun = Instant::now();
    let mut row = Row { seed: settings.seed, ..Row::default() };
    let mut took = Vec::new();
    for time in 0..settings.times {
        let (world, started) =
            (World::open(&settings.manifest, &settings.binary, settings.pace, settings.aloud).await?, Instant::now());
        let formed = async {
            world.formed().await?;
            took.push(started.elapsed());
            one_cluster(&world).await?;
            Ok::<(), anyhow::Error>(())
        };
        if let Err(error) = formed.await {
            row.problems.push(format!("start {time}: {error:#}"));
        }
        row.problems.extend(world.notes.problems());
    }
    took.sort_unstable();
    let seconds = |at: usize| took.get(at).map_or(f64::NAN, Duration::as_secs_f64);
    row.notes.push(format!(
        "{} first starts, all ready after {:.1} s (median), {:.1} s (longest)",
        settings.times,
        seconds(took.len() / 2),
        seconds(took.len().saturating_sub(1))
    ));
    row.took = begun.elapsed();
    Ok(row)
}

pub(super) async fn rolling_restart(settings: &Settings) -> Result<Row> {
    async fn act(stage: &mut Stage<'_>) -> Result<()> {
        let (before, begun) = (stage.world.uids(), Instant::now());
        let manifest = stage.world.manifest().restarted(stage.settings.seed);
        stage.world.apply(manifest);
        stage.world.rolled_out(ROLLOUT).await?;
        let after = stage.world.uids();
        ensure!(after.iter().all(|uid| !before.contains(uid)), "not all pods are new: {before:?} {after:?}");
        stage.note(format!("the rollout took {:.0} s", begun.elapsed().as_secs_f64()));
        stage.progress(BETWEEN).await
    }
    staged!(settings, act)
}

/// `kubectl drain` of every machine at the same time: each asks again and again for its pod's eviction.
pub(super) async fn evictions(settings: &Settings) -> Result<Row> {
    async fn act(stage: &mut Stage<'_>) -> Result<()> {
        let (world, replicas) = (&stage.world, stage.settings.manifest.replicas);
        let mut waiting: Vec<usize> = (0..replicas).collect();
        waiting.shuffle(&mut stage.random);
        let (mut refused, mut fewest) = (0, replicas);
        wait_for("all evictions", ROLLOUT, async || {
            waiting.retain(|ordinal| !world.evict(*ordinal));
            refused += waiting.len();
            fewest = fewest.min(world.ready());
            (waiting.is_empty() && world.is_rolled_out()).then_some(())
        })
        .await?;
        ensure!(fewest + 1 >= replicas, "only {fewest} pods were ready at a time");
        stage.note(format!("{refused} evictions were refused by the budget"));
        stage.progress(BETWEEN).await
    }
    staged!(settings, act)
}

/// A cluster of one grows, and shrinks again as k8s/README.md says.
pub(super) async fn scale(settings: &Settings) -> Result<Row> {
    async fn act(stage: &mut Stage<'_>) -> Result<()> {
        for replicas in [3, 5] {
            stage.world.scale(replicas);
            stage.world.rolled_out(ROLLOUT).await?;
            stage.all_members().await?;
            // The new pods have nobody yet. Each node tells as many; together they stay below what may come.
            let rate = (stage.settings.manifest.disconnect_rate()? / replicas as u64).to_string();
            ctl(&stage.world, 0, &["rebalance", "--rate", &rate]).await?;
            stage.progress(BETWEEN).await?;
        }
        for ordinal in [4, 3] {
            let world = &stage.world;
            let all = members(world, 0).await?;
            let name = format!("{}-{ordinal}.", world.manifest().name);
            let mut nodes = all["members"].as_array().into_iter().flatten();
            let gone = nodes.find(|node| node["address"].as_str().is_some_and(|address| address.starts_with(&name)));
            let node = gone.and_then(|node| node["node"].as_str()).context("the highest pod is no member")?;
            let drain = world.manifest().template()?.pre_stop.context("the manifests have no preStop")?;
            world.exec(ordinal, &drain.iter().map(String::as_str).collect::<Vec<_>>()).await?;
            ctl(world, 0, &["cluster", "remove", node]).await?;
            stage.world.scale(ordinal);
            stage.world.rolled_out(ROLLOUT).await?;
            stage.world.delete_claims(ordinal)?;
            stage.all_members().await?;
            stage.progress(BETWEEN).await?;
        }
        Ok(())
    }
    let mut single = settings.manifest.with_env("FULMAR__CLUSTER__EXPECTED", "1");
    single.replicas = 1;
    let mut stage = Stage::open(settings, &single, &settings.binary).await?;
    let acted = act(&mut stage).await;
    Ok(stage.finish(acted).await)
}

/// The machine of a pod is gone; then that of another, and its volume.
pub(super) async fn pod_loss(settings: &Settings) -> Result<Row> {
    async fn act(stage: &mut Stage<'_>) -> Result<()> {
        let mut ordinals: Vec<usize> = (0..stage.settings.manifest.replicas).collect();
        ordinals.shuffle(&mut stage.random);
        for (ordinal, with_volume) in ordinals.iter().cycle().zip([false, true]) {
            let before = stage.world.uids();
            stage.storm_allowed(*ordinal);
            match with_volume {
                true => stage.world.lose_with_volume(*ordinal),
                false => stage.world.lose(*ordinal),
            }
            let begun = Instant::now();
            let again = async || (stage.world.uids() != before && stage.world.is_rolled_out()).then_some(());
            wait_for("the pod to be back", ROLLOUT, again).await.with_context(|| stage.world.tails())?;
            let (volume, took) = (if with_volume { "without" } else { "with" }, begun.elapsed().as_secs_f64());
            stage.note(format!("back {volume} its volume in {took:.1} s"));
            // A node that lost its data comes as a new one, and its old name goes.
            stage.all_members().await?;
            stage.progress(BETWEEN).await?;
        }
        Ok(())
    }
    staged!(settings, act)
}

/// Rolled out, it stops at the first pod; taken back, all is well, without a hand on any pod.
pub(super) async fn bad_config(settings: &Settings) -> Result<Row> {
    async fn act(stage: &mut Stage<'_>) -> Result<()> {
        stage.allow_restarts();
        let (good, before) = (stage.world.manifest().as_ref().clone(), stage.world.uids());
        stage.world.apply(good.with_config(|text| format!("{text}{NONSENSE}")));
        let ended = wait_for("a container that ends again and again", STEP, async || {
            (stage.world.restarts() >= ENDS).then_some(())
        });
        ended.await.with_context(|| stage.world.tails())?;
        stage.progress(BETWEEN).await?;
        let (meanwhile, highest) = (stage.world.uids(), good.replicas - 1);
        ensure!(meanwhile.iter().zip(&before).take(highest).all(|(now, then)| now == then), "others were restarted");
        ensure!(stage.world.ready() == highest, "{} pods are ready", stage.world.ready());
        stage.world.apply(good);
        stage.world.rolled_out(ROLLOUT).await?;
        let after = stage.world.uids();
        ensure!(after.iter().zip(&before).take(highest).all(|(now, then)| now == then), "others were restarted");
        stage.note(format!("{ENDS} ends of the first pod's container, the other pods untouched"));
        stage.progress(BETWEEN).await
    }
    staged!(settings, act)
}

/// From the older release to this one, back, and forward again.
pub(super) async fn image(settings: &Settings) -> Result<Row> {
    let Some((old, old_manifest)) = &settings.old else { bail!("name the older release with --old-bin") };
    let mut stage = Stage::open(settings, old_manifest, old).await?;
    let acted = async {
        for forward in [true, false, true] {
            match forward {
                true => stage.world.apply_with_image(settings.manifest.clone(), &settings.binary),
                false => stage.world.apply_with_image(old_manifest.clone(), old),
            }
            stage.world.rolled_out(ROLLOUT).await?;
            stage.progress(BETWEEN).await?;
        }
        stage.note("rolled forward, back and forward".into());
        Ok(())
    };
    let acted = acted.await;
    Ok(stage.finish(acted).await)
}
