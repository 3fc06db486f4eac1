//! What `doctor` looks at in a SQLite file.

use std::path::Path;
use std::rc::Rc;

use super::{Finding, content, machine, mounted, settings, tried};
use crate::bus::BusHandle;
use crate::cli::session::Session;
use crate::cli::{failure::Failure, style};
use crate::open;
use crate::store::dir::{Durability, Execution};
use crate::store::sqlite::SqliteStore;

/// A log that is larger than this is not taken in, in bytes.
const LONG_LOG: u64 = 256 << 20;

pub(super) async fn findings(path: &Path, session: &Session, shown: &str) -> Result<Vec<Finding>, Failure> {
    let options = open::sqlite_options(Execution::Threaded, Durability::Full);
    let store = Rc::new(SqliteStore::open(path, options, &*session.clock)?);
    let bus = BusHandle::new(store.clone(), Rc::clone(&session.clock));
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut findings = vec![settings(&bus, shown).await.0];
    findings.extend(mounted::mount(folder));
    findings.push(match store.ask("SELECT sqlite_version()").await {
        Ok(version) => Finding::ok("sqlite", format!("{version}, write-ahead log, synchronous=FULL")),
        Err(error) => Finding::error("sqlite", &error),
    });
    findings.push(match store.ask("PRAGMA quick_check(1)").await {
        Ok(answer) if answer == "ok" => Finding::ok("content", "quick_check"),
        Ok(answer) => Finding::fail("content", answer).cure("restore a backup, or sqlite3 FILE .recover"),
        Err(error) => Finding::error("content", &error),
    });
    findings.push(log(path));
    findings.push(Finding::ok("writers", "one at a time: a frozen one holds up the others"));
    findings.extend(tried(&*bus.store, &bus).await);
    findings.push(mounted::hints(&bus));
    findings.extend(mounted::room(folder));
    findings.push(machine::open_files());
    findings.extend(machine::inotify());
    findings.extend(content::findings(None, &bus).await);
    Ok(findings)
}

/// The size of the write-ahead log, which a frozen reader keeps from being taken in.
fn log(path: &Path) -> Finding {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    let size = std::fs::metadata(&name).map_or(0, |found| found.len());
    let detail = format!("{} bytes", style::thousands(size));
    if size > LONG_LOG {
        return Finding::warn("log", detail).cure("end the reader that keeps it from being taken in: fuser -v FILE");
    }
    Finding::ok("log", detail)
}
