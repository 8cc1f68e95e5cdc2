//! Bars for what takes long, on a terminal only.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::colours;

/// What is done, and what is left.
#[derive(Clone)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Of things that become fewer.
    pub(super) fn open(unit: &str, what: &str) -> Bar {
        let look = format!("{what}  {{bar:30}} {{pos}} of {{len}} {unit}  {{msg}}");
        Bar::new(&look)
    }

    /// Of bytes.
    pub(super) fn of_bytes(what: &str, bytes: u64) -> Bar {
        let bar = Bar::new(&format!("{what}  {{bar:30}} {{bytes}} of {{total_bytes}}  {{bytes_per_sec}}"));
        bar.0.set_length(bytes);
        bar
    }

    fn new(look: &str) -> Bar {
        let bar = match colours(stderr().is_terminal()) {
            true => ProgressBar::new(0),
            false => ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
        };
        if let Ok(style) = ProgressStyle::with_template(look) {
            bar.set_style(style);
        }
        Bar(bar)
    }

    /// So many of them are left, and this is how it is.
    pub(super) fn left(&self, left: u64, how: &str) {
        let most = self.0.length().unwrap_or_default().max(left);
        self.0.set_length(most);
        self.0.set_position(most - left);
        self.0.set_message(how.to_owned());
    }

    /// It will be about so many.
    pub(super) fn at_most(&self, bytes: u64) {
        self.0.set_length(bytes);
    }

    pub(super) fn at(&self, bytes: u64) {
        self.0.set_length(self.0.length().unwrap_or_default().max(bytes));
        self.0.set_position(bytes);
    }

    pub(super) fn close(self) {
        self.0.finish_and_clear();
    }
}
