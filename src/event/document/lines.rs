//! Data that comes in lines: each is the data of one event.

use std::ops::Range;

use bytes::Bytes;

use super::readable::Readable;
use super::write::{has_breaks, without_mark};

/// Data on one line: JSON that [`super::Data::check_readable`] lets pass.
#[derive(Debug, Clone, Copy)]
pub struct DataLine<'a>(&'a [u8]);

impl<'a> DataLine<'a> {
    /// None if it is not such JSON, or has line breaks; space around it is left out.
    pub fn check(line: &'a [u8]) -> Option<Self> {
        let line = trim(line);
        (!has_breaks(line) && serde_json::from_slice::<Readable>(line).is_ok()).then_some(Self(line))
    }

    /// The JSON.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Without the space around it that JSON allows (RFC 8259 §2).
fn trim(line: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let begin = line.iter().position(|byte| !is_space(byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| !is_space(byte)).map_or(begin, |last| last + 1);
    &line[begin..end]
}

/// Lines that all hold data; those that are blank are left out.
#[derive(Debug, Clone)]
pub struct DataLines {
    text: Bytes,
    lines: Vec<Range<usize>>,
}

impl DataLines {
    /// None if one of the lines is not the data of an event, or is longer than `most_bytes`, or if they are
    /// more than `most`.
    pub fn check(text: &Bytes, most: usize, most_bytes: usize) -> Option<Self> {
        let body = without_mark(text);
        let mut begin = text.len() - body.len();
        let mut lines = Vec::new();
        for line in body.split(|byte| *byte == b'\n') {
            let range = begin..begin + line.len();
            begin = range.end + 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            if line.len() > most_bytes || lines.len() == most {
                return None;
            }
            DataLine::check(line)?;
            lines.push(range);
        }
        Some(Self { text: text.clone(), lines })
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether all are blank.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// How many bytes they take.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = DataLine<'_>> {
        self.lines.iter().map(|range| DataLine(trim(&self.text[range.clone()])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_data_are_those_that_are_not_blank() {
        let read = |text: &'static [u8], most_bytes| {
            let lines = DataLines::check(&Bytes::from_static(text), 3, most_bytes)?;
            assert_eq!((lines.len(), lines.is_empty()), (lines.iter().count(), lines.iter().next().is_none()));
            Some(lines.iter().map(|line| String::from_utf8(line.bytes().to_vec()).unwrap()).collect::<Vec<_>>())
        };
        let some = |lines: &[&str]| Some(lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(b"", 9), some(&[]));
        assert_eq!(read(b" \r\n\n", 9), some(&[]));
        assert_eq!(read(b"\xef\xbb\xbf1\n {\"a\": 1}\r\n\n\"\xc3\xa9\"", 11), some(&["1", "{\"a\": 1}", "\"\u{e9}\""]));
        for bad in ["{", "1 2", "[1\r]", "1e999", "\"\\ud800\"", "1\n\u{feff}2", "\u{c}1", "1\u{c}", "1\n2\n3\n4"] {
            assert_eq!(read(bad.as_bytes(), 99), None, "{bad}");
        }
        assert_eq!(read(b"\"\xff\"", 9), None);
        assert_eq!((read(b"123\n1", 3), read(b"1\n1234", 3)), (some(&["123", "1"]), None));
    }
}
