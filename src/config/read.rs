//! Parses the config file and checks it as a whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::address::Address;
use super::find::{self, ConfigFile, FoundConfig};
use super::nearest::did_you_mean;
use super::relay::RelaySettings;
use super::section::{ConfigSource, Field, Section};
use super::serve::ServeSettings;
use super::watcher::Watcher;
use super::{ConfigError, Environment, schedule};
use crate::config::ConfigDetail;
use crate::event::TypeFilter;
use crate::recurring::Recurring;

/// The settings of a config file; all empty if there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The file's absolute path.
    pub path: Option<PathBuf>,
    /// Why files were ignored, one line each.
    pub warnings: Vec<String>,
    /// `[bus] url`.
    pub bus: Option<Address>,
    /// `[buses.NAME] url`.
    pub buses: BTreeMap<String, Address>,
    /// `[watchers.NAME]`, in the order of the file.
    pub watchers: Vec<Watcher>,
    /// `[relays.NAME]`, in the order of the file.
    pub relays: Vec<RelaySettings>,
    /// `[schedules.NAME]`, in the order of the file.
    pub schedules: Vec<Recurring>,
    /// `[sources.NAME]`, in the order of the file.
    #[cfg(feature = "cli")]
    pub sources: Vec<crate::source::Source>,
    /// `[serve]`.
    pub serve: ServeSettings,
}

impl Config {
    /// Searches for the config file: `explicit` (`--config`), `EVBUS_CONFIG`, `./evbus.toml` if it
    /// belongs to this user or root, `$XDG_CONFIG_HOME/evbus/evbus.toml`, `/etc/evbus/evbus.toml`;
    /// the first that exists.
    ///
    /// # Errors
    /// A named file that does not exist; a file that cannot be read.
    pub fn find(environment: &Environment, explicit: Option<&Path>) -> Result<FoundConfig, ConfigError> {
        find::find(environment, explicit)
    }

    /// Finds the config file and parses it.
    ///
    /// # Errors
    /// As [`Config::find`] and [`Config::parse`].
    pub fn load(environment: &Environment, explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let found = Self::find(environment, explicit)?;
        let config = found.file.as_ref().map(|file| Self::parse(environment, file)).transpose()?.unwrap_or_default();
        Ok(Self { warnings: found.warnings, ..config })
    }

    /// Parses a config file.
    ///
    /// # Errors
    /// The first mistake in it, with its line.
    pub fn parse(environment: &Environment, file: &ConfigFile) -> Result<Self, ConfigError> {
        let text = str::from_utf8(&file.text).map_err(|error| not_text(file, error.valid_up_to()))?;
        let source = ConfigSource { shown: &file.shown, text };
        let document = DeTable::parse(text).map_err(|error| {
            let offset = error.span().map_or(text.len(), |span| span.start);
            source.error(offset, error.message().replace('\n', "; "))
        })?;
        let root = Section::root(source, document.get_ref());
        root.refuse_unknown(&["bus", "buses", "watchers", "relays", "schedules", "serve", "sources"])?;
        let reader = Reader { environment, folder: file.folder() };
        Ok(Self {
            path: Some(file.path.clone()),
            warnings: Vec::new(),
            buses: reader.buses(&root)?,
            bus: reader.bus(&root)?,
            watchers: reader.watchers(&root)?,
            relays: reader.relays(&root)?,
            schedules: reader.schedules(&root)?,
            #[cfg(feature = "cli")]
            sources: reader.sources(&root)?,
            serve: root
                .field("serve")
                .map(|field| ServeSettings::read(&field, environment, reader.folder))
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// The watcher with this name.
    ///
    /// # Errors
    /// There is none; names the nearest, or all.
    pub fn watcher(&self, name: &str) -> Result<&Watcher, ConfigError> {
        self.watchers.iter().find(|watcher| watcher.name == name).ok_or_else(|| {
            let near = did_you_mean(name, self.watchers.iter().map(|watcher| watcher.name.as_str()));
            let place = self.path.as_ref().map_or(String::new(), |path| format!(" in {}", path.display()));
            let known: Vec<_> = self.watchers.iter().map(|watcher| watcher.name.escape_debug().to_string()).collect();
            let detail = match (&self.path, known.is_empty()) {
                (None, _) => ConfigDetail::NoFile,
                (Some(_), true) => ConfigDetail::NoWatchers,
                (Some(_), false) => ConfigDetail::Watchers { names: known },
            };
            ConfigError::NoWatcher { what: format!("no watcher '{}'{place}{near}", name.escape_debug()), detail }
        })
    }
}

fn not_text(file: &ConfigFile, offset: usize) -> ConfigError {
    let line = 1 + file.text.iter().take(offset).filter(|byte| **byte == b'\n').count();
    ConfigError::InFile { file: file.shown.clone(), line, what: "this is not UTF-8 text".to_owned() }
}

/// Reads the tables of one file.
struct Reader<'a> {
    environment: &'a Environment,
    folder: &'a Path,
}

impl Reader<'_> {
    fn bus(&self, root: &Section<'_>) -> Result<Option<Address>, ConfigError> {
        root.field("bus").map(|field| self.url(&field)).transpose()
    }

    fn buses(&self, root: &Section<'_>) -> Result<BTreeMap<String, Address>, ConfigError> {
        let mut buses = BTreeMap::new();
        for field in root.field("buses").map(|field| field.section()).transpose()?.iter().flat_map(Section::fields) {
            if !Address::is_name(field.name) {
                return Err(
                    field.error("is not a name: it would be read as a path or a URL (leave out '/', '.' and ':')")
                );
            }
            let address = self.url(&field)?;
            if let Address::Named(other) = &address {
                let other = other.escape_debug();
                return Err(
                    field.error(format_args!("its url '{other}' is a name again (a path needs a '/': ./{other})"))
                );
            }
            buses.insert(field.name.to_owned(), address);
        }
        Ok(buses)
    }

    /// The `url` of a `[bus]` or `[buses.NAME]`.
    fn url(&self, field: &Field<'_>) -> Result<Address, ConfigError> {
        let section = field.section()?;
        section.refuse_unknown(&["url"])?;
        let url = section.field("url").ok_or_else(|| field.error("has no url (add url = \"/path/of/the/bus\")"))?;
        Address::parse(url.text()?.as_ref(), self.environment, self.folder).map_err(|(what, _)| url.error(what))
    }

    fn relays(&self, root: &Section<'_>) -> Result<Vec<RelaySettings>, ConfigError> {
        let fields = root.field("relays").map(|field| field.section()).transpose()?;
        let fields = fields.iter().flat_map(Section::fields);
        fields.map(|field| RelaySettings::read(&field, self.environment, self.folder)).collect()
    }

    fn schedules(&self, root: &Section<'_>) -> Result<Vec<Recurring>, ConfigError> {
        let fields = root.field("schedules").map(|field| field.section()).transpose()?;
        let fields = fields.iter().flat_map(Section::fields);
        fields.map(|field| schedule::read(&field, self.environment)).collect()
    }

    #[cfg(feature = "cli")]
    fn sources(&self, root: &Section<'_>) -> Result<Vec<crate::source::Source>, ConfigError> {
        let fields = root.field("sources").map(|field| field.section()).transpose()?;
        let fields = fields.iter().flat_map(Section::fields);
        fields.map(|field| super::source::read(&field, self.environment, self.folder)).collect()
    }

    fn watchers(&self, root: &Section<'_>) -> Result<Vec<Watcher>, ConfigError> {
        let mut read: Vec<(Watcher, Field<'_>)> = Vec::new();
        for field in root.field("watchers").map(|field| field.section()).transpose()?.iter().flat_map(Section::fields) {
            let watcher = Watcher::read(&field, self.environment, self.folder)?;
            for (earlier, place) in &read {
                refuse_conflict(&watcher, &field, earlier, place)?;
            }
            read.push((watcher, field));
        }
        Ok(read.into_iter().map(|(watcher, _)| watcher).collect())
    }
}

/// Refuses two watchers of one group that disagree: a group has one filter, and they would skip
/// each other's events.
fn refuse_conflict(
    watcher: &Watcher,
    field: &Field<'_>,
    other: &Watcher,
    place: &Field<'_>,
) -> Result<(), ConfigError> {
    // Compared as patterns: `a,b` equals `a` and `b`. Both have been parsed before, so neither
    // fails.
    let filter = |watcher: &Watcher| TypeFilter::new(&watcher.types, &watcher.not).ok();
    let starts_differ = watcher.from.zip(other.from).is_some_and(|(one, another)| one != another);
    let conflict = match () {
        _ if watcher.group != other.group => None,
        _ if filter(watcher) != filter(other) && watcher.not == other.not => Some("types"),
        _ if filter(watcher) != filter(other) && watcher.types == other.types => Some("not"),
        _ if filter(watcher) != filter(other) => Some("types and not"),
        _ if watcher.shards != other.shards => Some("shards"),
        _ if watcher.latest != other.latest => Some("latest"),
        _ if watcher.condition != other.condition => Some("where"),
        _ if starts_differ => Some("from"),
        _ => None,
    };
    let Some(key) = conflict else { return Ok(()) };
    Err(field.plain_error(format_args!(
        "[watchers.{}] and [watchers.{}] (line {}) name one group '{}' with different {key} (make them equal, or give one another group)",
        watcher.name.escape_debug(),
        other.name.escape_debug(),
        place.line(),
        watcher.group,
    )))
}
