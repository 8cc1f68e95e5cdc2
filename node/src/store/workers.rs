//! sled writes in threads of its own. One that panics leaves whoever waits for it waiting for ever, so it is noticed here.

use std::panic;
use std::sync::{Arc, Once, Weak};
use std::thread;

use parking_lot::Mutex;

/// What the names of sled's threads begin with.
const PREFIX: &str = "sled-io";

/// Told that a worker has panicked.
pub(super) type Watcher = Arc<dyn Fn() + Send + Sync>;

static WATCHERS: Mutex<Vec<Weak<dyn Fn() + Send + Sync>>> = Mutex::new(Vec::new());
static HOOK: Once = Once::new();

/// Calls `watcher`, as long as it is kept, when a worker of sled panics: of any of its stores, which cannot be told apart.
/// Panics go on to be reported as before.
pub(super) fn watch(watcher: &Watcher) {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            before(panic);
            if is_worker(thread::current().name()) {
                let watchers: Vec<Watcher> = WATCHERS.lock().iter().filter_map(Weak::upgrade).collect();
                watchers.iter().for_each(|watcher| watcher());
            }
        }));
    });
    let mut watchers = WATCHERS.lock();
    watchers.retain(|watcher| watcher.strong_count() > 0);
    watchers.push(Arc::downgrade(watcher));
}

fn is_worker(thread: Option<&str>) -> bool {
    thread.is_some_and(|name| name.starts_with(PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_known_by_their_name() {
        assert!(is_worker(Some("sled-io-0")));
        assert!(!is_worker(Some("log-flusher")));
        assert!(!is_worker(None));
    }
}
