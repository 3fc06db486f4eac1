//! A TOML table with the lines of its entries, so that each error can name its line.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::nearest::did_you_mean;
use super::units::parse_duration;
use super::{ConfigError, Environment};
use crate::secret::SecretSource;

/// The text of a config file, for turning offsets into lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConfigSource<'a> {
    /// The file's name in errors.
    pub(super) shown: &'a str,
    /// The whole text.
    pub(super) text: &'a str,
}

impl ConfigSource<'_> {
    /// An error at a byte offset.
    pub(super) fn error(&self, offset: usize, what: impl Display) -> ConfigError {
        ConfigError::InFile { file: self.shown.to_owned(), line: self.line(offset), what: what.to_string() }
    }

    /// The line of a byte offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// One table: the whole file, `[bus]`, `[watchers.thumbs]`, or a nested `retry = {…}`.
#[derive(Debug, Clone)]
pub(super) struct Section<'a> {
    source: ConfigSource<'a>,
    /// `watchers.thumbs`; empty for the whole file.
    path: String,
    table: &'a DeTable<'a>,
}

/// One key with its value.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    source: ConfigSource<'a>,
    /// The path of the table that holds it.
    within: String,
    /// The key.
    pub(super) name: &'a str,
    /// The offset of the key, in bytes.
    pub(super) offset: usize,
    value: &'a Spanned<DeValue<'a>>,
}

/// One string of an array.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    /// The offset, in bytes.
    pub(super) offset: usize,
    /// The string's value.
    pub(super) text: &'a str,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(source: ConfigSource<'a>, table: &'a DeTable<'a>) -> Self {
        Self { source, path: String::new(), table }
    }

    /// All keys, in the order of the file.
    pub(super) fn fields(&self) -> Vec<Field<'a>> {
        let mut fields: Vec<_> = self.table.iter().map(|(key, value)| self.bind(key, value)).collect();
        fields.sort_by_key(|field| field.offset);
        fields
    }

    /// One key, if it is there.
    pub(super) fn field(&self, name: &str) -> Option<Field<'a>> {
        self.table.get_key_value(name).map(|(key, value)| self.bind(key, value))
    }

    /// The paths of a certificate and its key, `cert` and `key`, both or neither.
    pub(super) fn certificate(
        &self,
        environment: &Environment,
        folder: &Path,
    ) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
        match (self.field("cert"), self.field("key")) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                Ok(Some((certificate.path(environment, folder)?, key.path(environment, folder)?)))
            }
            (Some(certificate), None) => Err(certificate.error("needs 'key' beside it")),
            (None, Some(key)) => Err(key.error("needs 'cert' beside it")),
        }
    }

    fn bind(&self, key: &'a Spanned<DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> Field<'a> {
        let offset = key.span().start;
        Field { source: self.source, within: self.path.clone(), name: key.get_ref(), offset, value }
    }

    /// Refuses the first unknown key and names the nearest known one.
    pub(super) fn refuse_unknown(&self, known: &[&str]) -> Result<(), ConfigError> {
        match self.fields().into_iter().find(|field| !known.contains(&field.name)) {
            Some(field) => Err(field.unknown(known)),
            None => Ok(()),
        }
    }
}

impl<'a> Field<'a> {
    /// An error about this key.
    pub(super) fn error(&self, what: impl Display) -> ConfigError {
        self.error_at(self.offset, what)
    }

    /// An error at this key, whose text names the key itself.
    pub(super) fn plain_error(&self, what: impl Display) -> ConfigError {
        self.source.error(self.offset, what)
    }

    /// An error about this key, at an offset in its value.
    pub(super) fn error_at(&self, offset: usize, what: impl Display) -> ConfigError {
        self.source.error(offset, format_args!("{}: {what}", self.title()))
    }

    /// The line of the key, from 1.
    pub(super) fn line(&self) -> usize {
        self.source.line(self.offset)
    }

    /// `'timeout' in [watchers.thumbs]`.
    fn title(&self) -> String {
        let name = self.name.escape_debug();
        if self.within.is_empty() { format!("'{name}'") } else { format!("'{name}' in [{}]", self.within) }
    }

    /// The error for a key that is not one of `known`.
    pub(super) fn unknown(&self, known: &[&str]) -> ConfigError {
        self.unknown_near(&did_you_mean(self.name, known.iter().copied()))
    }

    /// The error for an unknown key, with a hint at its end.
    pub(super) fn unknown_near(&self, hint: &str) -> ConfigError {
        self.source.error(self.offset, format_args!("unknown key {}{hint}", self.title()))
    }

    /// A table.
    pub(super) fn section(&self) -> Result<Section<'a>, ConfigError> {
        let name = self.name.escape_debug();
        let path = if self.within.is_empty() { name.to_string() } else { format!("{}.{name}", self.within) };
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(Section { source: self.source, path, table }),
            _ => Err(self.mistyped(&format!("a table: [{path}]"))),
        }
    }

    /// A string.
    pub(super) fn text(&self) -> Result<&'a str, ConfigError> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.mistyped("a string in quotes")),
        }
    }

    /// A string, or a TOML date or time.
    pub(super) fn time_text(&self) -> Result<String, ConfigError> {
        match self.value.get_ref() {
            DeValue::Datetime(time) => Ok(time.to_string()),
            _ => self.text().map(str::to_owned),
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Result<bool, ConfigError> {
        match self.value.get_ref() {
            DeValue::Boolean(flag) => Ok(*flag),
            _ => Err(self.mistyped("true or false")),
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn whole<T: TryFrom<i64>>(&self, min: i64, max: i64) -> Result<T, ConfigError> {
        whole(self.value, min, max).ok_or_else(|| self.mistyped(&format!("a whole number from {min} to {max}")))
    }

    /// A duration with its unit.
    pub(super) fn duration(&self) -> Result<Duration, ConfigError> {
        match self.value.get_ref() {
            DeValue::String(text) => parse_duration(text).map_err(|error| self.error(error)),
            DeValue::Integer(number) => {
                Err(self.error(format_args!("must be a duration with its unit: \"{number}s\"")))
            }
            _ => Err(self.mistyped("a duration in quotes: \"30s\", \"5m\", \"7d\"")),
        }
    }

    /// A duration longer than zero.
    pub(super) fn positive_duration(&self) -> Result<Duration, ConfigError> {
        match self.duration()? {
            Duration::ZERO => Err(self.error("must be longer than 0s")),
            duration => Ok(duration),
        }
    }

    /// An array of strings with their offsets.
    pub(super) fn items(&self) -> Result<Vec<Item<'a>>, ConfigError> {
        let DeValue::Array(array) = self.value.get_ref() else {
            let example = match self.value.get_ref() {
                DeValue::String(text) => {
                    let words: Vec<String> =
                        text.split(' ').map(|word| format!("\"{}\"", word.escape_debug())).collect();
                    format!("an array of strings: [{}]", words.join(", "))
                }
                _ => "an array of strings: [\"…\"]".to_owned(),
            };
            return Err(self.mistyped(&example));
        };
        let item = |value: &'a Spanned<DeValue<'a>>| match value.get_ref() {
            DeValue::String(text) => Ok(Item { offset: value.span().start, text }),
            other => Err(self.error_at(value.span().start, wrong_type("an array of strings", other))),
        };
        array.iter().map(item).collect()
    }

    /// A string, or an array of them.
    pub(super) fn one_or_more(&self) -> Result<Vec<Item<'a>>, ConfigError> {
        match self.text() {
            Ok(text) => Ok(vec![Item { offset: self.offset, text }]),
            Err(_) => self.items(),
        }
    }

    /// The value as JSON; a date is its text.
    pub(super) fn json(&self) -> serde_json::Value {
        json(self.value.get_ref())
    }

    /// A path; a relative one starts from `folder`.
    pub(super) fn path(&self, environment: &Environment, folder: &Path) -> Result<PathBuf, ConfigError> {
        Ok(environment.expand(Path::new(self.text()?), folder))
    }

    /// Where secrets are, one or more.
    pub(super) fn secrets(&self, environment: &Environment, folder: &Path) -> Result<Vec<SecretSource>, ConfigError> {
        let read = |item: Item<'_>| {
            parse_secret(item.text, environment, folder).map_err(|why| self.error_at(item.offset, why))
        };
        self.one_or_more()?.into_iter().map(read).collect()
    }

    /// An array of whole numbers from `min` to `max`.
    pub(super) fn wholes<T: TryFrom<i64>>(&self, min: i64, max: i64) -> Result<Vec<T>, ConfigError> {
        let wrong = || self.mistyped(&format!("an array of whole numbers from {min} to {max}"));
        let DeValue::Array(array) = self.value.get_ref() else { return Err(wrong()) };
        array.iter().map(|value| whole(value, min, max).ok_or_else(wrong)).collect()
    }

    pub(super) fn mistyped(&self, wanted: &str) -> ConfigError {
        self.error(wrong_type(wanted, self.value.get_ref()))
    }
}

fn whole<T: TryFrom<i64>>(value: &Spanned<DeValue<'_>>, min: i64, max: i64) -> Option<T> {
    let DeValue::Integer(number) = value.get_ref() else { return None };
    let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
    if (min..=max).contains(&number) { T::try_from(number).ok() } else { None }
}

/// `must be true or false, not a string`.
fn json(value: &DeValue<'_>) -> serde_json::Value {
    use serde_json::Value;
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            let whole = i64::from_str_radix(number.as_str(), number.radix()).map(Value::from);
            whole.unwrap_or_else(|_| Value::from(number.as_str()))
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(array) => array.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let members = table.iter().map(|(name, value)| (name.get_ref().to_string(), json(value.get_ref())));
            Value::Object(members.collect())
        }
    }
}

fn wrong_type(wanted: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a string".to_owned(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "this array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    format!("must be {wanted}, not {found}")
}

/// Reads where a secret is.
///
/// # Errors
/// It is not told so; the text, which may be the secret itself, is not shown.
pub fn parse_secret(text: &str, environment: &Environment, folder: &Path) -> Result<SecretSource, &'static str> {
    SecretSource::parse(text, |path| environment.expand(path, folder))
        .ok_or("is not where a secret is (write \"env:NAME\" or \"file:PATH\")")
}
