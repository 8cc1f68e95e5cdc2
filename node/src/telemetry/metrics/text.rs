//! The text that Prometheus reads.

use super::Metrics;

/// A figure that is read when it is asked for.
#[derive(Debug)]
pub struct Reading {
    pub name: &'static str,
    pub help: &'static str,
    /// One value, or one for each value of a label from a closed list: (name, value) of the label, and the figure.
    pub values: Vec<(Option<(&'static str, &'static str)>, u64)>,
}

impl Reading {
    #[must_use]
    pub fn new(name: &'static str, help: &'static str, value: u64) -> Reading {
        Reading { name, help, values: vec![(None, value)] }
    }
}

impl Metrics {
    /// The Prometheus text form of the counters, and of figures that are read at this moment.
    #[must_use]
    pub fn render(&self, now: &[Reading]) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode_registry(&mut text, &self.registry);
        for Reading { name, help, values } in now {
            text.push_str(&format!("# HELP fulmar_{name} {help}.\n# TYPE fulmar_{name} gauge\n"));
            for (label, value) in values {
                let label = label.map(|(name, of)| format!("{{{name}=\"{of}\"}}")).unwrap_or_default();
                text.push_str(&format!("fulmar_{name}{label} {value}\n"));
            }
        }
        text.push_str("# EOF\n");
        text
    }
}
