//! `bus.json`: the format version and what is fixed when a bus is made.

use serde::{Deserialize, Serialize};

use super::format::{FORMAT, FORMAT_WITH_SEGMENTS, refuse_newer, to_json_line};
use super::{BusHandle, frontier, keys};
use crate::event::EventTime;
use crate::store::{ErrorDetail, ErrorKind, Put, StoreError, StoreResult};

/// The limit of an event's size where `init` was not told otherwise, in bytes.
pub const MAX_EVENT_BYTES: u64 = 1 << 20;

/// How many events may have caused each other where `init` was not told otherwise.
pub const MAX_DEPTH: u32 = 32;

/// Which users may write to a directory bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// As the umask says.
    #[default]
    Umask,
    /// The folder's Unix group, whatever the umask.
    Group,
}

/// What `bus.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusSettings {
    /// See [`FORMAT`]; of an opened bus what it was upgraded to, where that is more.
    pub format: u32,
    /// When the bus was made.
    pub created: EventTime,
    /// No event may be larger, in bytes.
    pub max_event_bytes: u64,
    /// See [`Sharing`].
    #[serde(default)]
    pub sharing: Sharing,
    /// Whether emitters may put many events into one object; readers must expect it in any case.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub segments: bool,
    /// How many events may cause each other, one after the other; 0: any number.
    #[serde(default = "max_depth", skip_serializing_if = "is_max_depth")]
    pub max_depth: u32,
    /// What the store was found to do when the bus was made, where that had to be tried out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probed: Vec<String>,
}

impl BusSettings {
    /// The settings of a bus that is made now.
    pub fn new(created: EventTime, max_event_bytes: u64, sharing: Sharing) -> Self {
        Self {
            format: FORMAT,
            created,
            max_event_bytes,
            sharing,
            segments: true,
            max_depth: MAX_DEPTH,
            probed: Vec::new(),
        }
    }

    /// Whether emitters may put many events into one object.
    pub fn has_segments(&self) -> bool {
        self.segments && self.format >= FORMAT_WITH_SEGMENTS
    }
}

fn max_depth() -> u32 {
    MAX_DEPTH
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_max_depth(value: &u32) -> bool {
    *value == MAX_DEPTH
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// A format's number alone, readable in every format to come.
#[derive(Deserialize)]
struct FormatHeader {
    format: u32,
}

/// A bus that is there and readable.
#[derive(Clone)]
pub struct OpenBus {
    /// Where it is kept.
    pub handle: BusHandle,
    /// What it was made with.
    pub settings: BusSettings,
}

impl OpenBus {
    /// Opens the bus that `handle` leads to; `shown` is its address, for messages.
    pub async fn open(handle: BusHandle, shown: &str) -> StoreResult<Self> {
        Ok(Self::read(handle, shown).await?.0)
    }

    /// The bus, and the bytes of its `bus.json`.
    async fn read(handle: BusHandle, shown: &str) -> StoreResult<(Self, Vec<u8>)> {
        let Some(object) = handle.store.get(keys::BUS).await? else {
            return Err(StoreError::new(ErrorKind::NoBus, format!("no bus at {shown} (there is no bus.json)"))
                .with_detail(ErrorDetail::NoBus { address: shown.to_owned() }));
        };
        let mut settings = parse(&object.bytes, shown)?;
        if settings.format < FORMAT
            && let Some(upgraded) = frontier::read(&*handle.store).await?.format
        {
            settings.format = upgraded.max(settings.format);
        }
        Ok((Self { settings, handle }, object.bytes))
    }

    /// Brings the bus to [`FORMAT`], durably. Returns the format that it had.
    ///
    /// # Errors
    /// Of the store; after an error the bus has one of both formats.
    pub async fn upgrade(&mut self) -> StoreResult<u32> {
        let had = self.settings.format;
        if had < FORMAT {
            frontier::upgrade(&*self.handle.store, FORMAT).await?;
            self.settings.format = FORMAT;
        }
        Ok(had)
    }

    /// Makes a bus where `handle` leads to, or opens the one that is there. Returns whether it was made now.
    pub async fn create(handle: BusHandle, settings: BusSettings, shown: &str) -> StoreResult<(Self, bool)> {
        let bytes = to_json_line(&settings);
        if handle.store.put_new(keys::BUS, &bytes).await? == Put::Created {
            return Ok((Self { handle, settings }, true));
        }
        // The answer may belong to this call's own success, or the bus's maker died before it was
        // durable.
        handle.store.persist(keys::BUS).await?;
        let (bus, found) = Self::read(handle, shown).await?;
        Ok((bus, found == bytes))
    }

    /// How large an event may be, in bytes.
    pub fn max_event_bytes(&self) -> usize {
        usize::try_from(self.settings.max_event_bytes).unwrap_or(usize::MAX)
    }
}

fn parse(bytes: &[u8], shown: &str) -> StoreResult<BusSettings> {
    let damaged = |error: serde_json::Error| {
        StoreError::new(ErrorKind::Damaged, format!("{shown}/bus.json cannot be read: {error}"))
            .with_detail(ErrorDetail::Unreadable { key: keys::BUS.to_owned() })
            .with_source(error)
    };
    let format: FormatHeader = serde_json::from_slice(bytes).map_err(damaged)?;
    refuse_newer(format.format, &format!("the bus at {shown}"))?;
    serde_json::from_slice(bytes).map_err(damaged)
}
