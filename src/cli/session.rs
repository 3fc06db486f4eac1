//! What a command works with, resolved once: environment, config, address, bus.

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::EventfdFlags;

use super::failure::Failure;
use super::{help_line, output};
use crate::bus::{BusHandle, OpenBus};
use crate::clock::{Clock, SystemClock};
use crate::config::{BusAddress, Config, Environment, Location, Origin};
use crate::open;
use crate::remote::{Server, ServerError};
use crate::store::dir::{Durability, Execution};
use crate::store::{ErrorDetail, ErrorKind, Store, StoreError, system_words};

/// Options that every command has.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BusArgs {
    /// Use this bus: a path with a '/', file:///path, s3://bucket/prefix, postgres://host/database,
    /// sqlite:///file, https://server (emit, tail, watch), or a name from [buses.NAME] in the config
    #[arg(long, global = true, value_name = "BUS")]
    pub(super) bus: Option<OsString>,
    /// Read this config file (default: EVBUS_CONFIG, ./evbus.toml, ~/.config/evbus/evbus.toml,
    /// /etc/evbus/evbus.toml)
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// What a command works with.
pub(super) struct Session {
    pub(super) args: BusArgs,
    pub(super) environment: Environment,
    pub(super) clock: Rc<dyn Clock>,
}

/// An open bus and its address.
pub(super) struct Opened {
    pub(super) bus: OpenBus,
    pub(super) address: BusAddress,
}

impl Opened {
    pub(super) fn bus_handle(&self) -> &BusHandle {
        &self.bus.handle
    }

    /// The value of `EVBUS_URL` for handlers.
    pub(super) fn url(&self) -> String {
        match &self.address.location {
            Location::Dir(path) => path.display().to_string(),
            #[cfg(feature = "sqlite")]
            Location::Sqlite(path) => format!("sqlite://{}", path.display()),
            #[cfg(feature = "postgres")]
            Location::Postgres(_, url) => url.clone(),
            Location::Bucket(_, url) | Location::Server(url) => url.clone(),
        }
    }
}

impl Session {
    pub(super) fn new(args: BusArgs) -> Self {
        if let Some(bus) = &args.bus {
            help_line::name_bus(&bus.to_string_lossy());
        }
        let environment = Environment::from_process();
        if let Some(name) = environment.unknown_zone() {
            output::warn(&format!("the time zone TZ='{name}' is not known here: times are UTC"));
        }
        Self { args, environment, clock: Rc::new(SystemClock) }
    }

    /// The same, as of now.
    pub(super) fn anew(&self) -> Self {
        let environment = Environment { now: self.clock.now(), ..self.environment.clone() };
        Self { args: self.args.clone(), environment, clock: Rc::clone(&self.clock) }
    }

    /// Loads the config and prints its warnings.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let config = Config::load(&self.environment, self.args.config.as_deref())?;
        for warning in &config.warnings {
            output::warn(warning);
        }
        Ok(config)
    }

    /// Loads the config again, whose warnings have been printed.
    pub(super) fn config_quietly(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.environment, self.args.config.as_deref())?)
    }

    /// Loads the config again, which may be broken where it did not have to name the bus: then that is told.
    pub(super) fn config_or_warning(&self) -> Option<Config> {
        self.config_quietly().map_err(|failure| output::warn(failure.message())).ok()
    }

    /// The address of the bus.
    pub(super) fn address(&self) -> Result<BusAddress, Failure> {
        self.resolve(self.args.bus.as_deref())
    }

    /// The address of an archive, given to an option: a path, a URL, or a name from the config.
    pub(super) fn archive_address(&self, given: &OsStr) -> Result<BusAddress, Failure> {
        self.resolve(Some(given))
    }

    /// The config is read only if it can decide: a broken one does not stop `emit --bus`.
    fn resolve(&self, flag: Option<&OsStr>) -> Result<BusAddress, Failure> {
        let named = flag.or_else(|| self.environment.var("EVBUS_URL"));
        let is_path = named.is_some_and(|named| named.as_encoded_bytes().contains(&b'/'));
        let config = if is_path { Config::default() } else { self.config()? };
        Ok(BusAddress::resolve(&self.environment, &config, flag)?)
    }

    /// Opens the bus.
    pub(super) async fn open(&self, execution: Execution) -> Result<Opened, Failure> {
        self.open_at(self.address()?, execution, Durability::Full).await
    }

    /// Opens the bus at an address. Only the user's default bus is created if missing.
    pub(super) async fn open_at(
        &self,
        address: BusAddress,
        execution: Execution,
        durability: Durability,
    ) -> Result<Opened, Failure> {
        let bus = match address.origin {
            Origin::Default => open::or_make(&address, &self.clock, execution, durability).await?,
            _ => open::bus(&address, &self.clock, execution, durability).await?,
        };
        Ok(Opened { bus, address })
    }

    /// The server at an address, if it is one's; the token comes from `EVBUS_TOKEN`.
    pub(super) fn server(&self, address: &BusAddress) -> Result<Option<Server>, Failure> {
        let Location::Server(url) = &address.location else { return Ok(None) };
        let token = match self.environment.var("EVBUS_TOKEN") {
            None => None,
            Some(token) => match token.to_str().map(str::trim) {
                Some(token) => Some(token),
                None => return Err(Failure::usage("EVBUS_TOKEN is not UTF-8")),
            },
        };
        let server = Server::new(url, token).map_err(|error| match error {
            ServerError::Client(obstacle) if obstacle.is_temporary => Failure::failed(obstacle.why),
            error => Failure::usage(error.to_string()),
        })?;
        Ok(Some(server))
    }

    /// A store together with this session's clock.
    pub(super) fn bus_handle(&self, store: impl Store + 'static) -> BusHandle {
        BusHandle::new(Rc::new(store), Rc::clone(&self.clock))
    }
}

/// Longer than any process runs.
const FOREVER: Duration = Duration::from_hours(24 * 365 * 10);

/// What a runtime is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Only timers, because an emit must start fast.
    Time,
    /// Processes, signals, hints and the network.
    Everything,
}

impl Needs {
    /// What a write to a bus needs.
    pub(super) fn of(address: &BusAddress) -> Self {
        match &address.location {
            Location::Dir(_) => Self::Time,
            #[cfg(feature = "sqlite")]
            Location::Sqlite(_) => Self::Time,
            #[cfg(feature = "postgres")]
            Location::Postgres(..) => Self::Everything,
            Location::Bucket(..) | Location::Server(_) => Self::Everything,
        }
    }
}

/// Fails if the descriptors for the runtime's signals are not available: the runtime would abort
/// the process.
fn spare_descriptors() -> Result<(), Failure> {
    const RUNTIME: usize = 8;
    // eventfd needs no file, and a container may have none.
    let one = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC);
    let spare: rustix::io::Result<Vec<OwnedFd>> = (0..RUNTIME).map(|_| one()).collect();
    spare.map(drop).map_err(|errno| {
        let what = format!("cannot start: {}", system_words(&errno.into()));
        StoreError::new(ErrorKind::Unavailable, what).with_detail(ErrorDetail::TooManyOpenFiles).into()
    })
}

/// Runs a command's future on this thread.
pub(super) fn block_on<T>(needs: Needs, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    if needs == Needs::Everything {
        spare_descriptors()?;
    }
    let mut builder = tokio::runtime::Builder::new_current_thread();
    match needs {
        Needs::Time => builder.enable_time(),
        Needs::Everything => builder.enable_all().max_blocking_threads(4).thread_keep_alive(FOREVER),
    };
    let runtime =
        builder.build().map_err(|error| Failure::failed(format!("cannot start: {}", system_words(&error))))?;
    let ended = runtime.block_on(future);
    // A server's name may still be looked up, which nothing can cut short.
    runtime.shutdown_background();
    ended
}
