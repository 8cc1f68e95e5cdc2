//! `/metrics`, `/livez`, `/readyz` and `/startupz` over plain HTTP, for the platform that runs the node.

mod figures;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};

use actix_web::http::header::{self, ContentType};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Context;
use parking_lot::Mutex;

use crate::cluster::{Step, Waits};
use crate::dispatch::Dispatch;
use crate::telemetry::metrics::Form;

/// Where the node is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Reading what is on disk, and whatever keeps it from going on.
    Starting(Option<String>),
    /// What is on disk is read; who the others are, and that this run is one of them, is still to be settled.
    Joining(Step),
    Serving,
    Draining,
    /// Its clients are gone and its lease is given back.
    Drained,
    /// What is on disk cannot be trusted. The node serves nobody, and waits for a person.
    Damaged(String),
}

/// What the probes tell: the node's phase, and its figures once there are any.
#[derive(Debug)]
pub struct Health {
    phase: Mutex<Phase>,
    dispatch: OnceLock<Arc<Dispatch>>,
    /// What the node waits for while it is no member, or reaches no majority.
    pub waits: Waits,
}

impl Default for Health {
    fn default() -> Health {
        Health { phase: Mutex::new(Phase::Starting(None)), dispatch: OnceLock::new(), waits: Waits::default() }
    }
}

impl Health {
    pub fn set(&self, phase: Phase) {
        *self.phase.lock() = phase;
    }

    /// A node that starts has come so far; news of a start that is over changes nothing.
    pub fn steps(&self, step: Step) {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Starting(_) | Phase::Joining(_)) {
            *phase = Phase::Joining(step);
        }
    }

    fn phase(&self) -> Phase {
        self.phase.lock().clone()
    }

    /// Whether the node takes clients.
    ///
    /// # Errors
    /// What keeps it from that, in words.
    pub fn ready(&self) -> Result<(), String> {
        let dispatch = self.dispatch.get();
        let say = |text: &str| Err(text.to_owned());
        let wait = |text: &str| Err(self.waits.why().map_or(text.to_owned(), |why| format!("{text}: {why}")));
        match self.phase() {
            Phase::Starting(None) => say("starting: reading what is on disk"),
            Phase::Starting(Some(why)) => Err(format!("starting: {why}")),
            Phase::Joining(Step::Joining) => wait("starting: no member of a cluster yet, or nobody leads it"),
            Phase::Joining(Step::Announcing) => wait("starting: catching up with what was committed before"),
            Phase::Joining(Step::Leasing) => say("starting: waiting for a lease"),
            Phase::Joining(Step::Opening) => say("starting: opening the listeners"),
            Phase::Serving if dispatch.is_some_and(|dispatch| !dispatch.replica().acts()) => {
                wait("frozen: the lease has run out")
            }
            Phase::Serving if dispatch.is_some_and(|dispatch| dispatch.replica().read().restoring()) => {
                say("restoring: a backup is not put back whole")
            }
            Phase::Serving => Ok(()),
            Phase::Draining => {
                let left = dispatch.map_or(0, |dispatch| dispatch.metrics().connections.get());
                Err(format!("draining: {left} connections left"))
            }
            Phase::Drained => say("drained"),
            Phase::Damaged(what) => Err(what),
        }
    }

    /// Whether what is on disk has been read. A damaged node has started as far as it ever will: to be started again
    /// would not help it.
    fn started(&self) -> bool {
        !matches!(self.phase(), Phase::Starting(_))
    }

    /// Where figures come from, from here on. Once.
    pub fn observe(&self, dispatch: Arc<Dispatch>) {
        // A node has one dispatch in its life.
        let _ = self.dispatch.set(dispatch);
    }
}

/// Opens the door; it is served on a thread of its own until the process ends.
///
/// # Errors
/// If the address cannot be bound; the text names it.
pub fn open(address: SocketAddr, health: Arc<Health>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("probes.address: cannot listen on {address}"))?;
    let address = listener.local_addr().context("probes.address")?;
    let health = web::Data::from(health);
    std::thread::Builder::new().name("probes".into()).spawn(move || {
        if let Err(error) = serve(listener, health) {
            tracing::error!(%error, "probes ended");
        }
    })?;
    Ok(address)
}

fn serve(listener: TcpListener, health: web::Data<Health>) -> std::io::Result<()> {
    let app = move || {
        App::new()
            .app_data(health.clone())
            .route("/metrics", web::get().to(metrics))
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/startupz", web::get().to(startupz))
    };
    actix_rt::System::new()
        .block_on(async { HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run().await })
}

async fn metrics(health: web::Data<Health>, request: HttpRequest) -> HttpResponse {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let form = accept.map_or(Form::Prometheus, Form::asked);
    let text = match health.dispatch.get() {
        Some(dispatch) => {
            dispatch.collect_tallies();
            figures::render(dispatch, form)
        }
        None if form == Form::OpenMetrics => "# EOF\n".to_owned(),
        None => String::new(),
    };
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, form.content_type())).body(text)
}

/// The process answers: that is all that it says.
async fn livez() -> HttpResponse {
    answer(true, "ok\n")
}

async fn readyz(health: web::Data<Health>) -> HttpResponse {
    match health.ready() {
        Ok(()) => answer(true, "ok\n"),
        Err(why) => answer(false, format!("{why}\n")),
    }
}

async fn startupz(health: web::Data<Health>) -> HttpResponse {
    match health.started() {
        true => answer(true, "ok\n"),
        false => answer(false, "starting\n"),
    }
}

fn answer(well: bool, text: impl Into<String>) -> HttpResponse {
    let mut response = if well { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header(ContentType::plaintext()).body(text.into())
}
