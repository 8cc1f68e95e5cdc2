//! Sessions of clients that have lost their right to them.

use fulmar_broker::Epoch;
use fulmar_broker::SessionKey;
use fulmar_broker::state::command::Command;
use fulmar_mqtt::ReasonCode;
use fulmar_platform::{Dialect, TENANT};

use super::{COMMIT, Error, Operations};

/// Sessions that one proposal ends.
const STEP: usize = 500;

impl Operations {
    /// Ends the sessions of an application of Sensoro's: connected ones are closed, and what waits for others is dropped.
    /// Asked for once the registry's change is committed: a client that is judged by what was before is let in no more.
    ///
    /// # Errors
    /// The log takes nothing now; some may have ended.
    pub(super) async fn end_sensoro_sessions(&self, app: &str) -> Result<(), Error> {
        let (census, app) = (self.dispatch.replica().read().census(), app.to_owned());
        let find = move || -> Vec<(SessionKey, Epoch)> {
            let found = census.iter().filter(|(key, _)| is_of(&app, key));
            found.map(|(key, epoch)| (key.clone(), epoch)).collect()
        };
        // There may be a million sessions.
        let found = tokio::task::spawn_blocking(find).await.map_err(|_| Error::Unavailable)?;
        for step in found.chunks(STEP) {
            let reason = ReasonCode::NotAuthorized;
            let end =
                |(key, epoch): &(SessionKey, Epoch)| Command::EndSession { key: key.clone(), epoch: *epoch, reason };
            let committed = self.dispatch.replica().commit(step.iter().map(end).collect());
            let committed = tokio::time::timeout(COMMIT, committed).await;
            committed.ok().and_then(Result::ok).ok_or(Error::Unavailable)?;
        }
        Ok(())
    }
}

/// Whether it is a session of the application: its clients are named as it, or as it and something after a `/`.
fn is_of(app: &str, key: &SessionKey) -> bool {
    let named = key.identity().strip_prefix(app).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    named && key.tenant() == TENANT && key.dialect() == Dialect::Sensoro.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_an_application() {
        for (dialect, identity, its) in [
            ("sensoro", "app", true),
            ("sensoro", "app/one", true),
            ("sensoro", "app/", true),
            ("sensoro", "app2", false),
            ("sensoro", "ap", false),
            ("generic", "app", false),
        ] {
            assert_eq!(is_of("app", &SessionKey::new(TENANT, dialect, identity)), its, "{dialect} {identity}");
        }
    }
}
