//! A log-linear histogram: values of any size, each kept to within 1/128 of itself, in a few kilobytes.

/// Cells per power of two: the relative error is at most one of them.
const CELLS: u64 = 128;
const CELL_BITS: u32 = CELLS.trailing_zeros();

/// Counts of values, by size.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; cell_of(u64::MAX) + 1], total: 0, max: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, value: u64) {
        self.counts[cell_of(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The largest value, exactly.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The smallest value that at least `share` (0 to 1) of all values do not exceed, rounded up to its cell; 0 if empty.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (cell, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return last_of(cell).min(self.max);
            }
        }
        0
    }

    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }
}

/// Values below `2 * CELLS` have a cell each; above, each power of two is cut into `CELLS`.
fn cell_of(value: u64) -> usize {
    let octave = value.max(1).ilog2().saturating_sub(CELL_BITS);
    (u64::from(octave) * CELLS + (value >> octave)) as usize
}

/// The largest value of a cell.
fn last_of(cell: usize) -> u64 {
    let cell = cell as u64;
    let octave = (cell / CELLS).saturating_sub(1);
    let first = cell - octave * CELLS;
    (first << octave) + ((1 << octave) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_in_order_and_narrow() {
        let mut cell = 0;
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) + (1 << shift >> 1), (1 << shift) | ((1 << shift) - 1)] {
                assert!(cell_of(value) >= cell, "{value}");
                cell = cell_of(value);
                assert!(last_of(cell) >= value, "{value}");
                assert!(last_of(cell) - value <= value / CELLS, "{value}");
            }
        }
        for value in 0..2 * CELLS {
            assert_eq!(last_of(cell_of(value)), value);
        }
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), 0);
        (1..=1000).for_each(|value| histogram.record(value));
        let near = |share, value: u64| {
            let got = histogram.quantile(share);
            assert!(got >= value && got <= value + value / 100, "{share}: {got} for {value}");
        };
        near(0.0, 1);
        near(0.5, 500);
        near(0.99, 990);
        near(0.999, 999);
        assert_eq!(histogram.quantile(1.0), 1000);
        assert_eq!((histogram.count(), histogram.max()), (1000, 1000));

        let mut other = Histogram::default();
        other.record(u64::MAX);
        other.merge(&histogram);
        assert_eq!((other.count(), other.max(), other.quantile(1.0)), (1001, u64::MAX, u64::MAX));
    }
}
