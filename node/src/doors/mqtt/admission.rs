//! How many connections there may be, and how fast new ones may come.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use crate::telemetry::metrics::Turned;

/// A bound on open connections and on new ones per second, perhaps within a wider one.
#[derive(Debug)]
pub struct Admission {
    outer: Option<Arc<Admission>>,
    /// 0: no bound of its own.
    connections_max: u32,
    connect_rate_max: u32,
    state: Mutex<State>,
    gauge: Option<Gauge>,
}

#[derive(Debug)]
struct State {
    open: u32,
    /// New connections that may come at once; refilled with time, up to one second's worth.
    tokens: f64,
    refilled: Instant,
}

/// One open connection, counted until it is dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    _outer: Option<Box<Permit>>,
}

impl Admission {
    /// The bounds of a whole node, shown by `gauge`.
    #[must_use]
    pub fn node(connections_max: u32, connect_rate_max: u32, gauge: Gauge) -> Arc<Admission> {
        Arc::new(Admission { gauge: Some(gauge), ..Admission::new(None, connections_max, connect_rate_max) })
    }

    /// The bound of a listener within that of its node.
    #[must_use]
    pub fn within(outer: Arc<Admission>, connections_max: u32, connect_rate_max: u32) -> Arc<Admission> {
        Arc::new(Admission::new(Some(outer), connections_max, connect_rate_max))
    }

    fn new(outer: Option<Arc<Admission>>, connections_max: u32, connect_rate_max: u32) -> Admission {
        let state = State { open: 0, tokens: f64::from(connect_rate_max), refilled: Instant::now() };
        Admission { outer, connections_max, connect_rate_max, state: Mutex::new(state), gauge: None }
    }

    /// Counts one more connection, as open and as new.
    ///
    /// # Errors
    /// The bound that it would pass.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, Turned> {
        self.open(true)
    }

    /// Counts one more connection as open; it is not yet known to be a client's. See [`Admission::pace`].
    ///
    /// # Errors
    /// The bound that it would pass.
    pub fn hold(self: &Arc<Self>) -> Result<Permit, Turned> {
        self.open(false)
    }

    /// Counts one that was let in by [`Admission::hold`] as new.
    ///
    /// # Errors
    /// The bound that it would pass.
    pub fn pace(&self) -> Result<(), Turned> {
        self.outer.as_ref().map_or(Ok(()), |outer| outer.pace())?;
        self.state.lock().spend(self.connect_rate_max)
    }

    fn open(self: &Arc<Self>, new: bool) -> Result<Permit, Turned> {
        let outer = self.outer.as_ref().map(|outer| outer.open(new)).transpose()?.map(Box::new);
        let mut state = self.state.lock();
        if self.connections_max > 0 && state.open >= self.connections_max {
            return Err(Turned::ConnectionsMax);
        }
        if new {
            state.spend(self.connect_rate_max)?;
        }
        state.open += 1;
        drop(state);
        if let Some(gauge) = &self.gauge {
            gauge.inc();
        }
        Ok(Permit { admission: self.clone(), _outer: outer })
    }
}

impl State {
    /// One new connection more, of so many a second; 0: no bound.
    fn spend(&mut self, rate_max: u32) -> Result<(), Turned> {
        if rate_max == 0 {
            return Ok(());
        }
        let rate = f64::from(rate_max);
        let now = Instant::now();
        let earned = now.duration_since(self.refilled).as_secs_f64() * rate;
        self.tokens = (self.tokens + earned).min(rate);
        self.refilled = now;
        if self.tokens < 1.0 {
            return Err(Turned::ConnectRate);
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.state.lock().open -= 1;
        if let Some(gauge) = &self.admission.gauge {
            gauge.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_until_dropped() {
        let node = Admission::node(3, 0, Gauge::default());
        let listener = Admission::within(node.clone(), 2, 0);
        let first = listener.admit().unwrap();
        let _second = listener.admit().unwrap();
        assert_eq!(listener.admit().unwrap_err(), Turned::ConnectionsMax);
        let _third = node.admit().unwrap();
        drop(first);
        let _again = listener.admit().unwrap();
        assert_eq!(node.admit().unwrap_err(), Turned::ConnectionsMax);
    }

    #[test]
    fn a_refused_connection_gives_back_the_wider_bound() {
        let node = Admission::node(2, 0, Gauge::default());
        let listener = Admission::within(node.clone(), 1, 0);
        let _first = listener.admit().unwrap();
        assert!(listener.admit().is_err());
        assert!(node.admit().is_ok());
    }

    #[test]
    fn a_rate_is_spent_and_earned() {
        let listener = Admission::within(Admission::node(0, 0, Gauge::default()), 0, 5);
        let permits: Vec<_> = std::iter::from_fn(|| listener.admit().ok()).take(50).collect();
        assert!((5..50).contains(&permits.len()), "{}", permits.len());
        assert_eq!(listener.admit().unwrap_err(), Turned::ConnectRate);
    }

    #[test]
    fn what_is_held_is_open_and_new_only_once_it_is_paced() {
        let listener = Admission::within(Admission::node(0, 0, Gauge::default()), 40, 5);
        let held: Vec<_> = std::iter::from_fn(|| listener.hold().ok()).collect();
        assert_eq!(held.len(), 40);
        assert_eq!(listener.hold().unwrap_err(), Turned::ConnectionsMax);
        let paced = held.iter().take_while(|_| listener.pace().is_ok()).count();
        assert!((5..40).contains(&paced), "{paced}");
        drop(held);
        assert_eq!(listener.admit().unwrap_err(), Turned::ConnectRate);
        assert!(listener.hold().is_ok());
    }

    #[test]
    fn the_rate_of_the_node_is_that_of_all_listeners_together() {
        let node = Admission::node(0, 5, Gauge::default());
        let listeners = [Admission::within(node.clone(), 0, 0), Admission::within(node, 0, 0)];
        let admitted = (0..50).filter(|at| listeners[at % 2].admit().is_ok()).count();
        assert!((5..50).contains(&admitted), "{admitted}");
        assert_eq!(listeners[0].admit().unwrap_err(), Turned::ConnectRate);
    }
}
