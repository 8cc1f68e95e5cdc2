//! What a session's devices report, on its way into their shadows: gathered for a moment, so that a device that talks all
//! the time does not fill the log. No acknowledgement waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fulmar_broker::Now;
use fulmar_broker::state::command::{Command, Outcome};
use fulmar_platform::dialect::shadow::reported;
use fulmar_platform::registry::{Change, Patch, Rejection, ShadowChange, ShadowPart};
use fulmar_platform::{Report, Told};

use super::State;

/// Milliseconds between two changes of shadows by one session.
const EVERY_MS: u64 = 200;

/// Bytes of reports, by a rough count, that are gathered; what is beyond is not kept.
const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// What was reported and is not proposed yet.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// By device and service.
    gathered: BTreeMap<(Box<str>, Box<str>), ShadowPart>,
    bytes: usize,
    /// Not before that, in milliseconds of the monotonic clock.
    next_ms: u64,
    /// A proposal is on its way.
    under_way: Option<Arc<AtomicBool>>,
}

impl Reports {
    fn add(&mut self, device: &str, part: ShadowPart) {
        match self.gathered.get_mut(&(device.into(), part.service.clone())) {
            Some(known) => {
                known.reported_ms = part.reported_ms;
                if let (Patch::Merge(known), Patch::Merge(more)) = (&mut known.reported, part.reported) {
                    known.extend(more);
                }
            }
            None => {
                self.gathered.insert((device.into(), part.service.clone()), part);
            }
        }
    }

    /// One change for each device.
    fn take(&mut self) -> Vec<Command> {
        self.bytes = 0;
        let mut changes: Vec<(Box<str>, Vec<ShadowPart>)> = Vec::new();
        for ((device, _), part) in std::mem::take(&mut self.gathered) {
            match changes.last_mut() {
                Some((last, parts)) if *last == device => parts.push(part),
                _ => changes.push((device, vec![part])),
            }
        }
        let command = |(device, parts)| {
            Command::Registry(Box::new(Change::Shadow { device, change: ShadowChange::Update(parts) }))
        };
        changes.into_iter().map(command).collect()
    }
}

impl State {
    /// Gathers what was reported of properties.
    pub(super) fn note_reports(&mut self, reports: &[Report], now_ms: u64) {
        for report in reports {
            let Told::Properties(services) = &report.what else { continue };
            for part in reported(services, now_ms) {
                let bytes = 64 + report.device.len() + part.bytes();
                if self.shadow.bytes + bytes > GATHERED_BYTES_MAX {
                    self.dispatch.metrics().shadow_dropped("crowded");
                    continue;
                }
                self.shadow.bytes += bytes;
                self.shadow.add(&report.device, part);
            }
        }
    }

    /// Proposes what is gathered once it is time, and says when that is.
    pub(super) fn keep_reports(&mut self, now: Now) -> Option<u64> {
        if self.shadow.gathered.is_empty() {
            return None;
        }
        let busy = self.shadow.under_way.as_ref().is_some_and(|under_way| under_way.load(Ordering::Acquire));
        if now.mono_ms >= self.shadow.next_ms {
            self.shadow.next_ms = now.mono_ms + EVERY_MS;
            if !busy {
                self.propose_reports();
                return None;
            }
        }
        Some(self.shadow.next_ms)
    }

    /// Proposes what is gathered.
    pub(super) fn propose_reports(&mut self) {
        if self.shadow.gathered.is_empty() {
            return;
        }
        let commands = self.shadow.take();
        let under_way = self.shadow.under_way.get_or_insert_default().clone();
        under_way.store(true, Ordering::Release);
        let (dispatch, key) = (self.dispatch.clone(), self.receiver.key().clone());
        self.dispatch.replica().propose(
            commands,
            Box::new(move |committed| {
                under_way.store(false, Ordering::Release);
                match committed {
                    Ok(outcomes) => outcomes.iter().for_each(|outcome| {
                        if let Outcome::Registry(Err(rejection)) = outcome {
                            let too_large = *rejection == Rejection::TooLarge;
                            dispatch.metrics().shadow_dropped(if too_large { "too_large" } else { "rejected" });
                            tracing::debug!(client = %key, %rejection, "report not kept in the shadow");
                        }
                    }),
                    Err(error) => tracing::warn!(client = %key, %error, "reports not kept in shadows"),
                }
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_gathered_is_one_change_for_each_device() {
        let mut reports = Reports::default();
        for (device, service, properties) in [
            ("b", "s", json!({"x": 1, "y": 1})),
            ("a", "s", json!({"x": 2})),
            ("b", "t", json!({"x": 3})),
            ("b", "s", json!({"x": 4, "z": null})),
        ] {
            let told = json!([{"service_id": service, "properties": properties}]);
            reported(&told, 7).into_iter().for_each(|part| reports.add(device, part));
        }
        let taken: Vec<_> = reports
            .take()
            .into_iter()
            .map(|command| match command {
                Command::Registry(change) => match *change {
                    Change::Shadow { device, change: ShadowChange::Update(parts) } => (device, parts),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            })
            .collect();
        let devices: Vec<&str> = taken.iter().map(|(device, _)| &**device).collect();
        assert_eq!(devices, ["a", "b"]);
        let parts: Vec<_> = taken[1].1.iter().map(|part| (&*part.service, part.reported.clone())).collect();
        let merged = |value: serde_json::Value| Patch::Merge(value.as_object().unwrap().clone());
        let wanted = [("s", merged(json!({"x": 4, "y": 1, "z": null}))), ("t", merged(json!({"x": 3})))];
        assert_eq!(parts, wanted);
        assert!(reports.gathered.is_empty() && reports.take().is_empty());
    }
}
