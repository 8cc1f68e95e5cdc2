//! What is shown while the nodes run: on a terminal a table under the tour, redrawn each second; otherwise a line when
//! something changes.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stdout};

use tokio::time::Instant;

use super::probe::{Said, Sight};

/// Columns, if the terminal does not say.
const WIDTH: usize = 80;

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Where all this is shown.
pub(super) struct Screen {
    live: bool,
    colours: bool,
    /// Of the table that stands above the cursor.
    lines: usize,
    /// What was seen last: what differs from it is told.
    before: Vec<Known>,
    /// When each process that we started has ended.
    ended: BTreeMap<usize, Instant>,
    leader: Option<(usize, u64)>,
}

/// What is told about when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Ready,
    /// Neither: it starts, leaves, is frozen or does not answer.
    Between,
    Gone,
}

impl Screen {
    /// A table if standard output is a terminal.
    pub(super) fn open() -> Screen {
        Screen { live: stdout().is_terminal(), colours: std::env::var_os("NO_COLOR").is_none(), ..Screen::plain() }
    }

    /// Lines only.
    pub(super) fn plain() -> Screen {
        Screen { live: false, colours: false, lines: 0, before: Vec::new(), ended: BTreeMap::new(), leader: None }
    }

    /// The process of a node has ended.
    pub(super) fn note_end(&mut self, index: usize) {
        self.ended.insert(index, Instant::now());
        if let Some(before) = self.before.get_mut(index) {
            *before = Known::Gone;
        }
    }

    /// Shows what the nodes said after `began`; `processes`: those that we started and that run.
    pub(super) fn show(&mut self, began: Instant, sights: &[Sight], processes: &[Option<u32>]) {
        for change in self.changes(began, sights) {
            self.say(&change);
        }
        if self.live {
            let (width, height) = size();
            let mut table = table(sights, processes, width, self.colours);
            // What does not fit could not be drawn over.
            table.truncate(height.saturating_sub(1));
            let mut text = self.up();
            for line in &table {
                text.push_str(&format!("{line}\x1b[K\n"));
            }
            text.push_str("\x1b[J");
            self.lines = table.len();
            put(&text);
        }
    }

    /// Says something that stays.
    pub(super) fn say(&mut self, text: &str) {
        let up = self.up();
        let clear = if self.live { "\x1b[J" } else { "" };
        self.lines = 0;
        put(&format!("{up}{clear}{text}\n"));
    }

    /// Takes the table away and says something in its place.
    pub(super) fn close(&mut self, text: &str) {
        self.say(text);
        self.live = false;
    }

    /// Brings the cursor to the first line of the table.
    fn up(&self) -> String {
        if self.lines == 0 { String::new() } else { format!("\r\x1b[{}A", self.lines) }
    }

    fn changes(&mut self, began: Instant, sights: &[Sight]) -> Vec<String> {
        let ended = &self.ended;
        let known = |(index, sight): (usize, &Sight)| match sight {
            // It was asked before its end.
            _ if ended.get(&index).is_some_and(|end| began <= *end) => Known::Between,
            Sight::Here(said) if said.state == "ready" => Known::Ready,
            Sight::Here(_) | Sight::Silent => Known::Between,
            Sight::Gone => Known::Gone,
        };
        let now: Vec<Known> = sights.iter().enumerate().map(known).collect();
        let mut changes = Vec::new();
        // An end is told by who waits for the process; here it is told that a node is back.
        for (index, (before, now)) in self.before.iter_mut().zip(&now).enumerate() {
            if *before == Known::Gone && *now == Known::Ready {
                changes.push(format!("node {index} is back"));
            }
            if *now != Known::Between {
                *before = *now;
            }
        }
        if self.before.is_empty() {
            self.before = now;
        }
        let leads = |(index, sight): (usize, &Sight)| match sight {
            Sight::Here(said) if said.leads => Some((index, said.term)),
            _ => None,
        };
        let leader = sights.iter().enumerate().filter_map(leads).max_by_key(|(_, term)| *term);
        if let Some((index, term)) = leader
            && self.leader != leader
        {
            // The table says it from the beginning.
            if sights.len() > 1 && !(self.live && self.leader.is_none()) {
                changes.push(format!("node {index} leads in term {term}"));
            }
            self.leader = leader;
        }
        changes
    }
}

/// Nothing can be said where standard output is closed; the nodes go on.
fn put(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(stdout()).ok();
    let (columns, lines) = size.map_or((0, 0), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    (if columns == 0 { WIDTH } else { columns }, if lines == 0 { 24 } else { lines })
}

/// One line a node, under a heading, and one for all of them. No line is longer than `width`.
fn table(sights: &[Sight], processes: &[Option<u32>], width: usize, colours: bool) -> Vec<String> {
    let paint = |text: String, colour: &str| if colours { format!("{colour}{text}{PLAIN}") } else { text };
    let heading = "node      pid  role     state      sessions      in/s     out/s   term";
    let mut lines = vec![String::new(), paint(cut(heading, width), DIM)];
    let all: Vec<&Said> = sights.iter().filter_map(here).collect();
    for (index, sight) in sights.iter().enumerate() {
        let process = processes.get(index).copied().flatten();
        let (state, colour) = match (sight, process) {
            (Sight::Here(said), _) if said.state == "ready" => ("ready", GREEN),
            (Sight::Here(said), _) => (said.state.as_str(), YELLOW),
            (Sight::Silent, _) => ("silent", YELLOW),
            (Sight::Gone, Some(_)) => ("starting", YELLOW),
            (Sight::Gone, None) => ("down", RED),
        };
        let pid = match (process, sight) {
            (Some(pid), _) => pid.to_string(),
            (None, Sight::Here(_) | Sight::Silent) => "by hand".to_owned(),
            (None, Sight::Gone) => "-".to_owned(),
        };
        let row = match here(sight) {
            Some(said) => {
                let role = if said.leads {
                    "leader"
                } else if said.votes {
                    "voter"
                } else {
                    "learner"
                };
                let (received, sent) = (rate(said.received), rate(said.sent));
                format!(
                    "{index:>4}  {pid:>7}  {role:<7}  {state:<9}  {:>8}  {received:>8}  {sent:>8}  {:>5}",
                    said.sessions, said.term
                )
            }
            None => format!("{index:>4}  {pid:>7}  {:<7}  {state:<9}", "-"),
        };
        let row = cut(&row, width);
        lines.push(if colours { row.replacen(state, &format!("{colour}{state}{PLAIN}"), 1) } else { row });
    }
    let sum = |of: fn(&Said) -> f64| all.iter().map(|said| of(said)).sum::<f64>();
    let sessions: u64 = all.iter().map(|said| said.sessions).sum();
    // It is replicated: whoever is ahead knows best.
    let queued = all.iter().map(|said| said.queued).max().unwrap_or_default();
    let (received, sent) = (rate(sum(|said| said.received)), rate(sum(|said| said.sent)));
    let total =
        format!(" all  {:>7}  {:<18}  {sessions:>8}  {received:>8}  {sent:>8}", "", format!("{queued} in queues"));
    lines.push(paint(cut(&total, width), BOLD));
    lines
}

fn here(sight: &Sight) -> Option<&Said> {
    match sight {
        Sight::Here(said) => Some(said),
        Sight::Gone | Sight::Silent => None,
    }
}

/// Rounded, short enough for its column.
fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 9_999_500.0 => format!("{:.0}M", rate / 1e6),
        rate if rate >= 99_999.5 => format!("{:.0}k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said(state: &str, leads: bool, term: u64) -> Sight {
        Sight::Here(Said {
            state: state.to_owned(),
            leads,
            votes: true,
            term,
            sessions: 12,
            received: 1_234.4,
            sent: 250_000.0,
            queued: 3,
        })
    }

    #[test]
    fn a_table_has_a_line_for_each_node_and_fits_a_narrow_terminal() {
        let sights = [said("ready", true, 4), Sight::Silent, Sight::Gone, said("frozen", false, 4)];
        let processes = [Some(4_194_304), Some(17), None, None];
        let wanted = [
            "",
            "node      pid  role     state      sessions      in/s     out/s   term",
            "   0  4194304  leader   ready            12      1234      250k      4",
            "   1       17  -        silent   ",
            "   2        -  -        down     ",
            "   3  by hand  voter    frozen           12      1234      250k      4",
            " all           3 in queues               24      2469      500k",
        ];
        assert_eq!(table(&sights, &processes, 80, false), wanted);
        for width in [10, 40, 80] {
            let lines = table(&sights, &processes, width, false);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:#?}");
        }
        let colours = table(&sights, &processes, 80, true);
        assert!(colours[2].contains("\x1b[32mready\x1b[0m ") && colours[4].contains("\x1b[31mdown\x1b[0m"));
    }

    #[test]
    fn what_changes_is_told_once() {
        let (mut screen, now) = (Screen::plain(), Instant::now());
        let mut told = |sights: &[Sight]| screen.changes(now, sights);
        assert_eq!(told(&[said("ready", true, 1), said("ready", false, 1)]), ["node 0 leads in term 1"]);
        assert!(told(&[said("ready", true, 1), said("ready", false, 1)]).is_empty());
        assert!(told(&[Sight::Gone, said("ready", false, 1)]).is_empty(), "its end is told by its process");
        assert_eq!(told(&[Sight::Gone, said("ready", true, 2)]), ["node 1 leads in term 2"]);
        assert!(told(&[said("starting", false, 0), said("ready", true, 2)]).is_empty());
        assert_eq!(told(&[said("ready", false, 2), said("ready", true, 2)]), ["node 0 is back"]);
        assert!(told(&[said("ready", true, 1), said("ready", true, 2)]).is_empty(), "an older term leads nobody");
        let mut alone = Screen::plain();
        assert!(alone.changes(now, &[said("ready", true, 9)]).is_empty());
        alone.note_end(0);
        let end = alone.ended[&0];
        assert!(alone.changes(now, &[said("ready", true, 9)]).is_empty(), "it was asked before its end");
        let later = end + Duration::from_secs(1);
        assert_eq!(alone.changes(later, &[said("ready", true, 9)]), ["node 0 is back"], "it was never seen gone");
    }
}
