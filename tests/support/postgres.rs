//! Real PostgreSQL servers for the tests, Debian's. Each test program starts the ones that it needs, on free ports of the
//! loopback address, and they end with the program, however that ends.
//!
//! A server is the child of a small shell that waits for the end of its stdin, which only this process holds open. A
//! server that runs as root refuses to start, so that the shell is nobody's then.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use tempfile::TempDir;

/// The superuser of every server here, who needs no password.
pub const USER: &str = "tester";

/// A running server.
pub struct Postgres {
    pub port: u16,
    pub folder: TempDir,
    settings: String,
    /// The size of a file system of its own at `small`, if it has one.
    small_disk: Option<String>,
    shell: Child,
}

/// The folder of the newest server's programs, which Debian does not put into PATH.
pub fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql");
    let versions = versions.unwrap_or_else(|error| panic!("PostgreSQL is not there ({error}): ./test installs it"));
    let mut folders: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path().join("bin")).collect();
    folders.retain(|bin| bin.join("initdb").exists());
    folders.sort();
    folders.pop().unwrap_or_else(|| panic!("PostgreSQL's server is not there: ./test installs it"))
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a shell is begun with that may mount a file system, which it alone sees.
const MOUNTING: [&str; 5] = ["unshare", "--user", "--map-current-user", "--mount", "--keep-caps"];

/// A shell that runs a script, as nobody if this process is root's; its end of stdin is the script's sign to end.
pub fn shell(script: &str) -> Child {
    shell_within(&[], script)
}

fn shell_within(first: &[&str], script: &str) -> Child {
    let nobody: &[&str] = match is_root() {
        true => &["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"],
        false => &[],
    };
    let mut words = nobody.iter().chain(first).chain(&["sh", "-c"]);
    let mut shell = Command::new(words.next().unwrap());
    shell.args(words).arg(script).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().unwrap()
}

/// A folder that the server's user may write in.
pub fn folder() -> TempDir {
    let folder = TempDir::with_prefix("evbus-pg-").unwrap();
    if is_root() {
        assert!(Command::new("chown").arg("nobody").arg(folder.path()).status().unwrap().success());
    }
    folder
}

impl Postgres {
    /// A new server with these settings besides its own: `wal_level=replica`.
    pub fn start(settings: &[&str]) -> Self {
        Self::of("-E UTF8 --locale=C.UTF-8", settings)
    }

    /// A new server of a cluster that `initdb` makes with these options.
    pub fn of(options: &str, settings: &[&str]) -> Self {
        let folder = folder();
        let make = Self::make(&folder, options);
        Self::run(folder, &make, settings)
    }

    /// A new server that sees a file system of this size at `small` in its folder.
    pub fn on_a_small_disk(size: &str, settings: &[&str]) -> Self {
        let folder = folder();
        let make = Self::make(&folder, "-E UTF8 --locale=C.UTF-8");
        let mut server = Self::stopped(folder, settings);
        server.small_disk = Some(size.to_owned());
        server.begin(&make);
        server
    }

    fn make(folder: &TempDir, options: &str) -> String {
        let (bin, at) = (programs().display().to_string(), folder.path().display());
        format!("{bin}/initdb -D {at}/data -U {USER} -A trust {options} --no-sync")
    }

    fn stopped(folder: TempDir, settings: &[&str]) -> Self {
        let mut server =
            Self { port: free_port(), settings: String::new(), small_disk: None, shell: shell("exit"), folder };
        server.set(settings);
        server
    }

    /// Gives the server other settings, for when it is started the next time.
    pub fn set(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|setting| format!(" -c '{setting}'")).collect();
    }

    /// Runs a server on the folder's `data`, which the command makes.
    pub fn run(folder: TempDir, make: &str, settings: &[&str]) -> Self {
        let mut server = Self::stopped(folder, settings);
        server.begin(make);
        server
    }

    /// Starts the server, again if it was killed.
    pub fn begin(&mut self, make: &str) {
        let (at, bin, port, settings) = (self.folder.path().display(), programs(), self.port, &self.settings);
        let mount = self.small_disk.as_ref().map_or(String::new(), |size| {
            format!("mkdir -p {at}/small && mount -t tmpfs -o size={size} none {at}/small || exit\n")
        });
        let script = format!(
            "{mount}{make} >{at}/log 2>&1 || exit\n\
             {0}/postgres -D {at}/data -k {at} -p {port} -c listen_addresses=127.0.0.1 -c max_connections=200{settings} \
             >>{at}/log 2>&1 </dev/null & server=$!; echo $server >{at}/pid\n\
             cat >/dev/null; kill -CONT $server; kill -QUIT $server; wait $server; cd /; rm -rf {at}",
            bin.display()
        );
        let _ = self.shell.wait();
        self.shell = shell_within(if self.small_disk.is_some() { &MOUNTING } else { &[] }, &script);
        self.wait_until_ready();
    }

    /// Ends the server at once, as a loss of power would; [`Postgres::begin`] with `true` starts it again.
    pub fn kill(&mut self) {
        let pid = self.pid().to_string();
        // The server's other processes hold its memory for a moment, and another server does not start meanwhile.
        let children = Command::new("pgrep").args(["-P", &pid]).output().unwrap().stdout;
        let children = String::from_utf8(children).unwrap();
        assert!(Command::new("kill").args(["-KILL", &pid]).args(children.split_whitespace()).status().is_ok());
        // The script removes the data at its end, so it is ended, too.
        let _ = Command::new("kill").args(["-KILL", &self.shell.id().to_string()]).status();
        let _ = self.shell.wait();
        // The process may not have been waited for by its new parent, and would count as alive.
        for lock in ["data/postmaster.pid".to_owned(), format!(".s.PGSQL.{}.lock", self.port)] {
            let _ = fs::remove_file(self.folder.path().join(lock));
        }
    }

    /// The socket's folder, the port and the superuser, as a URL of a schema of the database `postgres`.
    pub fn url(&self, schema: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres?schema={schema}", self.port)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "another process's start is waited for; how long it takes decides nothing"
    )]
    pub fn wait_until_ready(&self) {
        for _ in 0..1_200 {
            if self.psql("SELECT 1").status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("no PostgreSQL: {}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        fs::read_to_string(self.folder.path().join("pid")).unwrap().trim().parse().unwrap()
    }

    pub fn psql_command(&self) -> Command {
        let mut command = Command::new("psql");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-U",
            USER,
            "-d",
            "postgres",
        ]);
        command.args(["-p", &self.port.to_string()]);
        command
    }

    pub fn psql(&self, sql: &str) -> Output {
        self.psql_command().args(["-c", sql]).output().unwrap()
    }

    /// What psql prints for a statement that must succeed.
    pub fn answer(&self, sql: &str) -> String {
        let output = self.psql(sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// The server of this test program that all tests may use which do not disturb others.
pub fn postgres() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(&[]))
}

/// A server of this test program whose cluster `initdb` makes with these options.
pub fn of(options: &'static str) -> &'static Postgres {
    static SERVERS: Mutex<BTreeMap<&str, &Postgres>> = Mutex::new(BTreeMap::new());
    SERVERS.lock().unwrap().entry(options).or_insert_with(|| Box::leak(Box::new(Postgres::of(options, &[]))))
}

/// A name that no other test of this program uses.
pub fn new_schema() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("bus_{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Reads what a process prints.
pub fn text(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

/// A file of the folder with this content.
pub fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
    path
}
