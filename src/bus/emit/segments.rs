//! Emit in segments: the same put, check and acknowledgement, for many events in one object.

use bytes::Bytes;

use super::draft::SegmentDraft;
use super::notes::Note;
use super::{Emitter, refuse_endless_puts};
use crate::bus::frontier;
use crate::event::EventTime;
use crate::store::{AlwaysOpen, StoreResult};

/// A segment that was put.
struct PutSegment {
    key: String,
    /// The time of its first event.
    first: EventTime,
}

impl Emitter {
    /// Puts segments and acknowledges all of their events: after `Ok` every event is safe. Returns
    /// the time of the first event of each, from which its names follow. The segments become visible
    /// side by side, unless an event has an ordering key: then each is safe before the next is put.
    /// After an error some of them may be there, unacknowledged.
    pub async fn emit_segments(&mut self, segments: &[SegmentDraft]) -> StoreResult<Vec<EventTime>> {
        if segments.iter().any(SegmentDraft::has_ordering_key) {
            loop {
                let rewinds = self.puts.bus.store.rewinds();
                let (mut firsts, mut is_lost) = (Vec::new(), false);
                for segment in segments {
                    firsts.extend(self.emit_together(&[segment], None).await?);
                    is_lost = rewinds != self.puts.bus.store.rewinds();
                    if is_lost {
                        break;
                    }
                }
                if !is_lost {
                    return Ok(firsts);
                }
                // A store that has lost its latest writes may have lost those that were safe by then. All are put again,
                // in their order: what is there goes first.
                let put = |(segment, first): (&SegmentDraft, &EventTime)| PutSegment {
                    key: segment.key(*first),
                    first: *first,
                };
                let there = segments.iter().zip(&firsts).filter(|(segment, _)| !segment.is_empty()).map(put);
                self.delete_first_copies(&there.collect::<Vec<_>>()).await;
            }
        }
        self.emit_together(&segments.iter().collect::<Vec<_>>(), None).await
    }

    /// Puts segments, with one check after the last put. Where the segments are to be recorded, the note
    /// tells of them beforehand.
    pub(super) async fn emit_together(
        &mut self,
        all: &[&SegmentDraft],
        mut note: Option<&mut Note>,
    ) -> StoreResult<Vec<EventTime>> {
        let segments: Vec<&SegmentDraft> = all.iter().copied().filter(|segment| !segment.is_empty()).collect();
        if segments.is_empty() {
            return Ok(vec![EventTime::MIN; all.len()]);
        }
        let mut rewinds = self.puts.bus.store.rewinds();
        let mut there = self.put_segments(&segments, EventTime::MIN, note.as_deref_mut()).await?;
        let mut reputs = 0;
        loop {
            self.take_back_if_ahead(|| keys_last_first(&there)).await?;
            let w = self.puts.retry(async || frontier::read(&*self.puts.bus.store).await).await?.time;
            self.puts.bus.times.saw(w);
            // The first event of a segment tells: a part of the segment may have come too late.
            let is_there = rewinds == self.puts.bus.store.rewinds();
            if is_there && there.iter().all(|put| put.first > w) {
                break;
            }
            refuse_endless_puts(reputs, w)?;
            let earliest = self.earliest_again(w, reputs);
            reputs += 1;
            rewinds = self.puts.bus.store.rewinds();
            // All of them, whole, so that their order stays.
            let again = self.put_segments(&segments, earliest, note.as_deref_mut()).await?;
            self.delete_first_copies(&there).await;
            there = again;
        }
        let mut firsts = there.into_iter().map(|put| put.first);
        // One without events has no time.
        let first = |segment: &&SegmentDraft| if segment.is_empty() { None } else { firsts.next() };
        Ok(all.iter().map(first).map(|first| first.unwrap_or(EventTime::MIN)).collect())
    }

    /// Puts each segment under a new, growing time; no event below `earliest`.
    async fn put_segments(
        &mut self,
        segments: &[&SegmentDraft],
        earliest: EventTime,
        note: Option<&mut Note>,
    ) -> StoreResult<Vec<PutSegment>> {
        let mut there = Vec::with_capacity(segments.len());
        let mut items = Vec::with_capacity(segments.len());
        for segment in segments {
            let put = self.place(segment, earliest);
            items.push((put.key.clone(), Bytes::copy_from_slice(&segment.bytes)));
            there.push(put);
        }
        if let Some(note) = note {
            note.write(&self.puts, items.iter().map(|(key, _)| &**key)).await?;
        }
        for at in self.puts.put_in_order(&items, &AlwaysOpen).await? {
            // Another segment has this very key: 80 random bits have collided. Any other time will do.
            loop {
                there[at] = self.place(segments[at], earliest);
                if self.puts.put_and_read_back(&there[at].key, &segments[at].bytes).await?.is_none() {
                    break;
                }
            }
        }
        Ok(there)
    }

    /// The next free time for a segment.
    fn place(&mut self, segment: &SegmentDraft, earliest: EventTime) -> PutSegment {
        let last = self.puts.bus.next_time(earliest, segment.len());
        let first = EventTime::from_micros(last.as_micros() - (i64::from(segment.len()) - 1));
        PutSegment { key: segment.key(first), first }
    }

    /// Deletes first copies, the last first: a worker of an ordered group that still finds one has
    /// found all before it. A first copy that stays is run twice at worst.
    async fn delete_first_copies(&self, there: &[PutSegment]) {
        for key in keys_last_first(there) {
            if self.puts.bus.store.delete(&key).await.is_err() {
                return;
            }
        }
    }
}

fn keys_last_first(there: &[PutSegment]) -> Vec<String> {
    there.iter().rev().map(|put| put.key.clone()).collect()
}
