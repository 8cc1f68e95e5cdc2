//! Documents as tables: columns as wide as they must be, and no wider than the terminal.

use serde_json::Value;

use super::kinds::{Column, Shape, member, word};

/// What a table is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) colours: bool,
    /// Columns of the terminal; `None`: as wide as it gets.
    pub(super) width: Option<usize>,
    /// Milliseconds since 1970.
    pub(super) now_ms: u64,
    /// Columns that most people do not need, too.
    pub(super) wide: bool,
}

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// A column gets no narrower than this to make room.
const CELL_MIN: usize = 8;

const GAP: usize = 2;

impl Style {
    /// Text in a colour, if there are colours.
    pub(super) fn paint(self, colour: &str, text: &str) -> String {
        if self.colours && !colour.is_empty() { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.paint(BOLD, text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint(GREEN, text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint(RED, text)
    }
}

/// How good what a word says is.
fn colour(word: &str) -> &'static str {
    match word.to_ascii_lowercase().as_str() {
        "online" | "up" | "true" | "leader" | "ready" | "active" | "success" | "delivered" | "connected" | "ok"
        | "yes" | "voter" => GREEN,
        "offline" | "disconnected" | "inactive" | "waiting" | "pending" | "learner" | "processing" | "initializing"
        | "stale" | "minor" | "warning" | "cleared" | "draining" => YELLOW,
        "false" | "down" | "frozen" | "fail" | "failed" | "timeout" | "abnormal" | "critical" | "major" | "raised"
        | "unreachable" | "error" | "refused" => RED,
        _ => "",
    }
}

/// What stands in a cell; `-` where there is nothing.
pub(super) fn cell(item: &Value, column: &Column, now_ms: u64) -> String {
    let Some(value) = member(item, column.member).filter(|value| !value.is_null()) else { return "-".to_owned() };
    let text = match value {
        Value::Array(list) if list.iter().all(|value| word(value).is_some()) => {
            list.iter().filter_map(word).collect::<Vec<_>>().join(",")
        }
        Value::Object(_) | Value::Array(_) => value.to_string(),
        simple => word(simple).unwrap_or_default(),
    };
    let text = match column.shape {
        Shape::Age => time(&text).map_or(text, |at_ms| ago(now_ms.saturating_sub(at_ms))),
        _ => text,
    };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Milliseconds since 1970 of a time as calls write it: in one of two forms, or as such milliseconds.
fn time(text: &str) -> Option<u64> {
    use fulmar_platform::dialect::time;
    time::parse_iso_ms(text)
        .or_else(|| time::parse_compact(text).map(|seconds| seconds * 1000))
        .or_else(|| text.parse().ok())
}

/// A time that has passed, in at most two units.
pub(super) fn ago(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes @ ..10) => format!("{minutes}m{}s", seconds % 60),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours @ ..10, minutes) => format!("{hours}h{}m", minutes % 60),
        (0, hours, _) => format!("{hours}h"),
        (days @ ..10, hours, _) => format!("{days}d{}h", hours % 24),
        (days, ..) => format!("{days}d"),
    }
}

/// A line of titles and a line for each item.
pub(super) fn table<'v>(items: impl IntoIterator<Item = &'v Value>, columns: &[Column], style: Style) -> String {
    let columns: Vec<&Column> = columns.iter().filter(|column| style.wide || !column.wide).collect();
    let rows = items.into_iter().map(|item| columns.iter().map(|column| cell(item, column, style.now_ms)).collect());
    let rows: Vec<Vec<String>> = rows.collect();
    lines(&columns, &rows, style).join("\n")
}

fn lines(columns: &[&Column], rows: &[Vec<String>], style: Style) -> Vec<String> {
    let titles: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    let widths = widths(&titles, rows, columns, style.width);
    let line = |cells: &[String], is_title: bool| {
        let mut line = String::new();
        for (index, ((cell, column), width)) in cells.iter().zip(columns).zip(&widths).enumerate() {
            let cell = shortened(cell, *width);
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let shown = match column.shape {
                _ if is_title => style.bold(&cell),
                Shape::State => style.paint(colour(&cell), &cell),
                _ => cell,
            };
            let last = index + 1 == cells.len();
            match column.shape {
                Shape::Number => line.push_str(&format!("{padding}{shown}")),
                _ if last => line.push_str(&shown),
                _ => line.push_str(&format!("{shown}{padding}")),
            }
            if !last {
                line.push_str(&" ".repeat(GAP));
            }
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(&titles, true)];
    lines.extend(rows.iter().map(|row| line(row, false)));
    lines
}

/// As wide as the widest cell; if that is too wide together, the widest column of words gives way.
fn widths(titles: &[String], rows: &[Vec<String>], columns: &[&Column], limit: Option<usize>) -> Vec<usize> {
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).chain(titles.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let mut widths: Vec<usize> = (0..columns.len()).map(widest).collect();
    let Some(limit) = limit else { return widths };
    let gaps = GAP * columns.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > limit {
        let gives = widths.iter_mut().zip(columns).filter(|(width, column)| {
            column.shape == Shape::Text && **width > CELL_MIN.max(column.title.chars().count())
        });
        let Some((width, _)) = gives.max_by_key(|(width, _)| **width) else { break };
        *width -= 1;
    }
    widths
}

/// Text that ends in a sign of omission if it does not fit.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds::{age, number, state, text};
    use super::*;

    const STYLE: Style = Style { colours: false, width: None, now_ms: 1_767_225_600_000, wide: false };

    const COLUMNS: &[Column] = &[
        text("DEVICE", "id"),
        state("STATUS", "status"),
        number("SESSIONS", "in.sessions"),
        text("NODE", "node").wide(),
        age("AGE", "at"),
        text("NOTE", "note"),
    ];

    fn items() -> Vec<Value> {
        vec![
            json!({ "id": "meter", "status": "ONLINE", "in": { "sessions": 12 }, "at": "20251231T235900Z", "note": "a\nb",
                    "node": "n" }),
            json!({ "id": "a-long-name-of-a-device", "status": "OFFLINE", "in": {}, "at": "2025-12-25T00:00:00.000Z",
                    "note": ["x", "y"] }),
        ]
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let wanted = "\
DEVICE                   STATUS   SESSIONS  AGE   NOTE
meter                    ONLINE         12  1m0s  a b
a-long-name-of-a-device  OFFLINE         -  7d0h  x,y";
        assert_eq!(table(&items(), COLUMNS, STYLE), wanted);
        let wide = table(&items(), COLUMNS, Style { wide: true, ..STYLE });
        assert!(wide.starts_with("DEVICE                   STATUS   SESSIONS  NODE  AGE   NOTE\n"), "{wide}");
        assert_eq!(table(&[], COLUMNS, STYLE), "DEVICE  STATUS  SESSIONS  AGE  NOTE");
    }

    #[test]
    fn a_narrow_terminal_shortens_the_widest_words() {
        let wanted = "\
DEVICE        STATUS   SESSIONS  AGE   NOTE
meter         ONLINE         12  1m0s  a b
a-long-name…  OFFLINE         -  7d0h  x,y";
        assert_eq!(table(&items(), COLUMNS, Style { width: Some(43), ..STYLE }), wanted);
        let narrow = table(&items(), COLUMNS, Style { width: Some(10), ..STYLE });
        assert!(narrow.contains("a-long-…  OFFLINE"), "{narrow}");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = table(&items(), COLUMNS, Style { colours: true, ..STYLE });
        assert!(coloured.contains("\x1b[32mONLINE\x1b[0m   ") && coloured.contains("\x1b[33mOFFLINE\x1b[0m"));
        let bare = [BOLD, GREEN, YELLOW, PLAIN].iter().fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(bare, table(&items(), COLUMNS, STYLE));
    }

    #[test]
    fn times_are_told_as_people_do() {
        for (ms, wanted) in [
            (0, "0s"),
            (59_999, "59s"),
            (61_000, "1m1s"),
            (600_000, "10m"),
            (3_660_000, "1h1m"),
            (36_000_000, "10h"),
            (90_000_000, "1d1h"),
            (864_000_000, "10d"),
        ] {
            assert_eq!(ago(ms), wanted);
        }
    }
}
