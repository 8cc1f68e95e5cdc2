//! What came of a scenario, and the table of all.

use std::time::Duration;

use super::fleet::Felt;
use crate::history::Verdict;
use crate::scenarios::row::columns;

/// One scenario, played once.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub name: String,
    pub devices: usize,
    pub seed: u64,
    pub verdict: Verdict,
    pub felt: Felt,
    /// The most reconnects in a second that the manifests' drain rate and the faults allow.
    pub reconnects_per_s_max: u64,
    pub unaccounted: u64,
    /// The longest that a pod took to leave.
    pub leave: Duration,
    pub took: Duration,
    /// What else is worth knowing.
    pub notes: Vec<String>,
    /// What was not as promised, beside the figures.
    pub problems: Vec<String>,
}

impl Row {
    /// Whether all was as promised.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations().is_empty()
    }

    /// All violations, in words.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut all = self.problems.clone();
        all.extend(self.verdict.examples.iter().cloned());
        if !self.verdict.is_good() && self.verdict.examples.is_empty() {
            all.push(format!("{:?}", self.verdict));
        }
        if self.unaccounted > 0 {
            all.push(format!("{} obligations are not accounted for", self.unaccounted));
        }
        let (most, allowed) = (self.felt.reconnects_per_s, self.reconnects_per_s_max);
        if most > allowed {
            all.push(format!("{most} clients came back within a second; {allowed} at most should"));
        }
        all
    }
}

const HEADER: [&str; 14] = [
    "scenario",
    "devices",
    "acknowledged",
    "delivered",
    "lost",
    "unaccounted",
    "longest pause s",
    "reconnects",
    "in a second",
    "allowed",
    "owners",
    "leave s",
    "s",
    "",
];

/// A line for each row, in columns.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let (verdict, felt) = (&row.verdict, &row.felt);
        [
            row.name.clone(),
            row.devices.to_string(),
            verdict.acknowledged.to_string(),
            verdict.delivered.to_string(),
            verdict.lost.to_string(),
            row.unaccounted.to_string(),
            format!("{:.1}", felt.longest_pause.as_secs_f64()),
            felt.reconnects.to_string(),
            felt.reconnects_per_s.to_string(),
            row.reconnects_per_s_max.to_string(),
            verdict.owners.to_string(),
            format!("{:.1}", row.leave.as_secs_f64()),
            format!("{:.0}", row.took.as_secs_f64()),
            if row.is_good() { "kept".into() } else { "BROKEN".into() },
        ]
    }));
    columns(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_reconnects_is_a_violation() {
        let felt = Felt { reconnects_per_s: 11, ..Felt::default() };
        let row = Row { name: "one".into(), felt, reconnects_per_s_max: 10, ..Row::default() };
        assert_eq!(row.violations().len(), 1);
        let text = table(&[row.clone(), Row { reconnects_per_s_max: 11, ..row }]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("BROKEN") && lines[2].ends_with("kept"), "{text}");
    }
}
