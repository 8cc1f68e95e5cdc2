//! `/metrics`, `/livez`, `/readyz` and `/startupz` over plain HTTP, for the platform that runs the node.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context;

use fulmar_broker::state::DROPPED;

use crate::dispatch::Dispatch;
use crate::telemetry::metrics::Reading;

/// Where the node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    Starting = 0,
    Serving = 1,
    Draining = 2,
}

/// The node's phase, as the probes tell it.
#[derive(Debug, Default)]
pub struct Health(AtomicU8);

impl Health {
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }
}

struct Probes {
    health: Arc<Health>,
    dispatch: Arc<Dispatch>,
}

/// Opens the door; it is served on a thread of its own until the process ends.
///
/// # Errors
/// If the address cannot be bound; the text names it.
pub fn open(address: SocketAddr, health: Arc<Health>, dispatch: Arc<Dispatch>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("probes.address: cannot listen on {address}"))?;
    let address = listener.local_addr().context("probes.address")?;
    let probes = web::Data::new(Probes { health, dispatch });
    std::thread::Builder::new().name("probes".into()).spawn(move || {
        if let Err(error) = serve(listener, probes) {
            tracing::error!(%error, "probes ended");
        }
    })?;
    Ok(address)
}

fn serve(listener: TcpListener, probes: web::Data<Probes>) -> std::io::Result<()> {
    let app = move || {
        App::new()
            .app_data(probes.clone())
            .route("/metrics", web::get().to(metrics))
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/startupz", web::get().to(startupz))
    };
    actix_rt::System::new()
        .block_on(async { HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run().await })
}

async fn metrics(probes: web::Data<Probes>) -> HttpResponse {
    let dispatch = &probes.dispatch;
    dispatch.collect_tallies();
    let state = dispatch.replica().read();
    let books = state.books();
    let unaccounted = u64::try_from(books.unaccounted().unsigned_abs()).unwrap_or(u64::MAX);
    let dropped = DROPPED.iter().map(|(reason, label)| (Some(*label), books.dropped(*reason))).collect();
    let now = [
        Reading::new(
            "live_open",
            "Live deliveries of QoS 1 and 2, queued or unacknowledged",
            dispatch.metrics().live_open(),
        ),
        Reading::new("subscriptions", "Live subscriptions of connected sessions", dispatch.subscription_count() as u64),
        Reading::new("sessions", "Sessions, connected or not", state.session_count() as u64),
        Reading::new("retained_messages", "Retained messages", state.retained().len() as u64),
        Reading::new("replicated_bytes", "Bytes of queues, retained messages and wills", state.bytes()),
        Reading::new("durable_obligations", "Durable deliveries taken on since the state began", books.created),
        Reading::new("durable_delivered", "Durable deliveries acknowledged by their receivers", books.delivered),
        Reading::new("durable_queued", "Durable deliveries in queues", books.queued),
        Reading::new("durable_expired", "Durable deliveries whose message expired in the queue", books.expired),
        Reading { name: "durable_dropped", help: "Durable deliveries dropped, by the bound or cause", values: dropped },
        Reading::new(
            "obligations_unaccounted",
            "Durable obligations that are neither delivered, queued, expired nor dropped; never other than 0",
            unaccounted,
        ),
    ];
    drop(state);
    HttpResponse::Ok()
        .insert_header(("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8"))
        .body(dispatch.metrics().render(&now))
}

/// The process answers: that is all that it says.
async fn livez() -> HttpResponse {
    answer(true, "ok\n")
}

async fn readyz(probes: web::Data<Probes>) -> HttpResponse {
    match probes.health.phase() {
        Phase::Starting => answer(false, "starting\n"),
        Phase::Serving => answer(true, "ok\n"),
        Phase::Draining => answer(false, "draining\n"),
    }
}

async fn startupz(probes: web::Data<Probes>) -> HttpResponse {
    match probes.health.phase() {
        Phase::Starting => answer(false, "starting\n"),
        Phase::Serving | Phase::Draining => answer(true, "ok\n"),
    }
}

fn answer(well: bool, text: &'static str) -> HttpResponse {
    let mut response = if well { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header(ContentType::plaintext()).body(text)
}
