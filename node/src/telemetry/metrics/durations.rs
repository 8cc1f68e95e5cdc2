//! How long something took, as a histogram: one search and two additions for each observation, without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper ends of buckets, microseconds, for what waits for a disk.
const DISK: [u64; 12] = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 500_000, 2_000_000];

/// The same for what somebody waits for.
const ANSWER: [u64; 12] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000];

/// A histogram. Copies count together.
#[derive(Debug, Clone)]
pub struct Durations(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    ends_us: &'static [u64; 12],
    /// Not cumulative. What is above the last end is last.
    counts: [AtomicU64; 13],
    sum_us: AtomicU64,
}

/// What was observed until now.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub sum_s: f64,
    pub count: u64,
    /// Upper end in seconds, and how many were in this bucket alone; the last is `f64::MAX`.
    pub buckets: Vec<(f64, u64)>,
}

impl Durations {
    /// Of what waits for a disk: 0.25 ms to 2 s.
    #[must_use]
    pub fn of_disk() -> Durations {
        Durations::new(&DISK)
    }

    /// Of what somebody waits for: 1 ms to 10 s.
    #[must_use]
    pub fn of_answers() -> Durations {
        Durations::new(&ANSWER)
    }

    fn new(ends_us: &'static [u64; 12]) -> Durations {
        Durations(Arc::new(Buckets { ends_us, counts: Default::default(), sum_us: AtomicU64::new(0) }))
    }

    pub fn note(&self, took: Duration) {
        self.note_many(took, 1);
    }

    /// Notes that several took as long.
    pub fn note_many(&self, took: Duration, count: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.0.ends_us.partition_point(|end| *end < micros);
        if let Some(bucket) = self.0.counts.get(bucket) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        self.0.sum_us.fetch_add(micros.saturating_mul(count), Ordering::Relaxed);
    }

    /// Seconds of all observations together, and how many they are.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let ends = self.0.ends_us.iter().map(|end| seconds(*end)).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = ends.zip(counts).collect();
        Snapshot {
            sum_s: seconds(self.0.sum_us.load(Ordering::Relaxed)),
            count: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        }
    }
}

/// Of microseconds, of which a year is far from what an `f64` holds exactly.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Snapshot { sum_s, count, buckets } = self.snapshot();
        encoder.encode_histogram::<NoLabelSet>(sum_s, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_an_end_is_below_it_and_what_is_above_all_is_last() {
        let durations = Durations::of_answers();
        durations.note(Duration::ZERO);
        durations.note(Duration::from_millis(1));
        durations.note_many(Duration::from_micros(1_001), 3);
        durations.note(Duration::from_secs(60));
        let seen = durations.snapshot();
        assert_eq!((seen.count, seen.buckets[0], seen.buckets[1]), (6, (0.001, 2), (0.0025, 3)));
        assert_eq!(seen.buckets.last(), Some(&(f64::MAX, 1)));
        assert!((seen.sum_s - 60.004_003).abs() < 1e-9, "{}", seen.sum_s);
    }
}
