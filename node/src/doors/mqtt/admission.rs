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
    /// The bound of a whole node, shown by `gauge`.
    #[must_use]
    pub fn node(connections_max: u32, gauge: Gauge) -> Arc<Admission> {
        Arc::new(Admission { gauge: Some(gauge), ..Admission::new(None, connections_max, 0) })
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

    /// Counts one more connection.
    ///
    /// # Errors
    /// The bound that it would pass.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, Turned> {
        let outer = self.outer.as_ref().map(|outer| outer.admit()).transpose()?.map(Box::new);
        let mut state = self.state.lock();
        if self.connections_max > 0 && state.open >= self.connections_max {
            return Err(Turned::ConnectionsMax);
        }
        if self.connect_rate_max > 0 {
            let rate = f64::from(self.connect_rate_max);
            let now = Instant::now();
            let earned = now.duration_since(state.refilled).as_secs_f64() * rate;
            state.tokens = (state.tokens + earned).min(rate);
            state.refilled = now;
            if state.tokens < 1.0 {
                return Err(Turned::ConnectRate);
            }
            state.tokens -= 1.0;
        }
        state.open += 1;
        drop(state);
        if let Some(gauge) = &self.gauge {
            gauge.inc();
        }
        Ok(Permit { admission: self.clone(), _outer: outer })
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
        let node = Admission::node(3, Gauge::default());
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
        let node = Admission::node(2, Gauge::default());
        let listener = Admission::within(node.clone(), 1, 0);
        let _first = listener.admit().unwrap();
        assert!(listener.admit().is_err());
        assert!(node.admit().is_ok());
    }

    #[test]
    fn a_rate_is_spent_and_earned() {
        let listener = Admission::within(Admission::node(0, Gauge::default()), 0, 5);
        let permits: Vec<_> = std::iter::from_fn(|| listener.admit().ok()).take(50).collect();
        assert!((5..50).contains(&permits.len()), "{}", permits.len());
        assert_eq!(listener.admit().unwrap_err(), Turned::ConnectRate);
    }
}
