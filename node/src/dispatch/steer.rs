//! What admins decide for the whole cluster, as it counts on this node: bans and settings. Who applies the log only tells
//! that something has changed; a task looks at what counts by then.

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use fulmar_broker::state::command::Command;
use fulmar_broker::steer::bans::{self, Ban, Target};
use fulmar_broker::steer::settings::{Settings, Value, table};
use fulmar_broker::steer::{self, Change};
use fulmar_mqtt::ReasonCode;
use tokio::sync::{Notify, watch};

use super::Dispatch;

/// Receivers that are looked at before other tasks have their turn.
const LOOKED_AT: usize = 1_000;

/// See the module.
pub(super) struct Steering {
    /// Bans have changed: somebody who is connected may be banned.
    cut: Notify,
    settings: watch::Sender<()>,
}

impl Steering {
    /// Must be called on the runtime that serves clients.
    pub(super) fn start(dispatch: Weak<Dispatch>) -> Arc<Steering> {
        let steering = Arc::new(Steering { cut: Notify::new(), settings: watch::Sender::new(()) });
        let own = Arc::downgrade(&steering);
        tokio::spawn(async move {
            while let Some(steering) = own.upgrade() {
                steering.cut.notified().await;
                let Some(dispatch) = dispatch.upgrade() else { return };
                dispatch.cut_banned().await;
            }
        });
        steering
    }

    /// The state is that of a snapshot.
    pub(super) fn all_changed(&self) {
        self.cut.notify_one();
        self.settings.send_replace(());
    }

    /// Something was applied.
    pub(super) fn happened(&self, event: &steer::Event) {
        match event {
            steer::Event::Ban(bans::Event::Set(_)) => self.cut.notify_one(),
            steer::Event::Setting(_) => {
                self.settings.send_replace(());
            }
            // Traces are dispatch's own.
            steer::Event::Ban(bans::Event::Lifted(_)) | steer::Event::Alarm(_) | steer::Event::Traces => {}
        }
    }
}

/// What is banned, for a metric.
fn kind(ban: &Ban) -> &'static str {
    match ban.target {
        Target::ClientId(_) => "client_id",
        Target::UserName(_) => "user_name",
        Target::Address(_) => "address",
    }
}

impl Dispatch {
    /// Tells of every change of the settings, which may be several at once.
    #[must_use]
    pub fn settings_changed(&self) -> watch::Receiver<()> {
        self.steering.settings.subscribe()
    }

    /// The settings as they are now, in O(1).
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.replica.read().steer().settings.clone()
    }

    /// What a setting that is a number is set to, or its default; 0 if there is none.
    #[must_use]
    pub fn number_set(&self, name: &str) -> u64 {
        let set = self.replica.read().steer().settings.number(name);
        set.unwrap_or_else(|| match table::find(name).and_then(table::Spec::default) {
            Some(Value::Number(number)) => number,
            _ => 0,
        })
    }

    /// Whether nobody may connect from an address; counted if so.
    #[must_use]
    pub fn address_banned(&self, address: IpAddr) -> bool {
        let banned = self.replica.read().steer().bans.of_address(address, self.now().log).is_some();
        if banned {
            self.metrics.banned("address");
        }
        banned
    }

    /// Whether a client may not connect, as it says who it is; counted if so.
    #[must_use]
    pub fn client_banned(&self, client_id: &str, user_name: Option<&str>, address: IpAddr) -> bool {
        let ban = self.replica.read().steer().bans.of_client(client_id, user_name, address, self.now().log).cloned();
        if let Some(ban) = &ban {
            self.metrics.banned(kind(ban));
        }
        ban.is_some()
    }

    /// Has a client banned that came too often. Nobody waits for it: it is refused by this node in any case.
    pub fn ban_flapping(&self, client_id: &str, connects: u64, window_s: u64) {
        if client_id.len() > bans::NAME_BYTES_MAX {
            return; // too long for a ban; it goes on being refused here while it comes too often
        }
        let until = self.now().log.plus_s(self.number_set(table::FLAPPING_BAN_S));
        let reason = format!("connected {connects} times within {window_s} s").into();
        let (target, by) = (Target::ClientId(client_id.into()), "flapping".into());
        let set = bans::Change::Set { target, reason, by, until: Some(until), automatic: true };
        self.replica.propose(
            vec![Command::Steer(Box::new(Change::Ban(set)))],
            Box::new(|committed| {
                if let Err(error) = committed {
                    tracing::error!(%error, "the ban of a client that comes too often was not committed");
                }
            }),
        );
    }

    /// Cuts who is connected here and banned.
    async fn cut_banned(&self) {
        let bans = self.replica.read().steer().bans.clone();
        if bans.is_empty() {
            return;
        }
        let now = self.now().log;
        for (at, receiver) in self.receivers().into_iter().enumerate() {
            let guest = receiver.guest();
            let client_id = guest.client_id.as_deref().unwrap_or(receiver.key().identity());
            let ban = bans.of_client(client_id, guest.user_name.as_deref(), guest.peer.ip(), now);
            if let Some(ban) = ban {
                tracing::info!(client = %receiver.key(), reason = %ban.reason, "banned: its connection ends");
                self.metrics.banned(kind(ban));
                // DISCONNECT has no reason of that name.
                receiver.tell(|port| port.close(ReasonCode::AdministrativeAction));
            }
            if at % LOOKED_AT == LOOKED_AT - 1 {
                tokio::task::yield_now().await;
            }
        }
    }
}
