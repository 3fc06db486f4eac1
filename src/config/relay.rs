//! One `[relays.NAME]`: an outbox whose rows `watch` and `drain` move to the bus.

use std::path::Path;

use super::address::Address;
use super::section::Field;
use super::{ConfigError, Environment};
use crate::relay::Columns;

/// An outbox in the config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    /// The name of its table in the file.
    pub name: String,
    /// Where the outbox is.
    pub from: Address,
    /// Its table; none: evbus's own.
    pub table: Option<String>,
    /// What its columns mean.
    pub columns: Columns,
    /// The source of rows without one.
    pub source: Option<String>,
}

impl RelaySettings {
    pub(super) fn read(field: &Field<'_>, environment: &Environment, folder: &Path) -> Result<Self, ConfigError> {
        let section = field.section()?;
        section.refuse_unknown(&["from", "table", "map", "preset", "source"])?;
        let from = section
            .field("from")
            .ok_or_else(|| field.error("has no from (add from = \"postgres://host/database\")"))?;
        let address =
            Address::parse(from.text()?.as_ref(), environment, folder).map_err(|(what, _)| from.error(what))?;
        let columns = match (section.field("preset"), section.field("map")) {
            (Some(_), Some(map)) => return Err(map.error("is beside 'preset', which says the same (leave one out)")),
            (Some(preset), None) => Columns::preset(preset.text()?).map_err(|error| preset.error(error))?,
            (None, Some(map)) => {
                let mut columns = Columns::parse("").map_err(|error| map.error(error))?;
                for column in map.section()?.fields() {
                    columns.set(column.name, column.text()?).map_err(|error| column.error(error))?;
                }
                columns
            }
            (None, None) => Columns::own(),
        };
        let text = |name: &str| section.field(name).map(|field| field.text().map(str::to_owned)).transpose();
        Ok(Self { name: field.name.to_owned(), from: address, table: text("table")?, columns, source: text("source")? })
    }
}
