//! The text that Prometheus reads.

use std::borrow::Cow;
use std::fmt::Write;

use super::{Durations, Metrics, Snapshot};

/// What a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    /// It only grows; its samples are called `_total`.
    Counter,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        }
    }
}

/// Labels of one value: names, and values from closed lists or of the configuration.
pub type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// A figure that is read when it is asked for.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Without prefix and `_total`; one that begins with `process_` stays as it is.
    pub name: &'static str,
    /// Without a full stop.
    pub help: &'static str,
    pub kind: Kind,
    pub values: Vec<(Labels, f64)>,
}

/// In which form figures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Form {
    /// What is to be written for whoever takes this (`Accept` of HTTP).
    #[must_use]
    pub fn asked(accept: &str) -> Form {
        if accept.contains("application/openmetrics-text") { Form::OpenMetrics } else { Form::Prometheus }
    }

    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Reading {
    /// A gauge.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str, value: u64) -> Reading {
        Reading { name, help, kind: Kind::Gauge, values: vec![(Vec::new(), value as f64)] }
    }

    #[must_use]
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Reading {
        Reading { kind: Kind::Counter, ..Reading::new(name, help, value) }
    }

    /// A gauge in seconds, given in milliseconds.
    #[must_use]
    pub fn seconds(name: &'static str, help: &'static str, ms: u64) -> Reading {
        Reading { name, help, kind: Kind::Gauge, values: vec![(Vec::new(), ms as f64 / 1e3)] }
    }

    /// A figure for each value of a label.
    #[must_use]
    pub fn by(
        label: &'static str,
        (name, kind, help): (&'static str, Kind, &'static str),
        values: impl IntoIterator<Item = (impl Into<Cow<'static, str>>, u64)>,
    ) -> Reading {
        let values = values.into_iter().map(|(of, value)| (vec![(label, of.into())], value as f64)).collect();
        Reading { name, help, kind, values }
    }
}

impl Metrics {
    /// The counters, figures that are read at this moment, and how long things took, as text.
    #[must_use]
    pub fn render(&self, form: Form, now: &[Reading], took: &[(&str, &str, &Durations)]) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode_registry(&mut text, &self.registry);
        for reading in now {
            let _ = write_reading(&mut text, reading);
        }
        for (name, help, durations) in took {
            let _ = write_histogram(&mut text, name, help, &durations.snapshot());
        }
        match form {
            Form::Prometheus => classic(&text),
            Form::OpenMetrics => text + "# EOF\n",
        }
    }
}

fn write_reading(text: &mut String, reading: &Reading) -> std::fmt::Result {
    let Reading { name, help, kind, values } = reading;
    let prefix = if name.starts_with("process_") { "" } else { "fulmar_" };
    let suffix = if *kind == Kind::Counter { "_total" } else { "" };
    writeln!(text, "# HELP {prefix}{name} {help}.\n# TYPE {prefix}{name} {}", kind.as_str())?;
    for (labels, value) in values {
        write!(text, "{prefix}{name}{suffix}")?;
        for (at, (label, of)) in labels.iter().enumerate() {
            // Names of listeners and nodes are checked where they are read: nothing here need be escaped but these.
            let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(text, "{}{label}=\"{of}\"", if at == 0 { '{' } else { ',' })?;
        }
        let end = if labels.is_empty() { "" } else { "}" };
        if value.is_infinite() {
            writeln!(text, "{end} +Inf")?;
        } else {
            writeln!(text, "{end} {value}")?;
        }
    }
    Ok(())
}

fn write_histogram(text: &mut String, name: &str, help: &str, snapshot: &Snapshot) -> std::fmt::Result {
    writeln!(text, "# HELP fulmar_{name} {help}.\n# TYPE fulmar_{name} histogram")?;
    writeln!(text, "fulmar_{name}_sum {}\nfulmar_{name}_count {}", snapshot.sum_s, snapshot.count)?;
    let mut below = 0;
    for (end, count) in &snapshot.buckets {
        below += count;
        if *end == f64::MAX {
            writeln!(text, "fulmar_{name}_bucket{{le=\"+Inf\"}} {below}")?;
        } else {
            writeln!(text, "fulmar_{name}_bucket{{le=\"{end}\"}} {below}")?;
        }
    }
    Ok(())
}

/// OpenMetrics as Prometheus has written it before: there a counter is called as its samples are.
fn classic(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if line.starts_with("# HELP ") {
            // Whether it is a counter is said by the line behind it.
            help = Some(line);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, said)) = help.take().and_then(|help| help.strip_prefix("# HELP ")?.split_once(' ')) {
                written.push_str(&format!("# HELP {name}{suffix} {said}\n"));
            }
            written.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with("# UNIT ") {
            written.push_str(line);
            written.push('\n');
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_counters_as_their_readers_expect() {
        let metrics = Metrics::default();
        metrics.connects.inc();
        let by = Reading::by("why", ("lost", Kind::Counter, "Losses"), [("a\"b", 2)]);
        let readings = [by, Reading::seconds("age_seconds", "Age", 1_500)];
        let durations = Durations::of_answers();
        durations.note(std::time::Duration::from_millis(3));
        let took = [("wait_seconds", "Waits", &durations)];
        let open = metrics.render(Form::OpenMetrics, &readings, &took);
        for line in [
            "# TYPE fulmar_connects counter",
            "fulmar_connects_total 1",
            "# TYPE fulmar_lost counter",
            "fulmar_lost_total{why=\"a\\\"b\"} 2",
            "fulmar_age_seconds 1.5",
            "fulmar_wait_seconds_bucket{le=\"0.005\"} 1",
            "fulmar_wait_seconds_bucket{le=\"+Inf\"} 1",
            "fulmar_wait_seconds_sum 0.003",
        ] {
            assert!(open.lines().any(|said| said == line), "{line} is not in\n{open}");
        }
        assert!(open.ends_with("# EOF\n"));
        let text = metrics.render(Form::Prometheus, &readings, &took);
        for line in
            ["# TYPE fulmar_connects_total counter", "# HELP fulmar_lost_total Losses.", "fulmar_connects_total 1"]
        {
            assert!(text.lines().any(|said| said == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("# EOF"));
        assert_eq!(Form::asked("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), Form::OpenMetrics);
        assert_eq!(Form::asked("*/*"), Form::Prometheus);
    }
}
