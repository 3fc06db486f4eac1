//! `evbus init`: make a bus.

use std::ffi::OsString;

use super::exit::Code;
use super::failure::Failure;
use super::output::Out;
use super::session::{Needs, Session, block_on};
use super::times;
use crate::bus::{Bus, Sharing};
use crate::config::{BusAddress, Config, Location};
use crate::store::dir::{DirOptions, DirStore};
use crate::store::mount;

/// Make a bus
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus init /srv/bus
  evbus init --shared staff --max-event 8MiB /srv/bus
  evbus init                    # the bus that --bus, EVBUS_URL or the config names")]
pub(super) struct Args {
    /// Where: a path with a '/', or a name from [buses.NAME] in the config
    #[arg(value_name = "BUS")]
    bus: Option<OsString>,
    /// Let this Unix group write, whatever anybody's umask: a name, a number, or 'group' for the folder's own
    #[arg(long, value_name = "GROUP")]
    shared: Option<String>,
    /// The largest event, for good
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    max_event: String,
}

pub(super) fn run(args: Args, session: Session) -> Result<Code, Failure> {
    let max_event_bytes = times::parse_size(&args.max_event)?;
    if max_event_bytes == 0 {
        return Err(Failure::usage("--max-event 0B leaves no room for any event").help("evbus init --max-event 1MiB"));
    }
    let address = match &args.bus {
        // What is made need not have a '/': `evbus init bus` is as clear as `mkdir bus`.
        Some(bus) if !bus.as_encoded_bytes().contains(&b'/') && session.config()?.buses.is_empty() => {
            let path = session.world.cwd.join(bus);
            BusAddress::resolve(&session.world, &Config::default(), Some(path.as_os_str()))?
        }
        Some(bus) => BusAddress::resolve(&session.world, &session.config()?, Some(bus))?,
        None => session.address()?,
    };
    block_on(Needs::Time, async {
        let Location::Dir(path) = &address.location;
        let sharing = if args.shared.is_some() { Sharing::Group } else { Sharing::Umask };
        let options = DirOptions { group_writable: sharing == Sharing::Group, ..DirOptions::default() };
        let group = args.shared.as_deref().map(unix_group).transpose()?.flatten();
        let store = DirStore::create(path, options, &*session.clock)?;
        if let Some(group) = group {
            store.give_to_group(group)?;
        }
        mount::refuse_caching(path)?;
        let (bus, made) = Bus::create(session.place(store), max_event_bytes, sharing, &address.display).await?;
        let mut out = Out::new();
        if made {
            out.line(&format!("made the bus {}", address.display))?;
        } else {
            let since = bus.settings.created.to_rfc3339();
            out.line(&format!("the bus {} is there already (made {since}); nothing changed", address.display))?;
        }
        out.flush()?;
        Ok(Code::Done)
    })
}

/// The number of a Unix group, as group(5) lists it; none for the folder's own.
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
