//! Notes of objects that are being put: whoever repeats an emit that was killed between its put and
//! its record finds by them what is there already (FORMAT.md, 5.7).

use serde::{Deserialize, Serialize};

use super::put::SurePuts;
use crate::bus::format::to_json_line;
use crate::bus::keys;
use crate::store::{StoreError, StoreResult};

/// The largest note that evbus writes, in bytes; a larger one is not evbus's.
const NOTE_BYTES: usize = 1 << 20;

/// What a note holds.
#[derive(Serialize, Deserialize)]
struct Noted {
    /// The keys of single events and of segments, in the order of their events.
    objects: Vec<String>,
}

/// The keys of the objects that a note tells of, if it is one.
pub(crate) fn noted_objects(bytes: &[u8]) -> serde_json::Result<Vec<String>> {
    serde_json::from_slice(bytes).map(|noted: Noted| noted.objects)
}

/// The notes of one emit: one for each time that its objects are put.
pub(super) struct Note {
    /// The dedup hash of the first event.
    hash: String,
    number: u32,
    /// The keys of this emit's notes.
    written: Vec<String>,
}

impl Note {
    /// Of objects whose first event has this dedup hash; `number` notes of others are there.
    pub fn new(hash: &str, number: u32) -> Self {
        Self { hash: hash.to_owned(), number, written: Vec::new() }
    }

    /// Notes, durably, that objects are going to be put at these keys.
    pub async fn write(&mut self, puts: &SurePuts, objects: impl Iterator<Item = &str>) -> StoreResult<()> {
        let bytes = to_json_line(&Noted { objects: objects.map(str::to_owned).collect() });
        loop {
            let key = keys::note(&self.hash, self.number);
            self.number += 1;
            // Another emitter of these events may be at work: each has notes of its own.
            if puts.put_and_read_back(&key, &bytes).await?.is_none() {
                self.written.push(key);
                return Ok(());
            }
        }
    }

    /// Removes the notes: the objects are recorded. One that stays costs a repeat a few requests.
    pub async fn remove(self, puts: &SurePuts) {
        let _ = puts.bus.store.delete_many(&self.written).await;
    }

    /// The notes that were left for events that begin with this dedup hash: the key of each, and the
    /// objects that it tells of.
    pub async fn left(puts: &SurePuts, hash: &str) -> StoreResult<Vec<(String, Vec<String>)>> {
        let mut notes = Vec::new();
        for number in 0.. {
            let key = keys::note(hash, number);
            let Some(found) = puts.retry(async || puts.bus.store.get_within(&key, NOTE_BYTES).await).await? else {
                break;
            };
            let objects = noted_objects(&found.bytes).map_err(|error| StoreError::unreadable(&key, error))?;
            notes.push((key, objects));
        }
        Ok(notes)
    }
}
