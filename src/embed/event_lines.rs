//! Events that differ only in their data: many of them are made at once.

#![cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the HTTP face takes lines"))]

use bytes::Bytes;

use super::NewEvent;
#[cfg(test)]
use crate::bus::emit::SegmentDraft;
#[cfg(test)]
use crate::clock::Clock;
use crate::event::{DataLines, EventTemplate, EventTime};

/// Events that differ only in their data, which is JSON on lines.
#[derive(Debug, Clone)]
pub(crate) struct EventLines {
    pub(super) template: EventTemplate,
    pub(super) lines: DataLines,
}

/// The most that the attributes of which a template knows nothing take in a document, in bytes: its id and
/// its time.
const ID_AND_TIME_BYTES: usize = 128;

impl EventLines {
    /// Events like `event`, one for each line that is not blank; none larger than `limit` bytes, and no more
    /// than `most`. None if that is not so, or one of them is not plain: they are looked at one by one then.
    pub fn check(event: &NewEvent, text: &Bytes, most: usize, limit: usize) -> Option<Self> {
        let event = event.plain("0", EventTime::MIN)?;
        let rest = event.to_json().len() + ID_AND_TIME_BYTES;
        let lines = DataLines::check(text, most, limit.checked_sub(rest)?)?;
        Some(Self { template: EventTemplate::new(&event), lines })
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// The documents that they become.
    #[cfg(test)]
    pub(crate) fn documents_for_tests(&self) -> Vec<Vec<u8>> {
        let clock = crate::clock::SystemClock;
        let mut segment = SegmentDraft::new(&clock);
        self.lines.iter().for_each(|line| {
            segment.add_line(&self.template, clock.now(), line, usize::MAX).unwrap();
        });
        segment.events().map(|(_, document)| document.to_vec()).collect()
    }

    /// How many bytes they take on the bus, about.
    pub(super) fn content_len(&self) -> usize {
        let each = self.template.content_len() + ID_AND_TIME_BYTES;
        self.lines.text_len() + self.lines.len() * each
    }
}
