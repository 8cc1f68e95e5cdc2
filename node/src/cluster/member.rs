//! The holder's side of the lease: a stream to whoever leads, a request every so often, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use fulmar_broker::LogTime;
use fulmar_proto::peer::v1::{LeaseRequest, Renewal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::clock::wall_ms;
use super::context::Context;
use super::lease::{RENEW_EVERY_MS, Thaw, boottime_ms, held_until};

/// Before the leader is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// For the leader to take the stream.
const OPEN_WITHIN: Duration = Duration::from_millis(1_000);

/// A stream on which nothing comes back for so long is given up.
const SILENT_AFTER: Duration = Duration::from_millis(1_000);

/// Keeps the lease for as long as this node is part of the cluster. A leader keeps its own.
pub(super) async fn run(context: Arc<Context>) {
    let mut leader = context.raft.server_metrics();
    loop {
        let leads = leader.borrow_and_update().current_leader;
        match leads.filter(|leads| *leads != context.node.0) {
            Some(leads) => {
                tokio::select! {
                    why = hold(&context, leads) => {
                        tracing::debug!(why, "no lease");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                    changed = leader.changed() => if changed.is_err() { return },
                }
            }
            None => {
                if leader.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Watches the lease run out, and says so.
pub(super) async fn watch(context: Arc<Context>) {
    let mut acted = context.holder.acts();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let acts = context.holder.acts();
        if acts != acted {
            acted = acts;
            if acts {
                context.waits.note(None);
                tracing::info!("the lease is held");
            } else if !context.holder.returned() {
                tracing::warn!("frozen: the lease has run out");
            }
            context.core.lease_changed();
        }
    }
}

/// Requests and takes renewals from one leader, until that does not go on; says why.
async fn hold(context: &Arc<Context>, leader: u64) -> String {
    let Some(mut client) = context.peers.data(leader) else {
        return "the leader's address is not known".to_owned();
    };
    let (requests, outgoing) = mpsc::unbounded_channel();
    let generation = context.core.run().1;
    let hello = context.peers.hello(leader, generation);
    let mut sent: Vec<(u64, u64)> = Vec::new();
    let mut number = 0;
    let mut ask = |context: &Context, renew: bool, sent: &mut Vec<(u64, u64)>| {
        if renew {
            number += 1;
            sent.push((number, boottime_ms()));
            if sent.len() > 32 {
                sent.remove(0);
            }
        }
        LeaseRequest {
            hello: (number == 1 && renew).then_some(hello),
            number: if renew { number } else { 0 },
            applied: context.core.carried_out(),
            wall_ms: wall_ms(),
            reached: context.reach.reached(),
            returned: false,
        }
    };
    // The first request opens the stream.
    if requests.send(ask(context, true, &mut sent)).is_err() {
        return "the stream has ended".to_owned();
    }
    let opening = client.lease(UnboundedReceiverStream::new(outgoing));
    let mut renewals = match tokio::time::timeout(OPEN_WITHIN, opening).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return refused(context, &status),
        Err(_) => return "the leader does not answer".to_owned(),
    };
    let mut ticks = tokio::time::interval(Duration::from_millis(RENEW_EVERY_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut marks = context.core.marks();
    let mut progress = context.core.progress();
    let mut thaw: Option<Thaw> = None;
    let mut heard = tokio::time::Instant::now();
    loop {
        let request = tokio::select! {
            _ = ticks.tick() => Some(true),
            changed = marks.changed() => match changed {
                Ok(()) => Some(false),
                Err(_) => return "the state has gone".to_owned(),
            },
            changed = progress.changed(), if thaw.is_some() => match changed {
                Ok(()) => None,
                Err(_) => return "the state has gone".to_owned(),
            },
            renewal = renewals.message() => match renewal {
                Ok(Some(renewal)) => {
                    heard = tokio::time::Instant::now();
                    take(context, &renewal, &sent, &mut thaw);
                    None
                }
                Ok(None) => return "the leader has closed the stream".to_owned(),
                Err(status) => return refused(context, &status),
            },
        };
        if context.holder.thaw(context.core.carried_out(), &mut thaw) {
            context.core.lease_changed();
        }
        if heard.elapsed() > SILENT_AFTER {
            return "the leader is silent".to_owned();
        }
        if context.core.run().1 != generation {
            return "another run of this node has begun".to_owned();
        }
        if let Some(renew) = request
            && requests.send(ask(context, renew, &mut sent)).is_err()
        {
            return "the stream has ended".to_owned();
        }
    }
}

/// Gives the lease back to whoever granted it: this node acts no more. A leader has nobody to give it to.
pub(super) async fn give_back(context: &Arc<Context>) {
    context.holder.end();
    context.core.lease_changed();
    let leader = context.raft.metrics().borrow().current_leader.filter(|leader| *leader != context.node.0);
    let Some((leader, mut client)) = leader.and_then(|leader| Some((leader, context.peers.data(leader)?))) else {
        return;
    };
    let hello = Some(context.peers.hello(leader, context.core.run().1));
    let request = LeaseRequest { hello, returned: true, ..LeaseRequest::default() };
    let told = tokio::time::timeout(OPEN_WITHIN, client.lease(tokio_stream::once(request))).await;
    if !matches!(told, Ok(Ok(_))) {
        tracing::debug!("the lease was not given back; it runs out by itself");
    }
}

fn refused(context: &Context, status: &tonic::Status) -> String {
    if status.code() == tonic::Code::PermissionDenied {
        context.removed(status.message());
    }
    status.message().to_owned()
}

fn take(context: &Context, renewal: &Renewal, sent: &[(u64, u64)], thaw: &mut Option<Thaw>) {
    context.holder.note_stable(renewal.term, renewal.stable);
    let asked = sent.iter().find(|(number, _)| *number == renewal.number && renewal.number > 0);
    let Some((_, sent_ms)) = asked else { return };
    context.clock.set_log(LogTime(renewal.log_ms));
    if renewal.lease_ms == 0 {
        return;
    }
    context.contact.stamp();
    let until_ms = held_until(*sent_ms, renewal.lease_ms.into());
    context.holder.renewed(boottime_ms(), Thaw { index: renewal.index, until_ms }, thaw);
}
