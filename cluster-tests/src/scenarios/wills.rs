//! Wills of clients whose node is killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fulmar_mqtt::packet::{Connect, Will};
use fulmar_mqtt::{QoS, TopicName, Version};
use rand::prelude::*;

use super::Stage;
use super::clients::{Came, Voice};
use super::stage::plan;
use crate::raw;

/// How long anything may take: a node's death must be found out.
const SOON: Duration = Duration::from_secs(20);

/// Seconds of the will that is delayed, and of the one that is cancelled in time.
const DELAY_S: u32 = 2;
const LONG_S: u32 = 10;

/// After the last will was due, how long is looked for one that must not come.
const QUIET: Duration = Duration::from_secs(2);

/// Clients of each kind.
const EACH: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prompt,
    Delayed,
    Resumed,
}

const KINDS: [Kind; 3] = [Kind::Prompt, Kind::Delayed, Kind::Resumed];

pub(super) async fn of_killed_node(stage: &mut Stage) -> Result<()> {
    stage.load(&plan()).await?;
    let mut rounds = 0;
    while rounds == 0 || stage.time_left() {
        let node = stage.any();
        round(stage, node, rounds).await.with_context(|| format!("round {rounds}, node {node}"))?;
        rounds += 1;
    }
    stage.note(format!("{} wills", rounds * EACH * KINDS.len()));
    Ok(())
}

fn name(round: usize, kind: Kind, index: usize) -> String {
    format!("{kind:?}-{round}-{index}").to_lowercase()
}

fn connect(round: usize, kind: Kind, index: usize) -> Result<Connect> {
    let name = name(round, kind, index);
    let mut connect = raw::persistent(Version::V5, &name);
    connect.will = Some(Will {
        topic: TopicName::new(format!("will/{round}/{name}"))?,
        payload: name.into_bytes().into(),
        qos: QoS::ExactlyOnce,
        retain: false,
        delay_s: match kind {
            Kind::Prompt => 0,
            Kind::Delayed => DELAY_S,
            Kind::Resumed => LONG_S,
        },
        properties: Default::default(),
    });
    Ok(connect)
}

async fn round(stage: &mut Stage, node: usize, round: usize) -> Result<()> {
    let nodes = stage.cluster.count();
    let (history, doors) = (stage.history.clone(), stage.doors.clone());
    let elsewhere = (node + stage.random.random_range(1..nodes)) % nodes;
    let heir = raw::connect(Version::V5, &format!("heir-{round}"));
    let (mut heir, _) = Voice::connect(&history, doors.at(elsewhere), heir, SOON).await?;
    heir.subscribe(&format!("will/{round}/#"), QoS::ExactlyOnce, SOON).await?;
    let mut testators = Vec::new();
    for kind in KINDS {
        for index in 0..EACH {
            testators.push(Voice::connect(&history, doors.at(node), connect(round, kind, index)?, SOON).await?.0);
        }
    }
    let killed = Instant::now();
    stage.kill(node).await?;
    drop(testators);
    let mut resumed = Vec::new();
    for index in 0..EACH {
        let mut again = connect(round, Kind::Resumed, index)?;
        again.will = None;
        let (voice, connack) = Voice::connect(&history, doors.at(elsewhere), again, SOON).await?;
        ensure!(connack.session_present, "the session of {} is gone", name(round, Kind::Resumed, index));
        resumed.push(voice);
    }
    let in_time = killed.elapsed() < Duration::from_secs(LONG_S.into());
    let mut came: BTreeMap<String, (usize, Duration)> = BTreeMap::new();
    let all = Duration::from_secs(LONG_S.into()) + SOON;
    while came.len() < 2 * EACH {
        let left = all.checked_sub(killed.elapsed()).with_context(|| format!("only {came:?} came"))?;
        hear(&mut heir, left, killed, &mut came).await.with_context(|| format!("only {came:?} came"))?;
    }
    stage.start_again(node).await?;
    // Long enough for those that were to be cancelled, and for what the node that comes back might think of.
    let until = Duration::from_secs(LONG_S.into()).max(killed.elapsed()) + QUIET;
    while let Some(left) = until.checked_sub(killed.elapsed()) {
        match hear(&mut heir, left, killed, &mut came).await {
            Ok(()) => {}
            Err(error) if raw::is_late(&error) => break,
            Err(error) => return Err(error),
        }
    }
    for kind in KINDS {
        for index in 0..EACH {
            let name = name(round, kind, index);
            let (times, after) = came.get(&name).copied().unwrap_or_default();
            let expected = match kind {
                Kind::Prompt | Kind::Delayed => 1..=1,
                Kind::Resumed if in_time => 0..=0,
                // Resumed late: the delay counts from when the node was found dead, which nobody here knows.
                Kind::Resumed => 0..=1,
            };
            if !expected.contains(&times) {
                stage.wrong(format!("the will of {name} came {times} times and should {expected:?}"));
            }
            if kind == Kind::Delayed && after < Duration::from_secs(DELAY_S.into()) {
                stage.wrong(format!("the will of {name} came after {after:?}, before its delay"));
            }
        }
    }
    for voice in resumed {
        voice.leave(SOON).await?;
    }
    heir.leave(SOON).await
}

async fn hear(
    heir: &mut Voice,
    left: Duration,
    killed: Instant,
    came: &mut BTreeMap<String, (usize, Duration)>,
) -> Result<()> {
    match heir.next(left).await? {
        Came::Other { payload, .. } => {
            let name = String::from_utf8_lossy(&payload).into_owned();
            came.entry(name).or_insert((0, killed.elapsed())).0 += 1;
        }
        Came::Closed(reason) => bail!("the heir's connection was ended: {reason:?}"),
        _ => {}
    }
    Ok(())
}
