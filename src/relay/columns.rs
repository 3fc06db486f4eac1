//! Which columns of an outbox's table mean what.

/// What a column can be for.
const NAMES: [&str; 9] = ["n", "id", "type", "source", "subject", "key", "data", "attr", "time"];

/// The columns of a table, by what they are for; as SQL expressions where a preset needs one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The number that orders the rows and is deleted by; none: the id.
    pub n: Option<String>,
    /// The event's id.
    pub id: String,
    /// Its type, one column or several, which are joined by dots.
    pub type_: Vec<String>,
    /// The others, if there are any.
    pub source: Option<String>,
    /// See [`Columns::source`].
    pub subject: Option<String>,
    /// See [`Columns::source`].
    pub key: Option<String>,
    /// See [`Columns::source`].
    pub data: Option<String>,
    /// See [`Columns::source`].
    pub attr: Option<String>,
    /// See [`Columns::source`].
    pub time: Option<String>,
}

/// A mapping that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    /// What is to be mapped is nothing that an event has.
    #[error("'{name}' is nothing that a row can tell of its event (known are {})", NAMES.join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// No preset of this name.
    #[error("'{name}' is no preset (known is debezium)")]
    NoPreset {
        /// The name.
        name: String,
    },
    /// Not `NAME=COLUMN`.
    #[error("'{text}' is no NAME=COLUMN")]
    NoPair {
        /// The text.
        text: String,
    },
}

impl Columns {
    /// Those of evbus's own table.
    pub fn own() -> Self {
        let some = |name: &str| Some(name.to_owned());
        Self {
            n: some("n"),
            id: "id".to_owned(),
            type_: vec!["type".to_owned()],
            source: some("source"),
            subject: some("subject"),
            key: some("key"),
            data: some("data"),
            attr: some("attr"),
            time: some("time"),
        }
    }

    /// Those of a table in which only id and type have these names.
    fn bare() -> Self {
        Self {
            n: None,
            id: "id".to_owned(),
            type_: vec!["type".to_owned()],
            source: None,
            subject: None,
            key: None,
            data: None,
            attr: None,
            time: None,
        }
    }

    /// Those of a preset.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn preset(name: &str) -> Result<Self, ColumnsError> {
        match name {
            // Debezium, Outbox Event Router: Basic outbox table.
            "debezium" => Ok(Self {
                type_: vec!["aggregatetype".to_owned(), "type".to_owned()],
                subject: Some("aggregateid".to_owned()),
                key: Some("aggregateid".to_owned()),
                data: Some("payload".to_owned()),
                ..Self::bare()
            }),
            _ => Err(ColumnsError::NoPreset { name: name.to_owned() }),
        }
    }

    /// The columns of `id=event_id,type=event_type`; what is not named is not there, but id and type.
    ///
    /// # Errors
    /// The text is no such list.
    pub fn parse(text: &str) -> Result<Self, ColumnsError> {
        let mut columns = Self::bare();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, column) = pair.split_once('=').ok_or(ColumnsError::NoPair { text: pair.to_owned() })?;
            columns.set(name.trim(), column.trim())?;
        }
        Ok(columns)
    }

    /// Says which column something is in.
    ///
    /// # Errors
    /// It is nothing that an event has.
    pub fn set(&mut self, name: &str, column: &str) -> Result<(), ColumnsError> {
        if column.is_empty() {
            return Err(ColumnsError::NoPair { text: format!("{name}=") });
        }
        let column = column.to_owned();
        match name {
            "n" => self.n = Some(column),
            "id" => self.id = column,
            "type" => self.type_ = column.split('+').map(str::to_owned).collect(),
            "source" => self.source = Some(column),
            "subject" => self.subject = Some(column),
            "key" => self.key = Some(column),
            "data" => self.data = Some(column),
            "attr" => self.attr = Some(column),
            "time" => self.time = Some(column),
            _ => return Err(ColumnsError::Unknown { name: name.to_owned() }),
        }
        Ok(())
    }

    /// The column that rows are ordered and deleted by.
    pub fn place(&self) -> &str {
        self.n.as_ref().unwrap_or(&self.id)
    }
}

/// A name, or names joined by dots, as SQL.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn quoted(name: &str) -> String {
    name.split('.').map(crate::store::quoted_name).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_names_columns() {
        let columns = Columns::parse("id=event_id, type=a+b,data=payload").unwrap();
        assert_eq!(
            (columns.id.as_str(), columns.type_.len(), columns.data.as_deref()),
            ("event_id", 2, Some("payload"))
        );
        assert_eq!((columns.place(), columns.source.as_deref()), ("event_id", None));
        assert_eq!(Columns::own().place(), "n");
        for (text, word) in [("x=y", "'x'"), ("id", "NAME=COLUMN"), ("id=", "id=")] {
            let why = Columns::parse(text).unwrap_err().to_string();
            assert!(why.contains(word), "{why}");
        }
        assert!(Columns::preset("kafka").is_err());
    }

    #[test]
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    fn names_are_quoted_part_by_part() {
        assert_eq!(quoted("app.out\"box"), "\"app\".\"out\"\"box\"");
    }
}
