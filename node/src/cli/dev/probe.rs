//! What the nodes say of themselves at their probes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::Place;

/// Between two looks at a node.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For a node to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);

/// What a node said when it was asked last.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sight {
    /// Nobody listens.
    Gone,
    /// Somebody listens, and does not answer.
    Silent,
    Here(Said),
}

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Said {
    /// `ready`, or the first word of why it is not.
    pub(super) state: String,
    pub(super) leads: bool,
    pub(super) votes: bool,
    pub(super) term: u64,
    pub(super) sessions: u64,
    /// PUBLISH packets from clients, and deliveries to them, each second.
    pub(super) received: f64,
    pub(super) sent: f64,
    /// Entries in queues, by the replicated state.
    pub(super) queued: u64,
}

/// Looks at all nodes again and again.
pub(super) struct Watch {
    sights: watch::Receiver<(Instant, Vec<Sight>)>,
    task: AbortHandle,
}

impl Watch {
    pub(super) fn start(places: &[Place]) -> Watch {
        let (told, sights) = watch::channel((Instant::now(), Vec::new()));
        let probes: Vec<SocketAddr> = places.iter().map(|place| place.probes).collect();
        let task = tokio::spawn(async move {
            let mut counted: Vec<Option<Counted>> = probes.iter().map(|_| None).collect();
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let began = Instant::now();
                let mut looks = JoinSet::new();
                for (index, probes) in probes.iter().copied().enumerate() {
                    looks.spawn(async move { (index, look(probes).await) });
                }
                let mut looks = looks.join_all().await;
                looks.sort_unstable_by_key(|(index, _)| *index);
                let looks = looks.into_iter().zip(&mut counted);
                let sights = looks.map(|((_, look), counted)| sight(look, counted, Instant::now())).collect();
                if told.send((began, sights)).is_err() {
                    return;
                }
            }
        });
        Watch { sights, task: task.abort_handle() }
    }

    /// The next time that all were looked at: since when, and what they said.
    pub(super) async fn changed(&mut self) -> (Instant, Vec<Sight>) {
        // The sender lives as long as this.
        let _ = self.sights.changed().await;
        self.sights.borrow_and_update().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What counters showed, and when.
struct Counted {
    at: Instant,
    received: u64,
    sent: u64,
}

enum Look {
    Gone,
    Silent,
    /// `/readyz`: whether it is 200, and its text; and `/metrics`.
    Here(bool, String, String),
}

async fn look(probes: SocketAddr) -> Look {
    let asked = async { Ok::<_, std::io::Error>((get(probes, "/readyz").await?, get(probes, "/metrics").await?)) };
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(Ok(((ready, why), (_, metrics)))) => Look::Here(ready, why, metrics),
        Ok(Err(_)) => Look::Gone,
        Err(_) => Look::Silent,
    }
}

fn sight(look: Look, counted: &mut Option<Counted>, at: Instant) -> Sight {
    let (ready, why, metrics) = match look {
        Look::Gone => {
            *counted = None;
            return Sight::Gone;
        }
        Look::Silent => return Sight::Silent,
        Look::Here(ready, why, metrics) => (ready, why, metrics),
    };
    let now = Counted {
        at,
        received: figure(&metrics, "fulmar_publishes_received_total"),
        sent: figure(&metrics, "fulmar_live_delivered_total"),
    };
    let rate = |now_is: u64, was: fn(&Counted) -> u64| {
        let Some(before) = counted.as_ref() else { return 0.0 };
        // A node that was started again counts from 0.
        now_is.saturating_sub(was(before)) as f64 / now.at.duration_since(before.at).as_secs_f64().max(0.001)
    };
    let word = why.split([' ', ':', '\n']).next().unwrap_or_default();
    let said = Said {
        state: if ready { "ready".to_owned() } else { word.to_owned() },
        leads: figure(&metrics, "fulmar_raft_leader") > 0,
        votes: figure(&metrics, "fulmar_raft_voter") > 0,
        term: figure(&metrics, "fulmar_raft_term"),
        sessions: figure(&metrics, "fulmar_sessions_connected"),
        received: rate(now.received, |before| before.received),
        sent: rate(now.sent, |before| before.sent),
        queued: figure(&metrics, "fulmar_durable_queued"),
    };
    *counted = Some(now);
    Sight::Here(said)
}

/// The sum of a metric over its labels; 0 if there is none.
fn figure(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.strip_prefix(' ').or_else(|| rest.strip_prefix('{')?.rsplit_once("} ").map(|(_, it)| it))?;
        value.trim().parse::<u64>().ok()
    });
    values.sum()
}

/// Whether `/readyz` is 200.
pub(super) async fn ready(probes: SocketAddr) -> bool {
    let asked = tokio::time::timeout(ANSWER_WITHIN, get(probes, "/readyz")).await;
    asked.is_ok_and(|answer| answer.is_ok_and(|(ready, _)| ready))
}

/// Whether the answer is 200, and its body.
async fn get(probes: SocketAddr, path: &str) -> std::io::Result<(bool, String)> {
    let mut socket = TcpStream::connect(probes).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((answer.starts_with("HTTP/1.1 200"), body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_summed_over_labels() {
        let text = "# TYPE fulmar_a counter\nfulmar_a_total{qos=\"0\"} 3\nfulmar_a_total{qos=\"1+\"} 4\nfulmar_ab 9\n\
                    fulmar_b 7\n# EOF\n";
        assert_eq!(figure(text, "fulmar_a_total"), 7);
        assert_eq!(figure(text, "fulmar_b"), 7);
        assert_eq!(figure(text, "fulmar_ab"), 9);
        assert_eq!(figure(text, "fulmar_a"), 0);
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let look = |received: u64, ready: bool, why: &str| {
            Look::Here(ready, why.to_owned(), format!("fulmar_publishes_received_total{{qos=\"0\"}} {received}\n"))
        };
        let (mut counted, start) = (None, Instant::now());
        let later = start + Duration::from_secs(2);
        let Sight::Here(first) = sight(look(100, true, "ok\n"), &mut counted, start) else { panic!("it is here") };
        assert_eq!((first.received, first.state.as_str()), (0.0, "ready"));
        let Sight::Here(second) = sight(look(300, false, "frozen: no lease\n"), &mut counted, later) else {
            panic!("it is here")
        };
        assert_eq!((second.received, second.state.as_str()), (100.0, "frozen"));
        let Sight::Here(restarted) = sight(look(5, true, "ok\n"), &mut counted, later) else { panic!("it is here") };
        assert_eq!(restarted.received, 0.0);
        assert_eq!(sight(Look::Silent, &mut counted, later), Sight::Silent);
        assert_eq!(sight(Look::Gone, &mut counted, later), Sight::Gone);
        assert!(counted.is_none());
    }
}
