//! What was asked of the API, by REST, gRPC and the console.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Count, Durations};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabel {
    door: &'static str,
    room: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoomLabel {
    door: &'static str,
    room: &'static str,
}

/// Calls that were answered once.
#[derive(Debug)]
pub struct Calls {
    answered: Family<AnswerLabel, Count>,
    took: Family<RoomLabel, Durations, fn() -> Durations>,
}

impl Calls {
    pub(super) fn register(registry: &mut Registry) -> Calls {
        let answered = Family::default();
        let help = "Calls of REST, gRPC and the console that were answered, by room and class of the status";
        registry.register("api_requests", help, answered.clone());
        let took = Family::new_with_constructor(Durations::of_answers as fn() -> Durations);
        let help = "Seconds that calls of REST, gRPC and the console took";
        registry.register("api_request_seconds", help, took.clone());
        Calls { answered, took }
    }

    /// Counts a call. `door`: `rest`, `grpc` or `console`; `room`: of its name, from the table of calls; `status`: as HTTP
    /// counts it.
    pub fn answered(&self, door: &'static str, room: &'static str, status: u16, took: Duration) {
        let status = match status {
            0..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.answered.get_or_create(&AnswerLabel { door, room, status }).inc();
        self.took.get_or_create(&RoomLabel { door, room }).note(took);
    }
}
