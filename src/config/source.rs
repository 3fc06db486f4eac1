//! One `[sources.NAME]`: a folder, or a prefix of a bucket, whose files become events.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::address::Address;
use super::section::Field;
use super::{ConfigError, Environment};
use crate::event::odd_type;
use crate::group::GroupName;
use crate::source::{After, Change, Patterns, Place, SETTLE, Source};
use crate::store::object::is_nameable;

/// The type of events whose source names none.
pub const TYPE: &str = "file.arrived";

pub(super) fn read(field: &Field<'_>, environment: &Environment, folder: &Path) -> Result<Source, ConfigError> {
    let section = field.section()?;
    section.refuse_unknown(&[
        "folder",
        "type",
        "match",
        "ignore",
        "recursive",
        "settle",
        "poll",
        "sha256",
        "events",
        "after",
        "groups",
    ])?;
    // The name is a part of a key and of ids, as a group's is.
    GroupName::parse(field.name).map_err(|error| field.error(error.to_string().replace("group name", "name")))?;
    let place = section.field("folder").ok_or_else(|| field.error("has no folder (add folder = \"/srv/inbox\")"))?;
    let items = |name: &str| -> Result<Vec<String>, ConfigError> {
        let items = section.field(name).map(|field| field.one_or_more()).transpose()?.unwrap_or_default();
        Ok(items.into_iter().map(|item| item.text.to_owned()).collect())
    };
    let (wanted, ignored) = (items("match")?, items("ignore")?);
    let refused =
        |name: &str, error: &dyn std::fmt::Display| section.field(name).as_ref().unwrap_or(&place).error(error);
    Patterns::new(wanted.clone(), Vec::new()).map_err(|error| refused("match", &error))?;
    let patterns = Patterns::new(wanted, ignored).map_err(|error| refused("ignore", &error))?;
    let flag = |name: &str| section.field(name).map(|field| field.flag()).transpose();
    let changes = section.field("events").map(|field| {
        let change = |item: &super::section::Item<'_>| {
            let known = Change::ALL.into_iter().find(|change| change.as_str() == item.text);
            known.ok_or_else(|| {
                field.error(format!("'{}' is none of arrived, changed and removed", item.text.escape_debug()))
            })
        };
        let changes = field.one_or_more()?.iter().map(change).collect::<Result<Vec<_>, _>>()?;
        match changes.is_empty() {
            true => Err(field.error("has none (leave it out, or name arrived, changed or removed)")),
            false => Ok(changes),
        }
    });
    let groups = section.field("groups").map(|field| {
        let group = |item: super::section::Item<'_>| GroupName::parse(item.text).map_err(|error| field.error(error));
        field.one_or_more()?.into_iter().map(group).collect::<Result<Vec<_>, _>>()
    });
    let type_ = section.field("type").map(|field| match odd_type(field.text()?) {
        Some(what) => Err(field.error(format!("{what}, so no pattern could name it"))),
        None => field.text().map(str::to_owned),
    });
    let is_bucket = place.text()?.contains("://");
    let source = Source {
        name: field.name.to_owned(),
        place: place_of(place.text()?.as_ref(), environment, folder).map_err(|error| place.error(error))?,
        type_: type_.transpose()?.unwrap_or_else(|| TYPE.to_owned()),
        changes: changes.transpose()?.unwrap_or_else(|| vec![Change::Arrived]),
        patterns,
        recursive: flag("recursive")?.unwrap_or(is_bucket),
        settle: section.field("settle").map(|field| field.positive_duration()).transpose()?.unwrap_or(SETTLE),
        poll: section.field("poll").map(|field| field.positive_duration()).transpose()?,
        sha256: flag("sha256")?.unwrap_or(false),
        after: section
            .field("after")
            .map(|field| after_of(field.text()?, is_bucket, environment, folder).map_err(|error| field.error(error)))
            .transpose()?
            .unwrap_or_default(),
        groups: groups.transpose()?.unwrap_or_default(),
    };
    source.validate().map_err(|(setting, error)| refused(setting, &error))?;
    Ok(source)
}

/// Where files arrive, as it is written: a path or the URL of a bucket.
///
/// # Errors
/// What is wrong with it.
pub fn place_of(text: &OsStr, environment: &Environment, folder: &Path) -> Result<Place, String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if !text.as_encoded_bytes().windows(3).any(|part| part == b"://") {
        return Ok(Place::Folder(environment.expand(Path::new(text), folder)));
    }
    match Address::parse(text, environment, folder).map_err(|(what, _)| what)? {
        Address::Dir(path) => Ok(Place::Folder(path)),
        Address::Bucket(bucket, url) => Ok(Place::Bucket(Box::new(bucket), url)),
        _ => Err(format!("'{}' is neither a folder nor a bucket", text.to_string_lossy().escape_debug())),
    }
}

/// What is done with files in the end, as it is written: `leave`, `delete` or `move:FOLDER`.
///
/// # Errors
/// What is wrong with it.
pub fn after_of(text: &str, is_bucket: bool, environment: &Environment, folder: &Path) -> Result<After, String> {
    match text.split_once(':') {
        None if text == "leave" => Ok(After::Leave),
        None if text == "delete" => Ok(After::Delete),
        Some(("move", to)) if !to.is_empty() && is_bucket => match prefix_of(to) {
            Some(prefix) => Ok(After::Move(prefix)),
            None => Err(format!("'{}' is no prefix in the same bucket (move:done)", to.escape_debug())),
        },
        Some(("move", to)) if !to.is_empty() => Ok(After::Move(environment.expand(Path::new(to), folder))),
        _ => Err(format!("'{}' is none of leave, delete and move:FOLDER", text.escape_debug())),
    }
}

/// A prefix that objects can be moved to.
fn prefix_of(text: &str) -> Option<PathBuf> {
    let prefix = text.strip_suffix('/').unwrap_or(text);
    prefix.split('/').all(is_nameable).then(|| PathBuf::from(prefix))
}
