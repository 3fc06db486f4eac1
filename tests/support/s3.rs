//! Real S3 servers for the tests. `./test` fetches them into `target/s3`; each test program starts
//! them once, on free ports of the loopback address, and they end with the program, however that
//! ends.
//!
//! A server is the child of a small shell that waits for the end of its stdin, which only this
//! process holds open.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use evbus::store::object::{Bucket, CredentialInputs, Kind};

/// The bucket that every server has.
pub const BUCKET: &str = "evbus";

/// An access key that may only read and list; its secret is `RS`.
pub const READER: &str = "RK";

/// The credentials, as the variables of the AWS tools.
pub const CREDENTIALS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "SK"), ("AWS_REGION", "us-east-1")];

/// A running server.
pub struct S3Server {
    pub endpoint: String,
    shell: Child,
}

impl S3Server {
    /// An unused prefix in its bucket.
    pub fn bucket(&self, prefix: &str) -> Bucket {
        Self::bucket_at(&self.endpoint, prefix)
    }

    /// The same at another endpoint.
    pub fn bucket_at(endpoint: &str, prefix: &str) -> Bucket {
        let settings = CREDENTIALS.into_iter().chain([("AWS_ENDPOINT_URL_S3", endpoint)]);
        let settings = settings.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Bucket {
            kind: Kind::S3,
            name: BUCKET.to_owned(),
            prefix: prefix.to_owned(),
            settings,
            identity: CredentialInputs::default(),
        }
    }
}

/// SeaweedFS's users (its wiki, Amazon S3 API: configuration file).
const IDENTITIES: &str = r#"{"identities": [
    {"name": "all", "credentials": [{"accessKey": "AK", "secretKey": "SK"}], "actions": ["Admin"]},
    {"name": "reader", "credentials": [{"accessKey": "RK", "secretKey": "RS"}], "actions": ["Read", "List"]}]}"#;

/// SeaweedFS: a real distributed store.
pub fn seaweedfs() -> &'static S3Server {
    static SERVER: OnceLock<S3Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let ports = free_ports(10);
        let flags = [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port.grpc",
            "admin.port",
            "admin.port.grpc",
        ];
        let mut line = format!(
            "printf '%s' '{IDENTITIES}' >who.json; exec {} -logtostderr=true mini -dir=\"$D/data\" -ip=127.0.0.1 \
             -ip.bind=127.0.0.1 -master.telemetry=false -admin.ui=false -webdav=false -s3.port.iceberg=0 \
             -s3.port.lance=0 -s3.config=who.json -bucket={BUCKET} -s3.port={}",
            program("weed").display(),
            ports[9]
        );
        for (flag, port) in flags.iter().zip(&ports) {
            line.push_str(&format!(" -{flag}={port}"));
        }
        // Its sockets are in /tmp, whatever the options.
        let sockets: Vec<String> = ports.iter().map(|port| format!("/tmp/seaweedfs-*-{port}.sock")).collect();
        start(&line, ports[9], &sockets.join(" "))
    })
}

/// Ministack: one process, strict in the order of its listings.
pub fn ministack() -> &'static S3Server {
    static SERVER: OnceLock<S3Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let port = free_ports(1)[0];
        let line = format!(
            "exec env BIND_HOST=127.0.0.1 GATEWAY_PORT={port} SERVICES=s3 S3_PERSIST=1 S3_DATA_DIR=\"$D\" PERSIST_STATE=1 \
             STATE_DIR=\"$D/state\" {}",
            program("ministack").display()
        );
        start(&line, port, "")
    })
}

/// `rclone serve s3`: ignores conditions, so evbus must refuse to make a bus on it.
pub fn rclone() -> &'static S3Server {
    static SERVER: OnceLock<S3Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let port = free_ports(1)[0];
        let line = format!(
            "mkdir \"$D/{BUCKET}\"; exec {} serve s3 --addr 127.0.0.1:{port} --config /dev/null \"$D\"",
            program("rclone").display()
        );
        start(&line, port, "")
    })
}

/// A server that can be killed and started again with its data.
pub struct Restartable {
    pub endpoint: String,
    port: u16,
    folder: tempfile::TempDir,
    server: Option<S3Server>,
}

impl Restartable {
    pub fn start() -> Self {
        let port = free_ports(1)[0];
        let folder = tempfile::tempdir().unwrap();
        let mut this = Self { endpoint: format!("http://127.0.0.1:{port}"), port, folder, server: None };
        this.restart();
        this
    }

    pub fn restart(&mut self) {
        let folder = self.folder.path().display();
        let line = format!(
            "exec env BIND_HOST=127.0.0.1 GATEWAY_PORT={} SERVICES=s3 S3_PERSIST=1 S3_DATA_DIR={folder} \
             PERSIST_STATE=1 STATE_DIR={folder}/state {}",
            self.port,
            program("ministack").display()
        );
        self.server = Some(start(&line, self.port, ""));
    }

    /// Kills it with -9, and waits for its end.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        drop(server.shell.stdin.take());
        server.shell.wait().unwrap();
    }
}

fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/s3/bin").join(name);
    assert!(path.exists(), "{} is not there: ./test fetches it", path.display());
    path
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Runs a server in its own folder until this process ends; files it leaves elsewhere are removed,
/// too.
fn start(line: &str, port: u16, leaves: &str) -> S3Server {
    let script = format!(
        "D=$(mktemp -d) || exit; export TMPDIR=\"$D\"; cd \"$D\"; ( {line} ) >\"$D/log\" 2>&1 </dev/null & server=$!\n\
         cat >/dev/null; kill -KILL $server; wait $server; cd /; rm -rf \"$D\" {leaves}"
    );
    let shell = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = S3Server { endpoint: format!("http://127.0.0.1:{port}"), shell };
    wait_until_ready(&server, port);
    server
}

#[allow(
    clippy::disallowed_methods,
    reason = "another process's start is waited for; how long it takes decides nothing"
)]
fn wait_until_ready(server: &S3Server, port: u16) {
    for _ in 0..600 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        if TcpStream::connect(("127.0.0.1", port)).is_ok() && answers(server) {
            return;
        }
    }
    panic!("no S3 server came up at {}", server.endpoint);
}

/// Whether the bucket can be written to; creates it on a server that allows that.
fn answers(server: &S3Server) -> bool {
    use std::io::{Read, Write};
    let host = server.endpoint.trim_start_matches("http://");
    if let Ok(mut stream) = TcpStream::connect(host) {
        let request =
            format!("PUT /{BUCKET} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut Vec::new()));
    }
    let bucket = server.bucket("ready");
    // On its own thread, because the calling test may be inside a runtime.
    let asked = std::thread::spawn(move || {
        use evbus::store::Store;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = evbus::store::object::BucketStore::connect(&bucket).unwrap();
        runtime.block_on(async { store.put_new("ready", b"").await.is_ok() })
    });
    asked.join().unwrap()
}
