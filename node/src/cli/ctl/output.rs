//! What goes to standard output: tables for people, JSON and YAML for programs. What is said besides goes to standard
//! error.

use std::io::{IsTerminal, Write, stdout};

use clap::ValueEnum;
use serde_json::Value;

use super::failure::Failure;
use super::table::Style;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    /// A table with more columns.
    Wide,
    Json,
    Yaml,
}

/// Whether colours and bars are wanted there.
pub(super) fn colours(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none()
}

impl Output {
    pub(super) fn is_table(self) -> bool {
        matches!(self, Output::Table | Output::Wide)
    }

    /// How tables are to look where standard output leads.
    pub(super) fn style(self) -> Style {
        let is_terminal = stdout().is_terminal();
        let size = is_terminal.then(|| rustix::termios::tcgetwinsize(stdout()).ok()).flatten();
        let width = size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
        Style {
            colours: colours(is_terminal),
            width: width.filter(|_| self == Output::Table),
            now_ms: crate::cluster::clock::wall_ms(),
            wide: self == Output::Wide,
        }
    }

    /// A document for programs, and for people who asked for it.
    pub(super) fn document(self, document: &Value) -> Result<String, Failure> {
        match self {
            Output::Yaml => yaml(document),
            Output::Json | Output::Table | Output::Wide => Ok(format!("{document:#}")),
        }
    }
}

/// A document as YAML, without a line break at its end.
pub(super) fn yaml(document: &Value) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(document);
    let text =
        text.map_err(|error| Failure::refused(format!("what was answered cannot be written as YAML: {error}")))?;
    Ok(text.trim_end().to_owned())
}

/// Prints to standard output; one that is closed, as by `head`, has had enough.
pub(super) fn put(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::refused(format!("cannot write to standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says something besides the result.
pub(super) fn note(text: &str) {
    eprintln!("fulmar ctl: {text}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_what_it_was() {
        let document = json!({
            "name": "hot", "on": "yes", "empty": "", "number": "12", "list": [1, { "a": null }], "deep": { "b": true },
            "sql": "a > 1\nand b", "float": 1.5, "none": [], "nothing": {},
        });
        let text = yaml(&document).expect("YAML");
        assert_eq!(super::super::documents::values(&text), Ok(vec![document]), "{text}");
        assert!(text.contains("name: hot\n") && !text.ends_with('\n'), "{text}");
    }
}
