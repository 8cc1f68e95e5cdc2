//! What came of a scenario, and the table of all.

use std::fmt::Write;
use std::time::Duration;

use crate::histogram::Histogram;
use crate::history::Verdict;

/// One run of one scenario.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub name: String,
    pub seed: u64,
    pub verdict: Verdict,
    /// Over all nodes that ran at the end.
    pub unaccounted: u64,
    /// From SUBSCRIBE to SUBACK on nodes without a fault, in nanoseconds.
    pub suback: Histogram,
    pub took: Duration,
    /// What else is worth knowing.
    pub notes: Vec<String>,
    /// What was not as promised, beside the verdict.
    pub problems: Vec<String>,
}

impl Row {
    /// Whether all was as promised.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict.is_good() && self.unaccounted == 0 && self.problems.is_empty()
    }

    /// All violations, in words.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut all = self.problems.clone();
        all.extend(self.verdict.examples.iter().cloned());
        if self.unaccounted > 0 {
            all.push(format!("{} obligations are not accounted for", self.unaccounted));
        }
        all
    }
}

const HEADER: [&str; 13] = [
    "scenario",
    "acknowledged",
    "delivered",
    "lost",
    "duplicated",
    "reordered",
    "owners",
    "unaccounted",
    "SUBACK p99 ms",
    "worst ms",
    "s",
    "seed",
    "",
];

/// A line for each row, in columns.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    columns(&lines)
}

/// Lines of cells, each column as wide as its widest.
pub(crate) fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for line in lines {
        let mut rendered = String::new();
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = match column {
                0 => write!(rendered, "{cell:<width$}  "),
                _ => write!(rendered, "{cell:>width$}  "),
            };
        }
        text.push_str(rendered.trim_end());
        text.push('\n');
    }
    text
}

fn cells(row: &Row) -> [String; HEADER.len()] {
    let verdict = &row.verdict;
    let ms = |share: f64| match row.suback.count() {
        0 => "-".to_owned(),
        _ => format!("{:.0}", row.suback.quantile(share) as f64 / 1e6),
    };
    [
        row.name.clone(),
        verdict.acknowledged.to_string(),
        verdict.delivered.to_string(),
        verdict.lost.to_string(),
        verdict.duplicated.to_string(),
        verdict.reordered.to_string(),
        verdict.owners.to_string(),
        row.unaccounted.to_string(),
        ms(0.99),
        ms(1.0),
        format!("{:.0}", row.took.as_secs_f64()),
        row.seed.to_string(),
        if row.is_good() { "kept".into() } else { "BROKEN".into() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_seen_in_the_table() {
        let mut row = Row { name: "one".into(), ..Row::default() };
        row.suback.record(5_000_000);
        assert!(row.is_good());
        let lost = Verdict { lost: 3, examples: vec!["s did not get 1".into()], ..Verdict::default() };
        let bad = Row { name: "two".into(), verdict: lost, unaccounted: 1, ..Row::default() };
        assert!(!bad.is_good());
        assert_eq!(bad.violations().len(), 2);
        let text = table(&[row, bad]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("kept") && lines[1].contains(" 5 "), "{text}");
        assert!(lines[2].ends_with("BROKEN"), "{text}");
    }
}
