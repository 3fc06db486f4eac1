//! One `[schedules.NAME]`: an event that comes by itself, at the times of a cron expression or in a period.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::section::Field;
use super::{ConfigError, Environment};
use crate::event::{Data, EventTime, odd_type};
use crate::group::GroupName;
use crate::recurring::{CatchUp, Recurring, Rule};

pub(super) fn read(field: &Field<'_>, environment: &Environment) -> Result<Recurring, ConfigError> {
    let section = field.section()?;
    section.refuse_unknown(&["cron", "every", "timezone", "type", "subject", "data", "jitter", "catch_up"])?;
    // The name is a part of a key and of ids, as a group's is.
    GroupName::parse(field.name).map_err(|error| field.error(error.to_string().replace("group name", "name")))?;
    let zone = section.field("timezone").map(|zone| zone_of(&zone)).transpose()?;
    let rule = match (section.field("cron"), section.field("every")) {
        (Some(cron), None) => {
            let own = environment.zone();
            let own_name = own.iana_name().unwrap_or("local").to_owned();
            let (zone, name) = zone.unwrap_or((own, own_name));
            Rule::cron(cron.text()?, (zone, &name)).map_err(|error| cron.error(error))?
        }
        (None, Some(every)) => {
            if let Some(zone) = section.field("timezone") {
                return Err(zone.error("is for cron alone (every counts from 1970-01-01 00:00 UTC)"));
            }
            Rule::every(every.positive_duration()?).map_err(|error| every.error(error))?
        }
        (Some(_), Some(every)) => return Err(every.error("is beside 'cron' (leave one out)")),
        (None, None) => {
            return Err(field.error("says not when (add cron = \"0 2 * * *\" or every = \"15m\")"));
        }
    };
    let type_ = section.field("type").ok_or_else(|| field.error("has no type (add type = \"backup.due\")"))?;
    if let Some(what) = odd_type(type_.text()?) {
        return Err(type_.error(format!("{what}, so no pattern could name it")));
    }
    let catch_up = section.field("catch_up").map(|field| match field.text()? {
        "none" => Ok(CatchUp::None),
        "last" => Ok(CatchUp::Last),
        "all" => Ok(CatchUp::All),
        other => Err(field.error(format!("'{}' is none of none, last and all", other.escape_debug()))),
    });
    let data = section.field("data").map(|field| {
        let text = field.json().to_string();
        Data::json(&text).map_err(|error| field.error(error))
    });
    let schedule = Recurring {
        name: field.name.to_owned(),
        rule,
        jitter: section.field("jitter").map(|field| field.duration()).transpose()?.unwrap_or(Duration::ZERO),
        catch_up: catch_up.transpose()?.unwrap_or_default(),
        type_: type_.text()?.to_owned(),
        subject: section.field("subject").map(|field| field.text().map(str::to_owned)).transpose()?,
        data: data.transpose()?,
    };
    let gap = schedule.rule.shortest_gap(environment.now).unwrap_or(Duration::MAX);
    if let Some(jitter) = section.field("jitter").filter(|_| schedule.jitter > gap / 2) {
        return Err(jitter.error("is more than half of the time between two of its times"));
    }
    schedule.event(EventTime::from_micros(0)).map_err(|error| type_.error(error))?;
    Ok(schedule)
}

fn zone_of(field: &Field<'_>) -> Result<(TimeZone, String), ConfigError> {
    let name = field.text()?;
    let unknown =
        || field.error(format!("'{}' is no time zone (such as \"Europe/Berlin\" or \"UTC\")", name.escape_debug()));
    TimeZone::get(name).or_else(|_| TimeZone::posix(name)).map(|zone| (zone, name.to_owned())).map_err(|_| unknown())
}
