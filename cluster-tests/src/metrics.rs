//! The figures of a node's `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::http_get;

/// Figures by name and labels, as they are written.
#[derive(Debug, Clone, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Asks the node whose probes are here.
    ///
    /// # Errors
    /// It does not answer, or not with its figures.
    pub async fn of(probes: SocketAddr, deadline: Duration) -> Result<Metrics> {
        let answer = http_get(probes, "/metrics", deadline).await;
        let (status, text) = answer.with_context(|| format!("{probes} does not answer"))?;
        ensure!(status == 200, "/metrics: {status} {text}");
        Ok(Metrics::parse(&text))
    }

    fn parse(text: &str) -> Metrics {
        let figures = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Metrics(figures.collect())
    }

    /// A figure; 0 if it is not there, as with a label that never was.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.seconds(name) as u64
    }

    /// As [`Metrics::get`], of what is no whole number.
    #[must_use]
    pub fn seconds(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// As [`Metrics::since`], of what is no whole number.
    #[must_use]
    pub fn seconds_since(&self, before: &Metrics, name: &str) -> f64 {
        (self.seconds(name) - before.seconds(name)).max(0.0)
    }

    /// How much a figure has grown since an earlier look.
    #[must_use]
    pub fn since(&self, before: &Metrics, name: &str) -> u64 {
        self.get(name).saturating_sub(before.get(name))
    }

    /// The sum of all figures whose name and labels contain each of these.
    #[must_use]
    pub fn sum(&self, parts: &[&str]) -> u64 {
        self.0
            .iter()
            .filter(|(name, _)| parts.iter().all(|part| name.contains(part)))
            .map(|(_, value)| *value as u64)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_with_their_labels() {
        let text = "# HELP a b.\na 1\nb{qos=\"0\",reason=\"x\"} 2\nb{qos=\"1+\",reason=\"x\"} 3\nc nothing\n# EOF\n";
        let metrics = Metrics::parse(text);
        assert_eq!((metrics.get("a"), metrics.get("c"), metrics.get("d")), (1, 0, 0));
        assert_eq!(metrics.sum(&["b", "reason=\"x\""]), 5);
        assert_eq!(metrics.since(&Metrics::parse("a 0"), "a"), 1);
        assert_eq!(Metrics::default().since(&metrics, "a"), 0);
    }
}
