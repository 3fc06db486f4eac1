//! Text for a terminal: escaped events, readable numbers, aligned columns.

use std::borrow::Cow;
use std::fmt::{self, Write};

use anstyle::Style;
use indicatif::HumanCount;

use super::colour::Colours;
use super::cost::dollars;
pub use crate::config::nearest::{did_you_mean, nearest};
use crate::event::Filter;
use crate::store::Requests;

/// The space between two columns.
const GAP: &str = "  ";

/// One line of text for a terminal: control characters and bidirectional overrides become `\n`,
/// `\x1b`, `\u{202e}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_where(text, is_unsafe)
}

/// As [`escape`], but keeps line feeds and tabs: for text of several lines, such as a stored
/// document.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_where(text, |c| is_unsafe(c) && !matches!(c, '\n' | '\t'))
}

/// Whether a terminal may act on `c` instead of showing it: C0, DEL, C1 and the bidirectional
/// controls of Unicode Standard Annex 9 that can make a line read as another.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape_where(text: &str, is_bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            _ if !is_bad(c) => safe.push(c),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            // Writing to a string cannot fail.
            '\0'..='\x7f' => drop(write!(safe, "\\x{:02x}", u32::from(c))),
            _ => drop(write!(safe, "\\u{{{:x}}}", u32::from(c))),
        }
    }
    Cow::Owned(safe)
}

/// The number of requests of each kind, and about what they cost.
pub fn cost(requests: Requests) -> String {
    let Requests { puts, gets, lists, deletes } = requests;
    let [puts, gets, lists, deletes] = [puts, gets, lists, deletes].map(thousands);
    format!("{puts} put, {gets} get, {lists} list, {deletes} delete, about {}", dollar_text(dollars(requests)))
}

/// About what a million events cost, if so many have cost this.
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
pub fn dollars_of(requests: Requests, events: u64) -> String {
    dollar_text(dollars(requests) * 1e6 / events as f64)
}

/// An amount in dollars: in cents, or with two significant digits where it is less.
fn dollar_text(amount: f64) -> String {
    match amount {
        0.095.. => format!("${amount:.2}"),
        0.00095.. => format!("${amount:.4}"),
        _ => format!("${amount:.6}"),
    }
}

/// A number with a comma between thousands.
pub fn thousands(n: u64) -> String {
    HumanCount(n).to_string()
}

/// A word quoted for a POSIX shell.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A filter in words.
pub fn wanted(filter: &Filter) -> String {
    let types = filter.types.types_text();
    let mut text = if types.is_empty() { "every type".to_owned() } else { format!("'{}'", types.join(",")) };
    if !filter.types.not_text().is_empty() {
        text = format!("{text} but not '{}'", filter.types.not_text().join(","));
    }
    if let Some(condition) = &filter.condition {
        text = format!("{text} where {}", condition.as_str());
    }
    text
}

/// `1 event`, `12,431 events`, `2 retries`, `3 matches`.
pub fn plural(n: u64, noun: &str) -> String {
    let number = thousands(n);
    if n == 1 {
        return format!("{number} {noun}");
    }
    let is_vowel = |c: char| "aeiou".contains(c);
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(is_vowel) => format!("{number} {stem}ies"),
        _ if ["s", "x", "ch", "sh"].iter().any(|end| noun.ends_with(end)) => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

/// The alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Where there are colours, the one for a cell's text.
type Paint = (Colours, fn(&str) -> Style);

/// A column of a [`Table`]: its header and alignment.
#[derive(Debug, Clone)]
pub struct Column {
    header: &'static str,
    side: Side,
    min_width: usize,
    paint: Option<Paint>,
}

impl Column {
    /// A column of words, aligned left.
    pub fn left(header: &'static str) -> Self {
        Self { header, side: Side::Left, min_width: 0, paint: None }
    }

    /// A column of numbers, aligned right.
    pub fn right(header: &'static str) -> Self {
        Self { header, side: Side::Right, min_width: 0, paint: None }
    }

    /// Gives each cell the colour that is for its text.
    #[must_use]
    pub(super) fn painted(self, colours: Colours, style_of: fn(&str) -> Style) -> Self {
        Self { paint: Some((colours, style_of)), ..self }
    }

    /// Sets a least width, so that a table printed again does not change its layout.
    #[must_use]
    pub fn at_least(self, width: usize) -> Self {
        Self { min_width: width, ..self }
    }
}

/// A table as text: a header row, columns as wide as their widest cell, two spaces between. Cells
/// are escaped.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty; cells without a column are dropped.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| escape(cell.as_ref()).into_owned()).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// Whether the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn width(&self, place: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[place].chars().count());
        let column = &self.columns[place];
        cells.max().unwrap_or(0).max(column.header.chars().count()).max(column.min_width)
    }
}

impl fmt::Display for Table {
    /// Writes the header and all rows, each ended by a line feed, without trailing spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.columns.len()).map(|place| self.width(place)).collect();
        let header: Vec<String> = self.columns.iter().map(|column| column.header.to_owned()).collect();
        for (at, row) in std::iter::once(&header).chain(&self.rows).enumerate() {
            let cells = self.columns.iter().zip(row).zip(&widths).map(|((column, cell), &width)| {
                let space = " ".repeat(width.saturating_sub(cell.chars().count()));
                let cell = match column.paint.filter(|_| at > 0) {
                    Some((colours, style_of)) => colours.paint(style_of(cell), cell),
                    None => cell.clone(),
                };
                match column.side {
                    Side::Left => format!("{cell}{space}"),
                    Side::Right => format!("{space}{cell}"),
                }
            });
            let line = cells.collect::<Vec<_>>().join(GAP);
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_escaped() {
        let table = [
            ("order.created", "order.created"),
            ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
            ("\x1b[2Jx", "\\x1b[2Jx"),
            ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
            ("\0\x7f", "\\x00\\x7f"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("user\u{202e}txt.exe", "user\\u{202e}txt.exe"),
            ("\u{2066}\u{2069}", "\\u{2066}\\u{2069}"),
        ];
        for (raw, safe) in table {
            assert_eq!(escape(raw), safe);
        }
        assert_eq!(escape_lines("{\n\t\"a\": \"\x1b\"\r\n}"), "{\n\t\"a\": \"\\x1b\"\\r\n}");
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(escape("order.created"), Cow::Borrowed(_)));
    }

    #[test]
    fn numbers_can_be_read() {
        let table = [
            (0, "0"),
            (7, "7"),
            (999, "999"),
            (1_000, "1,000"),
            (12_431, "12,431"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ];
        for (n, text) in table {
            assert_eq!(thousands(n), text);
        }
        let table = [
            (0, "event", "0 events"),
            (1, "event", "1 event"),
            (12_431, "event", "12,431 events"),
            (2, "retry", "2 retries"),
            (2, "key", "2 keys"),
            (2, "match", "2 matches"),
            (1, "match", "1 match"),
        ];
        for (n, noun, text) in table {
            assert_eq!(plural(n, noun), text);
        }
    }

    #[test]
    fn columns_are_aligned_as_in_status() {
        let columns = [Column::left("GROUP").at_least(7), Column::left("STATE")];
        let numbers = ["LAG", "OLDEST", "RETRY", "DEAD", "RATE"].map(Column::right);
        let mut table = Table::new(columns.into_iter().chain(numbers).chain([Column::left("OWNER")]));
        assert!(table.is_empty());
        table.row(["audit", "ok", "0", "-", "0", "0", "3.1/s", "db1:4121"]);
        table.row(["loader", "paused", "812", "41m10s", "0", "0", "-", "- (db restore)"]);
        table.row(["mail", "failing", "39", "6m02s", "3", "2", "0.2/s", "web2:977"]);
        let expected = "\
GROUP    STATE    LAG  OLDEST  RETRY  DEAD   RATE  OWNER
audit    ok         0       -      0     0  3.1/s  db1:4121
loader   paused   812  41m10s      0     0      -  - (db restore)
mail     failing   39   6m02s      3     2  0.2/s  web2:977
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn rows_of_any_length_and_content_are_accepted() {
        let mut table = Table::new([Column::left("A"), Column::right("B")]);
        table.row(["x\x1b"]);
        table.row(["é", "1", "too many"]);
        assert_eq!(table.to_string(), "A      B\nx\\x1b\né      1\n");
        assert!(!table.is_empty());
    }

    proptest! {
        #[test]
        fn escaped_text_is_safe_and_loses_nothing_printable(text in any::<String>()) {
            let safe = escape(&text);
            prop_assert!(!safe.contains(is_unsafe));
            prop_assert!(!escape_lines(&text).contains(|c: char| is_unsafe(c) && c != '\n' && c != '\t'));
            let kept: String = text.chars().filter(|c| !is_unsafe(*c)).collect();
            prop_assert!(safe.len() >= kept.len());
        }
    }
}
