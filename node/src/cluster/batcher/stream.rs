//! The ordered stream of batches from this run of the node, to whoever leads. What is not applied on this node is under
//! way; on any trouble it is sent again, under the same numbers, so that it does not matter what became of it before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fulmar_broker::Generation;
use fulmar_broker::state::BatchError;
use fulmar_broker::state::command::{Batch, Command};
use fulmar_proto::Message;
use fulmar_proto::peer::v1::{ProposeProblemKind as Kind, ProposeRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{Batcher, Next};
use crate::cluster::context::Context;
use crate::cluster::core::Waiting;
use crate::cluster::raft::Proposal;
use crate::cluster::replica::{Error, Reply};
use crate::cluster::wire::Wire;
use crate::store::log::StoreError;

/// Batches under way at one time.
const IN_FLIGHT_MAX: usize = 3;

/// Between two tries after the log has refused a batch for now.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Without progress for so long, what is under way is sent again: a link may be dead without a word. Each time that did not
/// help it is twice as long, up to the second: who is late because there is too much to do must not be given more.
const STALLED_AFTER: Duration = Duration::from_secs(3);
const STALLED_AFTER_MAX: Duration = Duration::from_secs(48);

/// When there is nothing under way, nothing can stall.
const IDLE: Duration = Duration::from_secs(3600);

/// For the leader to take a stream of proposals.
const OPEN_WITHIN: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Stream {
    context: Arc<Context>,
    /// Not applied yet, in order.
    in_flight: VecDeque<Arc<Batch>>,
    seq: u64,
    way: Way,
    /// Grows with every new way: what an older one reports does not matter any more.
    attempt: u64,
    troubles: mpsc::UnboundedReceiver<(u64, Trouble)>,
    trouble: mpsc::UnboundedSender<(u64, Trouble)>,
}

/// How batches get into the log.
enum Way {
    /// Nobody leads, as far as this node knows.
    Nowhere,
    /// This node leads.
    Here,
    There(mpsc::UnboundedSender<Bytes>),
}

/// Why batches must be sent again, or cannot be.
#[derive(Debug)]
pub(in crate::cluster) enum Trouble {
    Again(String),
    /// This run has ended.
    Dead,
    Fatal(String),
}

impl Stream {
    pub(super) fn new(context: Arc<Context>) -> Stream {
        let (trouble, troubles) = mpsc::unbounded_channel();
        Stream { context, in_flight: VecDeque::new(), seq: 0, way: Way::Nowhere, attempt: 0, troubles, trouble }
    }

    pub(super) async fn run(&mut self, batcher: &Batcher) -> Result<(), String> {
        let context = self.context.clone();
        let mut leader = context.raft.server_metrics();
        let mut applied = context.core.own_applied();
        let mut last = None;
        let mut patience = STALLED_AFTER;
        loop {
            let leads = leader.borrow_and_update().current_leader;
            if last != Some(leads) {
                last = Some(leads);
                patience = STALLED_AFTER;
                self.send_all_again().await?;
            }
            let done = *applied.borrow_and_update();
            while self.in_flight.front().is_some_and(|batch| batch.seq <= done) {
                self.in_flight.pop_front();
                patience = STALLED_AFTER;
            }
            if context.core.ended() {
                self.begin_anew(batcher).await?;
                continue;
            }
            let mut wait = None;
            while self.in_flight.len() < IN_FLIGHT_MAX && !matches!(self.way, Way::Nowhere) {
                match batcher.next() {
                    Next::Batch { commands, skip, replies } => self.send(commands, skip, replies).await?,
                    Next::Wait(until) => {
                        wait = Some(until);
                        break;
                    }
                    Next::End if self.in_flight.is_empty() => return Ok(()),
                    Next::End => break,
                }
            }
            let stalled = tokio::time::sleep(if self.in_flight.is_empty() { IDLE } else { patience });
            tokio::select! {
                changed = leader.changed() => changed.map_err(|_| "Raft has ended".to_owned())?,
                changed = applied.changed() => changed.map_err(|_| "the state has gone".to_owned())?,
                () = context.core.end_told() => {}
                () = more(batcher, wait) => {}
                Some((attempt, trouble)) = self.troubles.recv() => {
                    if attempt == self.attempt {
                        self.take_trouble(trouble).await?;
                    }
                }
                () = stalled => if !self.in_flight.is_empty() {
                    tracing::warn!(batches = self.in_flight.len(), "proposals are not applied; sent again");
                    patience = (2 * patience).min(STALLED_AFTER_MAX);
                    self.send_all_again().await?;
                },
            }
        }
    }

    async fn take_trouble(&mut self, trouble: Trouble) -> Result<(), String> {
        match trouble {
            Trouble::Again(why) => {
                tracing::debug!(why, "proposals not taken; sent again");
                self.way = Way::Nowhere;
                tokio::time::sleep(RETRY_AFTER).await;
                self.send_all_again().await
            }
            // It is told by what is applied; until then there is nothing to be done.
            Trouble::Dead => {
                self.way = Way::Nowhere;
                Ok(())
            }
            Trouble::Fatal(why) => Err(why),
        }
    }

    /// This run was declared dead: nothing of it is ever acknowledged, and another one begins.
    async fn begin_anew(&mut self, batcher: &Batcher) -> Result<(), String> {
        let core = self.context.core.clone();
        self.in_flight.clear();
        core.fail_all(Error::Ended);
        batcher.clear().into_iter().for_each(|reply| reply(Err(Error::Ended)));
        let log = self.context.log.clone();
        let saved = tokio::task::spawn_blocking(move || {
            log.save_meta(|meta| meta.generation += 1)?;
            Ok::<u64, StoreError>(log.meta().generation)
        });
        let generation = saved.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        tracing::warn!(generation, "this run of the node was declared dead; another one begins");
        self.seq = 0;
        core.begin(Generation(generation));
        batcher.first(vec![self.context.node_up()]);
        self.send_all_again().await
    }

    async fn send(&mut self, commands: Vec<Command>, skip: usize, replies: Vec<(usize, Reply)>) -> Result<(), String> {
        self.seq += 1;
        let (node, generation) = self.context.core.run();
        let at = self.context.clock.now().log;
        let batch = Arc::new(Batch { node, generation, seq: self.seq, at, term: None, commands });
        self.context.core.await_batch(Waiting { seq: self.seq, skip, since: std::time::Instant::now(), replies });
        self.in_flight.push_back(batch.clone());
        self.pass_on(batch).await
    }

    async fn pass_on(&mut self, batch: Arc<Batch>) -> Result<(), String> {
        match &self.way {
            Way::Nowhere => Ok(()),
            Way::There(link) => {
                if link.send(batch.to_message().encode_to_vec().into()).is_err() {
                    self.way = Way::Nowhere; // the link has told why, or is about to
                }
                Ok(())
            }
            // It leads by what Raft says, and does not know yet what time it is; or not for long any more.
            Way::Here if self.context.leads().is_none() || self.context.leadership.handing() => {
                // As below.
                let _ = self.trouble.send((self.attempt, Trouble::Again("its term has not begun".to_owned())));
                Ok(())
            }
            Way::Here => {
                let now = self.context.clock.now().log;
                let batch = if batch.at > now {
                    // Stamped by a clock that was ahead of what this term says.
                    Arc::new(Batch { at: now, ..(*batch).clone() })
                } else {
                    batch
                };
                let (attempt, trouble) = (self.attempt, self.trouble.clone());
                submit(&self.context, batch, move |what| {
                    // The stream is gone only if the node is.
                    let _ = trouble.send((attempt, what));
                })
                .await
            }
        }
    }

    async fn send_all_again(&mut self) -> Result<(), String> {
        self.attempt += 1;
        let context = &self.context;
        let leader = context.raft.server_metrics().borrow().current_leader;
        self.way = match leader {
            None => Way::Nowhere,
            Some(leader) if leader == context.node.0 => Way::Here,
            Some(leader) => {
                let (link, batches) = mpsc::unbounded_channel();
                let (attempt, trouble) = (self.attempt, self.trouble.clone());
                tokio::spawn(forward(context.clone(), leader, batches, move |what| {
                    let _ = trouble.send((attempt, what));
                }));
                Way::There(link)
            }
        };
        for batch in self.in_flight.clone() {
            self.pass_on(batch).await?;
        }
        Ok(())
    }
}

/// Has a batch appended by this node, which leads. `trouble` is told if it comes to nothing.
///
/// # Errors
/// Raft has ended.
pub(in crate::cluster) async fn submit(
    context: &Context,
    batch: Arc<Batch>,
    trouble: impl FnOnce(Trouble) + Send + 'static,
) -> Result<(), String> {
    let answer = context.raft.client_write_ff(Proposal(batch)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        match answer.await {
            Ok(Ok(written)) => match written.data {
                // One that was applied long ago was answered long ago.
                Ok(()) | Err(BatchError::Forgotten) => {}
                Err(BatchError::Gap { expected }) => trouble(Trouble::Again(format!("batch {expected} is missing"))),
                Err(BatchError::Dead) => trouble(Trouble::Dead),
                Err(error) => trouble(Trouble::Fatal(format!("the cluster takes nothing from this node: it {error}"))),
            },
            Ok(Err(error)) => trouble(Trouble::Again(error.to_string())),
            Err(_) => trouble(Trouble::Again("leadership was lost".to_owned())),
        }
    });
    Ok(())
}

/// Sends batches to another node that leads, for as long as that goes well.
async fn forward(
    context: Arc<Context>,
    leader: u64,
    batches: mpsc::UnboundedReceiver<Bytes>,
    trouble: impl FnOnce(Trouble),
) {
    let Some(mut client) = context.peers.data(leader) else {
        return trouble(Trouble::Again("the leader's address is not known".to_owned()));
    };
    let hello = context.peers.hello(leader, context.core.run().1);
    let opening = tokio_stream::once(ProposeRequest { hello: Some(hello), batch: Bytes::new() });
    let rest = UnboundedReceiverStream::new(batches).map(|batch| ProposeRequest { hello: None, batch });
    let answers = tokio::time::timeout(OPEN_WITHIN, client.propose(opening.chain(rest))).await;
    let mut problems = match answers {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return trouble(Trouble::Again(status.message().to_owned())),
        Err(_) => return trouble(Trouble::Again("the leader does not answer".to_owned())),
    };
    let what = match problems.message().await {
        Ok(Some(problem)) => match problem.kind() {
            Kind::Dead => Trouble::Dead,
            Kind::Removed => Trouble::Fatal("this node was removed from the cluster".to_owned()),
            Kind::Again | Kind::Unspecified => Trouble::Again("the leader did not take it".to_owned()),
        },
        Ok(None) => Trouble::Again("the leader has closed the stream".to_owned()),
        Err(status) => Trouble::Again(status.message().to_owned()),
    };
    trouble(what);
}

/// Until something is proposed, or until settlements have waited long enough. If the pipeline is full nothing needs to
/// be known.
async fn more(batcher: &Batcher, wait: Option<Option<Instant>>) {
    match wait {
        None => std::future::pending().await,
        Some(None) => batcher.work.notified().await,
        Some(Some(by)) => tokio::select! {
            () = batcher.work.notified() => {}
            () = tokio::time::sleep_until(by) => {}
        },
    }
}
