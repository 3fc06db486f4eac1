//! Opening the bus at an address.

use std::path::Path;
use std::rc::Rc;

use crate::archive::{self, Archive};
use crate::bus::{BusHandle, BusSettings, MAX_EVENT_BYTES, OpenBus, Sharing, keys};
use crate::clock::Clock;
use crate::config::{BusAddress, Location};
use crate::store::dir::{DirOptions, DirStore, Durability, Execution};
use crate::store::object::BucketStore;
#[cfg(feature = "postgres")]
use crate::store::postgres::PostgresStore;
#[cfg(feature = "sqlite")]
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{ErrorDetail, ErrorKind, Store, StoreError, StoreResult, mount, system_words};
use crate::threads;

/// Opens the bus at an address. A worker's bus is opened with [`Execution::Threaded`].
///
/// # Errors
/// There is no bus, or it cannot be used from here.
pub async fn bus(
    address: &BusAddress,
    clock: &Rc<dyn Clock>,
    execution: Execution,
    durability: Durability,
) -> StoreResult<OpenBus> {
    match &address.location {
        Location::Dir(path) => {
            let options = DirOptions { execution, durability, group_writable: false };
            directory(path, options, &address.display, clock).await
        }
        Location::Bucket(bucket, _) => {
            start_resolver_thread()?;
            let handle = BusHandle::new(Rc::new(BucketStore::connect(bucket)?), Rc::clone(clock));
            OpenBus::open(handle, &address.display).await
        }
        #[cfg(feature = "postgres")]
        Location::Postgres(database, _) => {
            start_resolver_thread()?;
            let store = PostgresStore::new((**database).clone(), Rc::clone(clock), durability == Durability::Full);
            let opened = OpenBus::open(BusHandle::new(Rc::new(store), Rc::clone(clock)), &address.display).await;
            opened.map_err(|error| with_address(error, address))
        }
        #[cfg(feature = "sqlite")]
        Location::Sqlite(path) => {
            let options = sqlite_options(execution, durability);
            let opened = match SqliteStore::open(path, options, &**clock) {
                Ok(store) => OpenBus::open(BusHandle::new(Rc::new(store), Rc::clone(clock)), &address.display).await,
                Err(error) => Err(error),
            };
            opened.map_err(|error| with_address(error, address))
        }
        Location::Server(_) => Err(only_a_server(address)),
    }
}

/// How a SQLite file is opened.
#[cfg(feature = "sqlite")]
pub fn sqlite_options(execution: Execution, durability: Durability) -> SqliteOptions {
    let (is_durable, is_threaded) = (durability == Durability::Full, execution == Execution::Threaded);
    SqliteOptions { is_durable, is_threaded, timeout: None }
}

/// The error that there is no bus, with its address, by which one can be made.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn with_address(error: StoreError, address: &BusAddress) -> StoreError {
    match (error.kind(), error.detail()) {
        (ErrorKind::NoBus, None) => error.with_detail(ErrorDetail::NoBus { address: address.display.clone() }),
        _ => error,
    }
}

/// The error for the address of a server where the bus itself is needed.
pub fn only_a_server(address: &BusAddress) -> StoreError {
    let what = format!("{} is a server, through which only emit, tail and watch go", address.display);
    StoreError::new(ErrorKind::NoBus, what)
}

/// The same; makes a directory's bus that is not there.
///
/// # Errors
/// See [`bus`]; or the folder cannot be made. A bus in a bucket is not made.
pub async fn or_make(
    address: &BusAddress,
    clock: &Rc<dyn Clock>,
    execution: Execution,
    durability: Durability,
) -> StoreResult<OpenBus> {
    match (bus(address, clock, execution, durability).await, &address.location) {
        (Err(error), Location::Dir(path)) if error.kind() == ErrorKind::NoBus => {
            let options = DirOptions { execution, durability, group_writable: false };
            let handle = BusHandle::new(Rc::new(DirStore::create(path, options, &**clock)?), Rc::clone(clock));
            let settings = BusSettings::new(clock.now(), MAX_EVENT_BYTES, Sharing::Umask);
            Ok(OpenBus::create(handle, settings, &address.display).await?.0)
        }
        (opened, _) => opened,
    }
}

/// Opens the archive at an address; with `make` it is made if there is none.
///
/// # Errors
/// There is none; there is a bus; or the store fails.
pub async fn archive(address: &BusAddress, clock: &Rc<dyn Clock>, make: bool) -> StoreResult<Archive> {
    let store: Rc<dyn Store> = match &address.location {
        Location::Dir(path) => {
            let options =
                DirOptions { execution: Execution::Inline, durability: Durability::Full, group_writable: false };
            // What is a bus is no archive, and stays as it is.
            Rc::new(match make && !path.join(keys::BUS).exists() {
                true => DirStore::create(path, options, &**clock)?,
                false => DirStore::open(path, options, &**clock).map_err(|error| match error.kind() {
                    ErrorKind::NoBus => archive::missing(&address.display),
                    _ => error,
                })?,
            })
        }
        Location::Bucket(bucket, _) => {
            start_resolver_thread()?;
            Rc::new(BucketStore::connect(bucket)?)
        }
        #[cfg(feature = "postgres")]
        Location::Postgres(..) => {
            let what = format!("{} is a database, and an archive is a folder or a bucket", address.display);
            return Err(StoreError::new(ErrorKind::Unfit, what));
        }
        #[cfg(feature = "sqlite")]
        Location::Sqlite(_) => {
            let what = format!("{} is a database, and an archive is a folder or a bucket", address.display);
            return Err(StoreError::new(ErrorKind::Unfit, what));
        }
        Location::Server(_) => return Err(only_a_server(address)),
    };
    match make {
        true => Archive::open_or_make(store, &address.display, clock.now()).await,
        false => Archive::open(store, &address.display).await,
    }
}

async fn directory(path: &Path, options: DirOptions, shown: &str, clock: &Rc<dyn Clock>) -> StoreResult<OpenBus> {
    let handle = |options| -> StoreResult<BusHandle> {
        Ok(BusHandle::new(Rc::new(DirStore::open(path, options, &**clock)?), Rc::clone(clock)))
    };
    let bus = OpenBus::open(handle(options)?, shown).await?;
    if options.execution == Execution::Threaded {
        // Workers rely on listings; a mount that hides other hosts' events would lose some.
        mount::refuse_caching(path)?;
    }
    match bus.settings {
        BusSettings { sharing: Sharing::Group, .. } => {
            Ok(OpenBus { handle: handle(DirOptions { group_writable: true, ..options })?, ..bus })
        }
        _ => Ok(bus),
    }
}

fn start_resolver_thread() -> StoreResult<()> {
    threads::start_resolver().map_err(|error| {
        let what = format!("{}: {}", threads::NO_RESOLVER, system_words(&error));
        StoreError::new(ErrorKind::Unavailable, what).with_detail(ErrorDetail::NoThreads).with_source(error)
    })
}
