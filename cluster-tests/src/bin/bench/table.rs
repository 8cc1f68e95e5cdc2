//! The tables that `bench compare` and runs of one broker end with.

use std::fmt::Write;

use crate::report::Report;

/// A figure of a report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value {
    pub(crate) name: &'static str,
    pub(crate) read: fn(&Report) -> Option<f64>,
}

/// What is promised of a figure, if anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    pub(crate) value: Value,
    /// Highest ratio to mosquitto: the design's, and the one below which the milestone is not reached.
    pub(crate) goal: Option<f64>,
    pub(crate) floor: Option<f64>,
    /// Bounds of Fulmar's figure itself.
    pub(crate) most: Option<f64>,
    pub(crate) least: Option<f64>,
}

impl Promise {
    pub(crate) const fn of(value: Value) -> Promise {
        Promise { value, goal: None, floor: None, most: None, least: None }
    }

    fn text(&self) -> String {
        let parts = [
            self.goal.map(|ratio| format!("ratio <= {ratio}")),
            self.floor.map(|ratio| format!("floor {ratio}")),
            self.most.map(|bound| format!("<= {}", figure(bound))),
            self.least.map(|bound| format!(">= {}", figure(bound))),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Empty where nothing is promised or nothing was measured.
    fn verdict(&self, fulmar: Option<f64>, ratio: Option<f64>) -> &'static str {
        let below = |bound: Option<f64>, value: Option<f64>| bound.zip(value).map(|(bound, value)| value <= bound);
        let above = self.least.zip(fulmar).map(|(bound, value)| value >= bound);
        let goal = [below(self.goal, ratio), below(self.most, fulmar), above];
        match (goal.iter().flatten().all(|kept| *kept), below(self.floor, ratio)) {
            _ if goal.iter().flatten().count() == 0 => "",
            (true, _) => "reached",
            (false, Some(true)) => "above the floor",
            (false, _) => "NOT REACHED",
        }
    }
}

/// A row: the medians of both brokers.
pub(crate) struct Line {
    pub(crate) scenario: &'static str,
    pub(crate) promise: Promise,
    pub(crate) fulmar: Option<f64>,
    pub(crate) mosquitto: Option<f64>,
}

pub(crate) fn render(lines: &[Line], rounds: u32) -> String {
    let header = ["scenario", "figure", "fulmar", "mosquitto", "ratio", "promised", ""].map(str::to_owned);
    let mut rows = vec![header];
    let mut last = "";
    for line in lines {
        let ratio = line.fulmar.zip(line.mosquitto).filter(|(_, base)| *base > 0.0).map(|(value, base)| value / base);
        let scenario = if line.scenario == last { "" } else { line.scenario };
        last = line.scenario;
        rows.push([
            scenario.to_owned(),
            line.promise.value.name.to_owned(),
            shown(line.fulmar),
            shown(line.mosquitto),
            ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
            line.promise.text(),
            line.promise.verdict(line.fulmar, ratio).to_owned(),
        ]);
    }
    let widths: [usize; 7] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = format!("medians of {rounds} interleaved rounds, a fresh process for each run\n");
    for row in rows {
        let mut rendered = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = match column {
                2..=4 => write!(rendered, "{cell:>width$}  "),
                _ => write!(rendered, "{cell:<width$}  "),
            };
        }
        text.push_str(rendered.trim_end());
        text.push('\n');
    }
    text
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some((upper + values[values.len() / 2 - 1]) / 2.0) }
}

/// A row of the table of one broker: a figure's name, its values in one or more runs, and what is promised.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    name: &'static str,
    values: Vec<String>,
    promised: String,
    verdict: &'static str,
}

impl Row {
    pub(crate) fn of(name: &'static str, values: &[String]) -> Row {
        Row { name, values: values.to_vec(), ..Row::default() }
    }

    pub(crate) fn promised(self, promised: String, reached: bool) -> Row {
        Row { promised, verdict: if reached { "reached" } else { "NOT REACHED" }, ..self }
    }
}

/// The table of one broker.
pub(crate) fn plain(rows: &[Row]) -> String {
    let columns = rows.iter().map(|row| row.values.len()).max().unwrap_or(0);
    let width = |text: &dyn Fn(&Row) -> usize| rows.iter().map(text).max().unwrap_or(0);
    let name = width(&|row| row.name.chars().count());
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(&|row| row.values.get(column).map_or(0, |value| value.chars().count())))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<name$}  ", row.name);
        for (column, width) in widths.iter().enumerate() {
            let value = row.values.get(column).map_or("", String::as_str);
            // Writing to a String cannot fail.
            let _ = write!(line, "{value:>width$}  ");
        }
        let _ = write!(line, "{}  {}", row.promised, row.verdict);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), figure)
}

/// Enough digits to compare, no more.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{value:.0}");
            let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
            let mut grouped = String::from(sign);
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Promise = Promise {
        goal: Some(0.2),
        floor: Some(0.5),
        ..Promise::of(Value { name: "CPU", read: |report| report.broker_cpu_us_per_delivered })
    };

    #[test]
    fn medians_and_figures() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        let cases = [(0.0, "0"), (0.123, "0.12"), (12.34, "12.3"), (999.6, "1,000"), (1_234_567.0, "1,234,567")];
        for (value, text) in cases {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn rows_of_one_broker() {
        let rows =
            [Row::of("", &["fast".into()]), Row::of("rate", &["12".into(), "6".into()]).promised(">= 10".into(), true)];
        assert_eq!(plain(&rows), "      fast\nrate    12  6  >= 10  reached\n");
    }

    #[test]
    fn verdicts() {
        for (ratio, verdict) in [(0.1, "reached"), (0.2, "reached"), (0.4, "above the floor"), (0.6, "NOT REACHED")] {
            assert_eq!(PROMISE.verdict(Some(1.0), Some(ratio)), verdict);
        }
        assert_eq!(PROMISE.verdict(Some(1.0), None), "");
        let least = Promise { least: Some(10.0), ..Promise::of(PROMISE.value) };
        assert_eq!(least.verdict(Some(9.0), None), "NOT REACHED");
        assert_eq!(Promise::of(PROMISE.value).verdict(Some(9.0), Some(2.0)), "");
        let text = render(&[Line { scenario: "s", promise: PROMISE, fulmar: Some(1.0), mosquitto: Some(4.0) }], 3);
        assert!(text.contains("0.25") && text.contains("above the floor"), "{text}");
    }
}
