//! An oracle for one stream: which of the numbers 0, 1, 2, ... came, twice, late or never.

use std::collections::BTreeMap;

/// What one arrival was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// New, and nothing later came before it. What lies between it and its predecessor is missing, so far.
    InOrder,
    /// New, but something later came before it.
    Reordered,
    /// Came before.
    Duplicate,
}

/// The arrivals of one publisher's messages on one topic at one receiver. Holds only the gaps.
#[derive(Debug, Clone, Default)]
pub struct Sequence {
    /// One past the highest number that came.
    next: u64,
    /// Ranges below `next` that did not come: first to one past the last.
    gaps: BTreeMap<u64, u64>,
    missing: u64,
    duplicated: u64,
    reordered: u64,
}

impl Sequence {
    pub fn arrive(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            if number > self.next {
                self.gaps.insert(self.next, number);
                self.missing += number - self.next;
            }
            self.next = number + 1;
            return Arrival::InOrder;
        }
        let Some((&first, &end)) = self.gaps.range(..=number).next_back().filter(|(_, end)| number < **end) else {
            self.duplicated += 1;
            return Arrival::Duplicate;
        };
        self.gaps.remove(&first);
        if first < number {
            self.gaps.insert(first, number);
        }
        if number + 1 < end {
            self.gaps.insert(number + 1, end);
        }
        self.missing -= 1;
        self.reordered += 1;
        Arrival::Reordered
    }

    /// One past the highest number that came.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How many different numbers came.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.next - self.missing
    }

    #[must_use]
    pub fn duplicated(&self) -> u64 {
        self.duplicated
    }

    #[must_use]
    pub fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Whether a number came.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        number < self.next && self.gaps.range(..=number).next_back().is_none_or(|(_, end)| number >= *end)
    }

    /// How many of the numbers below `sent` never came, those in `excused` aside.
    #[must_use]
    pub fn lost(&self, sent: u64, excused: &[u64]) -> u64 {
        let absent = (self.missing + sent).saturating_sub(self.next);
        let forgiven = excused.iter().filter(|number| **number < sent && !self.has(**number)).count();
        absent.saturating_sub(forgiven as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(numbers: &[u64]) -> Sequence {
        let mut sequence = Sequence::default();
        for number in numbers {
            sequence.arrive(*number);
        }
        sequence
    }

    #[test]
    fn counts() {
        // arrivals; sent; delivered, lost, duplicated, reordered
        let cases: [(&[u64], u64, [u64; 4]); 9] = [
            (&[], 0, [0, 0, 0, 0]),
            (&[], 3, [0, 3, 0, 0]),
            (&[0, 1, 2], 3, [3, 0, 0, 0]),
            (&[0, 1, 2], 5, [3, 2, 0, 0]),
            (&[0, 2], 3, [2, 1, 0, 0]),
            (&[0, 2, 1], 3, [3, 0, 0, 1]),
            (&[0, 1, 1, 0], 2, [2, 0, 2, 0]),
            (&[9, 4, 5, 3, 4, 9], 10, [4, 6, 2, 3]),
            (&[3, 2, 1, 0, 0], 4, [4, 0, 1, 3]),
        ];
        for (arrivals, sent, expected) in cases {
            let sequence = after(arrivals);
            let got = [sequence.delivered(), sequence.lost(sent, &[]), sequence.duplicated(), sequence.reordered()];
            assert_eq!(got, expected, "{arrivals:?}");
        }
    }

    #[test]
    fn what_was_not_acknowledged_is_excused_once() {
        let sequence = after(&[0, 1, 4]);
        assert_eq!(sequence.lost(6, &[]), 3);
        assert_eq!(sequence.lost(6, &[2, 5]), 1);
        assert_eq!(sequence.lost(6, &[1, 4, 77]), 3);
    }

    #[test]
    fn agrees_with_a_set() {
        use rand::prelude::*;
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut sequence, mut set) = (Sequence::default(), std::collections::BTreeSet::new());
            for _ in 0..200 {
                let number = random.random_range(0..100);
                let late = set.last().is_some_and(|last| *last > number);
                let expected = match (set.insert(number), late) {
                    (false, _) => Arrival::Duplicate,
                    (true, true) => Arrival::Reordered,
                    (true, false) => Arrival::InOrder,
                };
                assert_eq!(sequence.arrive(number), expected, "seed {seed}");
            }
            assert_eq!(sequence.delivered(), set.len() as u64, "seed {seed}");
            assert!((0..110).all(|number| sequence.has(number) == set.contains(&number)), "seed {seed}");
        }
    }
}
