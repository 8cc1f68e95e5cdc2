//! What admins decide for the whole cluster: bans, settings, alarms; and the audit. A change is answered when every live
//! node has applied it.

use fulmar_broker::state::command::{Command, Outcome};
use fulmar_broker::steer::bans::{NAME_BYTES_MAX, REASON_BYTES_MAX, Target};
use fulmar_broker::steer::settings::{Value, table};
use fulmar_broker::steer::{Answer, Change, Steer, alarms, audit, bans, settings};

use super::{COMMIT, Error, Operations};
use crate::telemetry;

/// Seconds that a ban may last, if it ends at all: a hundred years.
const BAN_S_MAX: u64 = 100 * 365 * 86_400;

fn command(change: Change) -> Command {
    Command::Steer(Box::new(change))
}

impl Operations {
    /// Bans, settings, alarms and the audit as they are now, in O(1); and the index of the log that this is at least of.
    #[must_use]
    pub fn steer(&self) -> (Steer, u64) {
        let revision = self.replica().figures().applied_index;
        (self.replica().read().steer().clone(), revision)
    }

    async fn change_steer(&self, change: Change) -> Result<Answer, Error> {
        let replica = self.replica();
        let finish = async {
            let (outcomes, index) = replica.commit_at(vec![command(change)]).await;
            let Some(Outcome::Steer(answer)) = outcomes.ok()?.into_iter().next() else { return None };
            let done = !self.dispatch.links().connected() || replica.stable(index).await;
            done.then_some(answer)
        };
        tokio::time::timeout(COMMIT, finish).await.ok().flatten().ok_or(Error::Unavailable)
    }

    /// Bans somebody, for so many seconds or for ever, in place of a ban of the same.
    ///
    /// # Errors
    /// It is too long, or there is no room.
    pub async fn ban(&self, target: Target, reason: &str, by: &str, for_s: Option<u64>) -> Result<(), Error> {
        check_target(&target)?;
        if reason.len() > REASON_BYTES_MAX {
            return Err(Error::invalid("reason", format!("may have {REASON_BYTES_MAX} bytes")));
        }
        if for_s.is_some_and(|seconds| !(1..=BAN_S_MAX).contains(&seconds)) {
            return Err(Error::invalid("for_s", format!("must be from 1 to {BAN_S_MAX}")));
        }
        let until = for_s.map(|seconds| self.dispatch.now().log.plus_s(seconds));
        let set = bans::Change::Set { target, reason: reason.into(), by: by.into(), until, automatic: false };
        match self.change_steer(Change::Ban(set)).await? {
            Answer::Ban(bans::Answer::Done) => Ok(()),
            Answer::Ban(_) => Err(Error::Full),
            _ => Err(Error::Unavailable),
        }
    }

    /// Takes a ban away.
    ///
    /// # Errors
    /// There is none.
    pub async fn lift_ban(&self, target: Target) -> Result<(), Error> {
        let name = target.text();
        match self.change_steer(Change::Ban(bans::Change::Lift { target })).await? {
            Answer::Ban(bans::Answer::Done) => Ok(()),
            Answer::Ban(_) => Err(Error::NoBan(name)),
            _ => Err(Error::Unavailable),
        }
    }

    /// Sets a setting, or with `None` has it be as without one; only after a version, if one is given. Gives the version of
    /// the last change.
    ///
    /// # Errors
    /// There is no such setting, it may not be that, or others have changed settings meanwhile.
    pub async fn set(&self, name: &str, value: Option<Value>, by: &str, version: Option<u64>) -> Result<u64, Error> {
        let spec = table::find(name).ok_or_else(|| {
            let nearest = table::nearest(name);
            Error::invalid("name", format!("is {name:?}, which is no setting; the nearest one is {nearest:?}"))
        })?;
        if let Some(value) = &value {
            spec.check(value).map_err(|allowed| Error::invalid("value", format!("of {name} must be {allowed}")))?;
            if let (table::LOG_LEVEL, Value::Text(level)) = (name, value) {
                telemetry::log::check(level).map_err(|error| Error::invalid("value", error.to_string()))?;
            }
        }
        let change = settings::Change { name: name.into(), value, by: by.into(), version };
        match self.change_steer(Change::Setting(change)).await? {
            Answer::Setting(settings::Answer::Set { version }) => Ok(version),
            Answer::Setting(settings::Answer::Conflict { version }) => Err(Error::SettingsVersion(version)),
            Answer::Setting(settings::Answer::NoRoom) => Err(Error::Full),
            _ => Err(Error::Unavailable),
        }
    }

    /// Takes an alarm away.
    ///
    /// # Errors
    /// There is none.
    pub async fn clear_alarm(&self, name: &str, subject: &str, by: &str) -> Result<(), Error> {
        let clear = alarms::Change::Clear { name: name.into(), subject: subject.into(), by: by.into() };
        match self.change_steer(Change::Alarm(clear)).await? {
            Answer::Alarm(alarms::Answer::Done) => Ok(()),
            Answer::Alarm(_) => Err(Error::NoAlarm(format!("{name} {subject}"))),
            _ => Err(Error::Unavailable),
        }
    }

    /// Adds entries to the audit. Nobody has to wait until other nodes have them.
    ///
    /// # Errors
    /// The log does not take them now.
    pub async fn audit(&self, entries: Vec<audit::Entry>) -> Result<(), Error> {
        let outcome = self.replica().commit(vec![command(Change::Audit(entries))]).await;
        outcome.map(|_| ()).map_err(|_| Error::Unavailable)
    }

    /// Has what this node logs follow the settings, for as long as the node runs.
    pub fn follow_settings(&self, configured: String) {
        let (dispatch, mut changed) = (self.dispatch.clone(), self.dispatch.settings_changed());
        changed.mark_changed();
        tokio::spawn(async move {
            let mut current = configured.clone();
            while changed.changed().await.is_ok() {
                let settings = dispatch.settings();
                let level = settings.text(table::LOG_LEVEL).unwrap_or(&configured);
                if level == current {
                    continue;
                }
                match telemetry::log::set_level(level) {
                    Ok(()) => tracing::info!(level, "what is logged has changed"),
                    Err(error) => tracing::error!(level, %error, "log.level cannot be set"),
                }
                level.clone_into(&mut current);
            }
        });
    }
}

fn check_target(target: &Target) -> Result<(), Error> {
    let (name, text) = match target {
        Target::ClientId(text) => ("client_id", text),
        Target::UserName(text) => ("user_name", text),
        Target::Address(_) => return Ok(()),
    };
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(Error::invalid(name, format!("must have 1 to {NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}
