//! What a cluster needs before anything can be registered. Every node asks for it when it starts; the first one is heard.

use std::sync::Arc;
use std::time::Duration;

use fulmar_platform::Secret;
use fulmar_platform::registry::{App, Change, Expect, Record};

use super::{ImportError, Operations, Seed, secrets};

/// The id of the default resource space: one that all nodes would choose.
const DEFAULT_APP: &str = "DefaultApp";

/// Time at the start for the registry to be given what it begins with.
const PREPARE: Duration = Duration::from_secs(10);

const RETRY: Duration = Duration::from_secs(1);

impl Operations {
    /// Sees to it that the registry has what a cluster begins with, and what the seed asks for. A node that finds nobody to
    /// take changes is let go on after a while, and goes on asking.
    ///
    /// # Errors
    /// The seed asks for what cannot be.
    pub async fn prepare(self, seed: Option<Seed>) -> Result<(), ImportError> {
        let mut preparing = tokio::spawn(async move {
            self.begin().await;
            match &seed {
                Some(seed) => self.import(seed).await,
                None => Ok(()),
            }
        });
        if let Ok(prepared) = tokio::time::timeout(PREPARE, &mut preparing).await {
            // It ends by itself, unless the runtime does.
            return prepared.unwrap_or(Ok(()));
        }
        tracing::warn!("the registry is not prepared yet: the cluster takes no changes");
        tokio::spawn(async move {
            if let Ok(Err(error)) = preparing.await {
                tracing::error!(%error, "registry.import");
            }
        });
        Ok(())
    }

    /// Sees to it that there are the cluster's key and the default resource space. Waits until there are.
    async fn begin(&self) {
        loop {
            let (keyed, spaced) =
                self.read(|registry| (registry.key().is_some(), registry.apps().any(|app| app.record.default)));
            if keyed && spaced {
                return;
            }
            let mut changes = Vec::new();
            if !keyed {
                changes.push(Change::Key(Secret::new(&secrets::hex(32))));
            }
            if !spaced {
                let app =
                    App { id: DEFAULT_APP.into(), name: DEFAULT_APP.into(), default: true, created_ms: self.now_ms() };
                changes.push(Change::Put { record: Record::App(Arc::new(app)), expect: Expect::Absent });
            }
            for change in changes {
                // Another node may have been first; the loop looks again.
                if let Err(error) = self.commit(change).await {
                    tracing::debug!(%error, "the registry has not begun yet");
                }
            }
            let begun = self.read(|registry| registry.key().is_some() && registry.apps().any(|app| app.record.default));
            if !begun {
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
