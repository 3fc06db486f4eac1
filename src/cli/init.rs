//! `evbus init`: creates a bus.

use std::ffi::OsString;
use std::path::Path;
#[cfg(feature = "postgres")]
use std::rc::Rc;

use super::exit::Code;
use super::failure::Failure;
use super::output::Out;
use super::session::{Needs, Session, block_on};
use super::{output, style, times};
use crate::bus::{BusHandle, BusSettings, MAX_DEPTH, MAX_EVENT_BYTES, OpenBus, Sharing, keys};
use crate::cli::help_line::command;
use crate::config::{BusAddress, Config, Location};
use crate::open;
use crate::store::dir::{DirOptions, DirStore};
#[cfg(feature = "sqlite")]
use crate::store::dir::{Durability, Execution};
use crate::store::object::BucketStore;
#[cfg(feature = "postgres")]
use crate::store::postgres::{PostgresStore, schema};
#[cfg(feature = "sqlite")]
use crate::store::sqlite::SqliteStore;
use crate::store::{mount, probe};

/// A key that is written and removed first, to learn whether writes are allowed.
const PROBE: &str = "state/probe";

/// Create a bus
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus init /srv/bus
  evbus init --shared staff --max-event 8MiB /srv/bus
  evbus init 's3://acme-events/prod?region=eu-central-1'
  evbus init postgres://app@db.example.com/shop
  evbus init sqlite:///var/lib/app/bus.db
  evbus init                    # the bus that --bus, EVBUS_URL or the config names")]
pub(super) struct InitArgs {
    /// The bus: a path with a '/', s3://bucket/prefix, postgres://host/database,
    /// sqlite:///file, or a name from [buses.NAME] in the config
    #[arg(id = "place", value_name = "BUS")]
    bus: Option<OsString>,
    /// Let this Unix group write, whatever the umask: a name, a number, or 'group' for the folder's
    /// own
    #[arg(long, value_name = "GROUP")]
    shared: Option<String>,
    /// Set the largest event, fixed at creation [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    max_event: Option<String>,
    /// Put many events of a bulk emit into one object ('on') or make one for each ('off'), fixed at
    /// creation [default: on]
    #[arg(long, value_name = "WHEN", value_parser = ["on", "off"])]
    segments: Option<String>,
    /// Let at most so many events cause each other, one after the other, fixed at creation; 0 for any
    /// number [default: 32]
    #[arg(long, value_name = "N")]
    max_depth: Option<u32>,
    /// Print the SQL that makes the tables in a PostgreSQL database, and make nothing
    #[arg(long, conflicts_with_all = ["shared", "max_event", "segments", "max_depth"])]
    print_sql: bool,
}

pub(super) fn run(args: InitArgs, session: Session) -> Result<Code, Failure> {
    let max_event_bytes = args.max_event.as_deref().map(times::parse_size).transpose()?;
    if max_event_bytes == Some(0) {
        return Err(
            Failure::usage("--max-event 0B leaves no room for any event").help(command("init", "--max-event 1MiB"))
        );
    }
    if args.bus.as_ref().is_some_and(|bus| bus.is_empty()) {
        return Err(Failure::usage("the bus to make has no name: it is empty").help(command("init", "./bus")));
    }
    let segments = args.segments.as_deref().map(|when| when == "on");
    let address = match &args.bus {
        // A bus to create needs no '/': `evbus init bus` is as clear as `mkdir bus`.
        Some(bus) if !bus.as_encoded_bytes().contains(&b'/') && session.config()?.buses.is_empty() => {
            let path = session.environment.cwd.join(bus);
            BusAddress::resolve(&session.environment, &Config::default(), Some(path.as_os_str()))?
        }
        Some(bus) => BusAddress::resolve(&session.environment, &session.config()?, Some(bus))?,
        None => session.address()?,
    };
    if args.print_sql {
        return print_sql(&address);
    }
    block_on(Needs::of(&address), async {
        let sharing = if args.shared.is_some() { Sharing::Group } else { Sharing::Umask };
        let asked = AskedSettings { max_event_bytes, sharing, segments, max_depth: args.max_depth };
        if let Some(there) = existing(&address, &session).await? {
            refuse_another(&there, &asked, &address.display)?;
        }
        let mut settings = BusSettings::new(session.clock.now(), max_event_bytes.unwrap_or(MAX_EVENT_BYTES), sharing);
        settings.segments = segments.unwrap_or(true);
        settings.max_depth = args.max_depth.unwrap_or(MAX_DEPTH);
        let handle = match &address.location {
            Location::Dir(path) => session.bus_handle(folder(path, args.shared.as_deref(), &session)?),
            Location::Bucket(..) if sharing == Sharing::Group => {
                return Err(Failure::usage(
                    "--shared is for folders: the provider's policies control access to a bucket",
                ));
            }
            #[cfg(feature = "sqlite")]
            Location::Sqlite(_) if sharing == Sharing::Group => {
                return Err(Failure::usage("--shared is for folders: chmod and chgrp the file and its folder"));
            }
            #[cfg(feature = "sqlite")]
            Location::Sqlite(path) => {
                let options = open::sqlite_options(Execution::Inline, Durability::Full);
                session.bus_handle(SqliteStore::create(path, options, &*session.clock)?)
            }
            #[cfg(feature = "postgres")]
            Location::Postgres(..) if sharing == Sharing::Group => {
                return Err(Failure::usage("--shared is for folders: GRANT controls access to a database"));
            }
            #[cfg(feature = "postgres")]
            Location::Postgres(database, _) => {
                let store = PostgresStore::new((**database).clone(), Rc::clone(&session.clock), true);
                store.create_schema().await?;
                session.bus_handle(store)
            }
            Location::Bucket(bucket, _) => {
                let handle = session.bus_handle(BucketStore::connect(bucket)?);
                if handle.store.get(keys::BUS).await?.is_none() {
                    settings.probed = probed(&handle, &address.display).await?;
                }
                handle
            }
            Location::Server(_) => return Err(open::only_a_server(&address).into()),
        };
        let (bus, made) = OpenBus::create(handle, settings, &address.display).await?;
        let mut out = Out::new();
        if made {
            out.line(&format!("made the bus {}", address.display))?;
        } else {
            refuse_another(&bus.settings, &asked, &address.display)?;
            let since = bus.settings.created.to_rfc3339();
            out.line(&format!("the bus {} is there already (made {since}); nothing changed", address.display))?;
        }
        out.flush()?;
        Ok(Code::Done)
    })
}

/// Prints the definition of a database's tables, for those who may not make them by themselves.
fn print_sql(address: &BusAddress) -> Result<Code, Failure> {
    let Some(sql) = definition(&address.location) else {
        let what = format!("--print-sql is for PostgreSQL, and {} is none", address.display);
        return Err(Failure::usage(what).help(command("init", "--print-sql postgres://HOST/DATABASE")));
    };
    let mut out = Out::new();
    out.text(&sql)?;
    out.flush()?;
    Ok(Code::Done)
}

fn definition(location: &Location) -> Option<String> {
    match location {
        #[cfg(feature = "postgres")]
        Location::Postgres(database, _) => Some(schema::definition(&database.schema)),
        _ => None,
    }
}

/// The settings of a bus that the folder already holds. A bucket is checked later, once it is
/// connected.
async fn existing(address: &BusAddress, session: &Session) -> Result<Option<BusSettings>, Failure> {
    let Location::Dir(path) = &address.location else { return Ok(None) };
    if !path.join(keys::BUS).is_file() {
        return Ok(None);
    }
    let handle = session.bus_handle(DirStore::open(path, DirOptions::default(), &*session.clock)?);
    Ok(Some(OpenBus::open(handle, &address.display).await?.settings))
}

/// What `init` was asked for.
struct AskedSettings {
    max_event_bytes: Option<u64>,
    sharing: Sharing,
    segments: Option<bool>,
    max_depth: Option<u32>,
}

/// Refuses settings that differ from the existing bus: they are fixed at creation.
fn refuse_another(made: &BusSettings, asked: &AskedSettings, shown: &str) -> Result<(), Failure> {
    let there = format!("the bus {shown} is there already, and");
    let what = match asked.max_event_bytes {
        Some(bytes) if bytes != made.max_event_bytes => {
            format!("{there} takes events of up to {} bytes", style::thousands(made.max_event_bytes))
        }
        _ if asked.segments.is_some_and(|segments| segments != made.has_segments()) => {
            format!("{there} has {}segments", if made.has_segments() { "" } else { "no " })
        }
        _ if asked.max_depth.is_some_and(|most| most != made.max_depth) => {
            format!("{there} lets {} events cause each other", made.max_depth)
        }
        _ if asked.sharing == Sharing::Group && made.sharing != Sharing::Group => format!("{there} is not shared"),
        _ => return Ok(()),
    };
    Err(Failure::usage(what).help("make another one, and move to it as examples/move-bus does"))
}

/// Opens the folder of a bus, creating it if needed.
fn folder(path: &Path, shared: Option<&str>, session: &Session) -> Result<DirStore, Failure> {
    let group = shared.map(unix_group).transpose()?.flatten();
    let options = DirOptions { group_writable: shared.is_some(), ..DirOptions::default() };
    let store = DirStore::create(path, options, &*session.clock)?;
    if let Some(group) = group {
        store.give_to_group(group)?;
    }
    mount::refuse_caching(path)?;
    Ok(store)
}

/// Probes a bucket; one that lacks what the protocol needs is refused.
async fn probed(handle: &BusHandle, shown: &str) -> Result<Vec<String>, Failure> {
    // A bucket that is unreachable or forbidden has not failed the probe.
    let _ = handle.store.put_new(PROBE, b"").await?;
    handle.store.delete(PROBE).await?;
    let found = probe::probe(&*handle.store, &*handle.clock).await;
    if let Some((property, why)) =
        found.iter().find_map(|finding| Some((finding.property, finding.outcome.as_ref().err()?)))
    {
        return Err(Failure::failed(format!("{shown} cannot carry a bus: {property}: {why}"))
            .help(format!("use a store with conditional writes; evbus doctor --bus {shown} tries again")));
    }
    for finding in &found {
        if let Some(why) = &finding.warning {
            output::warn(&format!("{}: {why}", finding.property));
        }
    }
    Ok(found.iter().map(|finding| finding.property.to_string()).collect())
}

/// The number of a Unix group (group(5)); none for 'group', the folder's own.
fn unix_group(name: &str) -> Result<Option<u32>, Failure> {
    if name == "group" {
        return Ok(None);
    }
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    let unknown = || Failure::usage(format!("no Unix group '{name}'")).help("getent group; or give its number");
    number.map(Some).ok_or_else(unknown)
}
