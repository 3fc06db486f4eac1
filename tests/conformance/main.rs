//! One suite for every store, and tests of the directory alone.
//!
//! A new store is proved by one more `conformance!` line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed"
)]

use std::future::Future;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use evbus::clock::SystemClock;
use evbus::store::dir::{DirOptions, DirStore, Durability, Execution};
use evbus::store::memory::{Calm, Contents, MemoryStore};
use evbus::store::object::{Bucket, BucketStore, CredentialInputs, Kind};
use evbus::store::{Profile, Store};
use mini::{Etags, Mini, MiniOptions, ServerMode};
use tempfile::TempDir;

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/group.rs"]
mod group;
#[path = "../support/mini.rs"]
mod mini;
#[path = "../support/mini/tests.rs"]
mod mini_tests;
#[cfg(feature = "postgres")]
#[path = "../support/postgres.rs"]
mod postgres_server;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/s3.rs"]
mod s3;

mod directory;
mod faults;
mod hints;
mod list_with_tail;
mod listing;
mod probe;
mod race;
mod suite;

/// A store to test, and its folder, if it has one.
struct StoreFixture {
    store: Rc<dyn Store>,
    _folder: Option<TempDir>,
}

fn memory() -> StoreFixture {
    let profile = Profile {
        lag: Duration::ZERO,
        commit_gap: Duration::ZERO,
        hold: Duration::ZERO,
        poll: (Duration::ZERO, Duration::ZERO),
        batch: 512,
        scans_folders: false,
    };
    let store = MemoryStore::new(Rc::new(Contents::default()), Rc::new(Calm), profile);
    StoreFixture { store: Rc::new(store), _folder: None }
}

fn dir(execution: Execution, durability: Durability) -> StoreFixture {
    let folder = TempDir::new().unwrap();
    let options = DirOptions { durability, execution, ..DirOptions::default() };
    let store = DirStore::create(&folder.path().join("bus"), options, &SystemClock).unwrap();
    StoreFixture { store: Rc::new(store), _folder: Some(folder) }
}

/// A new prefix in a server's bucket.
fn bucket(at: impl FnOnce(&str) -> Bucket) -> StoreFixture {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let prefix = format!("test/{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    StoreFixture { store: Rc::new(BucketStore::connect(&at(&prefix)).unwrap()), _folder: None }
}

/// The tests' own server, as Google's clients see it: its listings have no versions that the crate
/// would read.
fn google(prefix: &str) -> Bucket {
    static SERVER: OnceLock<Mini> = OnceLock::new();
    let server = SERVER.get_or_init(|| Mini::start(MiniOptions::default()));
    let settings = [("google_base_url", server.endpoint()), ("google_bearer_token", "t".to_owned())];
    of_settings(Kind::Gcs, prefix, settings)
}

/// The same as an S3 server that lists without ETags.
fn without_etags(prefix: &str) -> Bucket {
    static SERVER: OnceLock<Mini> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let server = Mini::start(MiniOptions { etags: Etags::Content, ..MiniOptions::default() });
        server.behave(&[ServerMode::NoListEtags]);
        server
    });
    let keys = s3::CREDENTIALS.map(|(name, value)| (name, value.to_owned()));
    of_settings(Kind::S3, prefix, keys.into_iter().chain([("aws_endpoint_url_s3", server.endpoint())]))
}

fn of_settings<'a>(kind: Kind, prefix: &str, settings: impl IntoIterator<Item = (&'a str, String)>) -> Bucket {
    let settings = settings.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    Bucket {
        kind,
        name: s3::BUCKET.to_owned(),
        prefix: prefix.to_owned(),
        settings,
        identity: CredentialInputs::default(),
    }
}

/// A new schema of a database; `options` are those of each session, as a role's or a database's may be.
#[cfg(feature = "postgres")]
fn postgres(server: &postgres_server::Postgres, options: &str) -> StoreFixture {
    use evbus::store::postgres::{Database, PostgresStore, Ssl, SslMode};
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.port).user(postgres_server::USER).dbname("postgres").options(options);
    let database = Database {
        config,
        schema: postgres_server::new_schema(),
        ssl: Ssl { mode: SslMode::Prefer, root: None, identity: None },
        listen: None,
        unused_passwords: None,
        timeout: None,
    };
    let sql = evbus::store::postgres::schema::definition(&database.schema);
    server.answer(&sql);
    let store = PostgresStore::new(database, Rc::new(SystemClock), true);
    StoreFixture { store: Rc::new(store), _folder: None }
}

/// A bus in a SQLite file.
#[cfg(feature = "sqlite")]
fn sqlite(is_threaded: bool, is_durable: bool) -> StoreFixture {
    use evbus::store::sqlite::{SqliteOptions, SqliteStore};
    let folder = TempDir::new().unwrap();
    let options = SqliteOptions { is_durable, is_threaded, timeout: None };
    let store = SqliteStore::create(&folder.path().join("bus.db"), options, &SystemClock).unwrap();
    StoreFixture { store: Rc::new(store), _folder: Some(folder) }
}

/// Runs a future as the program does: one thread, with I/O and time.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

macro_rules! conformance {
    ($name:ident, $make:expr) => {
        conformance!(@ $name, $make;
            suite: odd_characters_are_kept;
            listing: nested_folders_are_listed_in_byte_order, a_listing_after_a_folder_name_includes_its_contents,
            random_listings_match_a_sorted_set;
        );
    };
    // What evbus needs, of the keys that it makes.
    (@ $name:ident, $make:expr; $($more:ident: $($beyond:ident),*;)*) => {
        mod $name {
            use super::*;
            conformance!(# $make;
                suite: an_object_is_created_once, an_absent_key_reads_as_none,
                a_register_is_swapped_from_its_version_only, swaps_form_a_chain, stale_and_future_versions_conflict,
                deleting_is_final_and_idempotent, concurrent_puts_and_gets_succeed,
                concurrent_creates_have_one_winner, large_objects_are_stored, many_objects_are_put_in_one_call,
                events_of_a_hash_slot_become_visible_in_order, many_objects_are_deleted_in_one_call,
                a_persisted_object_can_be_read, an_object_over_the_limit_is_not_read, a_closed_gate_ends_a_batch;
                listing: after_is_exclusive, limit_and_truncation_are_exact, a_listing_keeps_what_its_filter_accepts,
                a_register_is_listed_once, a_listing_is_complete_after_every_put, pages_cover_all_of_10_000_keys;
                list_with_tail: a_list_with_tail_shows_every_change_or_has_no_tail,
                a_list_with_tail_shows_scheduled_entries_or_has_no_tail;
                $($more: $($beyond),*;)*
            );
        }
    };
    (# $make:expr; $($module:ident: $($check:ident),*;)*) => {
        $($(
            #[test]
            fn $check() {
                let make = || $make;
                block_on($module::$check(&make));
            }
        )*)*
    };
}

conformance!(memory_calm, memory());
conformance!(dir_inline_full, dir(Execution::Inline, Durability::Full));
conformance!(dir_inline_none, dir(Execution::Inline, Durability::None));
conformance!(dir_threaded_full, dir(Execution::Threaded, Durability::Full));
conformance!(dir_threaded_none, dir(Execution::Threaded, Durability::None));
conformance!(ministack, bucket(|prefix| s3::ministack().bucket(prefix)));
#[cfg(feature = "sqlite")]
conformance!(sqlite_inline, sqlite(false, true));
#[cfg(feature = "sqlite")]
conformance!(sqlite_threaded, sqlite(true, true));
#[cfg(feature = "sqlite")]
conformance!(sqlite_not_durable, sqlite(false, false));
#[cfg(feature = "postgres")]
conformance!(postgres_server_defaults, postgres(postgres_server::postgres(), ""));
// Defaults that would break the protocol, if statements did not say otherwise.
#[cfg(feature = "postgres")]
conformance!(
    postgres_odd_defaults,
    postgres(
        postgres_server::postgres(),
        "-c default_transaction_isolation=serializable -c default_transaction_read_only=on -c synchronous_commit=off \
         -c standard_conforming_strings=off -c search_path=nowhere"
    )
);
// Databases whose encoding and order of texts are others.
#[cfg(feature = "postgres")]
conformance!(postgres_sql_ascii, postgres(postgres_server::of("-E SQL_ASCII --locale=C"), ""));
#[cfg(feature = "postgres")]
conformance!(postgres_icu, postgres(postgres_server::of("-E UTF8 --locale-provider=icu --icu-locale=de-DE"), ""));
conformance!(google, bucket(google));
conformance!(without_etags, bucket(without_etags));
// Azurite treats a backslash as a slash.
conformance!(@ azure, bucket(|prefix| azurite::azurite().bucket(prefix));
    listing: nested_folders_are_listed_in_byte_order, a_listing_after_a_folder_name_includes_its_contents,
    random_listings_match_a_sorted_set;
);
// SeaweedFS lists by folders instead of by bytes, and treats a backslash as a slash.
conformance!(@ seaweedfs, bucket(|prefix| s3::seaweedfs().bucket(prefix)););

/// A put tells less of the server than a read: what it does not know, it must ask for.
#[cfg(feature = "postgres")]
#[test]
fn a_put_after_a_restart_of_the_server_succeeds_and_shows_it() {
    use evbus::store::{ErrorKind, Put, Swap};
    let mut at = postgres_server::Postgres::start(&[]);
    let StoreFixture { store, .. } = postgres(&at, "");
    block_on(async {
        let Swap::Swapped(_) = store.cas("frontier", None, b"{}").await.unwrap() else { panic!("it was there") };
        assert_eq!(store.put_new("events/20261130/0902/a.json", b"a").await.unwrap(), Put::Created);
        let before = store.rewinds();
        at.kill();
        at.begin("true");
        let put = loop {
            match store.put_new("events/20261130/0902/b.json", b"b").await {
                Ok(put) => break put,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
        };
        assert_eq!((put, store.rewinds()), (Put::Created, before + 1));
    });
}
