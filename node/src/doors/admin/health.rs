//! `grpc.health.v1.Health`: each service, and the node as the empty name, serves while the node does.

use std::pin::Pin;
use std::time::Duration;

use fulmar_proto::document;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{Serving, status};

/// How often a watch looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Answers {
    serving: Serving,
    closed: watch::Receiver<bool>,
}

impl Answers {
    pub(super) fn new(serving: Serving, closed: watch::Receiver<bool>) -> Answers {
        Answers { serving, closed }
    }
}

fn known(service: &str) -> bool {
    service.is_empty() || document::pool().get_service_by_name(service).is_some()
}

fn of(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn says(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Answers {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !known(&request.get_ref().service) {
            return Err(Status::not_found("there is no such service"));
        }
        Ok(Response::new(says(of((self.serving)()))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// The status, and then each other one that it becomes.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = known(&request.get_ref().service);
        let serving = self.serving.clone();
        let looks = tokio::time::interval(LOOK_EVERY);
        let statuses = stream::unfold((looks, None), move |(mut looks, last)| {
            let serving = serving.clone();
            async move {
                loop {
                    looks.tick().await;
                    // The protocol keeps such a watch open, since a service may come.
                    let now = if known { of(serving()) } else { ServingStatus::ServiceUnknown };
                    if last != Some(now) {
                        return Some((Ok(says(now)), (looks, Some(now))));
                    }
                }
            }
        });
        let mut closed = self.closed.clone();
        let end = async move {
            // The sender goes with the node.
            let _ = closed.wait_for(|closed| *closed).await;
        };
        let last = stream::once(std::future::ready(Err(status::leaving())));
        Ok(Response::new(Box::pin(statuses.take_until(Box::pin(end)).chain(last))))
    }
}
