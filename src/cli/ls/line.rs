//! One event on one line, as `ls` and `tail` print it.

use jiff::tz::TimeZone;

use crate::cli::{style, times};
use crate::event::{Data, Event, EventName, EventTime, NameMatch, TypeFilter, id_of, one_line};

/// How much of the data is shown, in characters.
const DATA_WIDTH: usize = 60;

/// How an event is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum LineFormat {
    /// The event's document.
    Json,
    /// Date and time, type, id, subject.
    Day,
    /// Like `Day`, with the data.
    Whole,
}

/// A stored event, which may not be readable.
pub(in crate::cli) struct LineEvent<'a> {
    name: &'a EventName,
    bytes: &'a [u8],
    event: Option<Event>,
}

impl<'a> LineEvent<'a> {
    pub(in crate::cli) fn new(name: &'a EventName, bytes: &'a [u8]) -> Self {
        Self { name, bytes, event: Event::parse(bytes, usize::MAX).ok() }
    }
}

/// Prints events.
pub(in crate::cli) struct LineFormatter {
    pub(in crate::cli) format: LineFormat,
    /// Applied to the type in the document: a name matches already, but may not hold the whole
    /// type.
    pub(in crate::cli) filter: TypeFilter,
    pub(in crate::cli) now: EventTime,
    pub(in crate::cli) zone: TimeZone,
}

impl LineFormatter {
    /// The line for an event; none if its type is not wanted. Types are padded to `width`.
    pub(in crate::cli) fn text(&self, found: &LineEvent<'_>, width: usize) -> Option<String> {
        let unsure = self.filter.matches_slug(found.name.slug()) == NameMatch::Unsure;
        if unsure && found.event.as_ref().is_some_and(|event| !self.filter.matches(event.type_())) {
            return None;
        }
        let time = times::clock_text(found.name.time(), self.now, &self.zone);
        Some(match (&found.event, self.format) {
            // Content that is not JSON would break the reader of the stream.
            (None, LineFormat::Json) if serde_json::from_slice::<serde::de::IgnoredAny>(found.bytes).is_err() => {
                return None;
            }
            (_, LineFormat::Json) => String::from_utf8_lossy(&one_line(found.bytes)).into_owned(),
            (None, _) => {
                format!("{time}  {:<width$}  {}  (cannot be read as an event)", found.name.slug(), id_of(found.name))
            }
            (Some(event), format) => human(&time, event, width, format),
        })
    }
}

fn human(time: &str, event: &Event, width: usize, format: LineFormat) -> String {
    let mut parts = vec![
        time.to_owned(),
        format!("{:<width$}", style::escape(event.type_())),
        style::escape(event.id()).into_owned(),
    ];
    parts.extend(event.subject().map(|subject| style::escape(subject).into_owned()));
    if format == LineFormat::Whole {
        parts.extend(shown_data(event.data()));
    }
    parts.join("  ").trim_end().to_owned()
}

/// The start of the data, as text.
fn shown_data(data: &Data) -> Option<String> {
    match data {
        Data::Absent => None,
        Data::Json(value) => Some(shorten(&String::from_utf8_lossy(&one_line(value.get().as_bytes())))),
        Data::Base64(text) => Some(format!("({} of binary data)", style::plural(text.len() as u64 / 4 * 3, "byte"))),
    }
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(DATA_WIDTH).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    style::escape(&short).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{HashSlot, Identity};

    fn text(type_: &str, data: Data, format: LineFormat, patterns: &[&str]) -> Option<String> {
        let event = Event::new("a", "//host", type_).subject("order/42").data(data).build().unwrap();
        let time = EventTime::from_rfc3339("2026-11-23T02:16:34Z").unwrap();
        let name = EventName::new(time, HashSlot::of(""), &Identity::named("//host", "a"), type_);
        let types: Vec<String> = patterns.iter().map(|&text| text.to_owned()).collect();
        let filter = TypeFilter::new(&types, &[]).unwrap();
        let line = LineFormatter { format, filter, now: time, zone: TimeZone::UTC };
        line.text(&LineEvent::new(&name, &event.to_json()), 16)
    }

    #[test]
    fn a_line_shows_the_essentials_escaped() {
        let data = || Data::json("{\"n\":\n\"\u{202e}x\"}").unwrap();
        assert_eq!(
            text("order.created", data(), LineFormat::Whole, &[]).unwrap(),
            "02:16:34  order.created     a  order/42  {\"n\": \"\\u{202e}x\"}"
        );
        assert_eq!(
            text("order.created", data(), LineFormat::Day, &[]).unwrap(),
            "02:16:34  order.created     a  order/42"
        );
        let json = text("order.created", data(), LineFormat::Json, &[]).unwrap();
        assert!(json.starts_with('{') && json.ends_with('}') && !json.contains('\n'), "{json}");
    }

    #[test]
    fn long_data_is_truncated_and_binary_data_is_counted() {
        let long = text("a", Data::text(&"x".repeat(200)), LineFormat::Whole, &[]).unwrap();
        assert!(long.ends_with("x…") && long.chars().count() < 110, "{long}");
        let binary = text("a", Data::binary(&[0; 30]), LineFormat::Whole, &[]).unwrap();
        assert!(binary.ends_with("(30 bytes of binary data)"), "{binary}");
    }

    #[test]
    fn the_document_decides_where_the_slug_is_unsure() {
        assert!(text("Order.Created", Data::Absent, LineFormat::Day, &["Order.*"]).is_some());
        assert!(text("Order.Created", Data::Absent, LineFormat::Day, &["order.*", "_rder.*"]).is_none());
    }
}
