//! A real Azure Blob Storage server for the tests, Microsoft's own. `./test` fetches it into
//! `target/azurite`; each test program starts one on a free port of the loopback address, and it
//! ends with the program, however that ends.
//!
//! It is the child of a small shell that waits for the end of its stdin, which only this process
//! holds open.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use evbus::store::object::{Bucket, CredentialInputs, Kind};

/// The server's container.
pub const CONTAINER: &str = "evbus";

/// The account that every Azurite has, and its key, which is no secret (Microsoft Learn, Use the
/// Azurite emulator: Well-known storage account and key).
pub const ACCOUNT: &str = "devstoreaccount1";
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// That account's signature for creating containers until 2099: the HMAC-SHA256 of the fields in it
/// (Azure Storage REST API, Create an account SAS). Written out, so that the tests need not sign.
const MAY_MAKE_CONTAINERS: &str = "sv=2021-12-02&ss=b&srt=c&sp=c&se=2099-01-01T00:00:00Z&spr=https,http&\
                                   sig=QWu0oVZ4%2BeILzOdtR9BJH1q34pfH2C5R%2BIcquMC0Xxo%3D";

/// A running server.
pub struct Azurite {
    /// With the account in its path, as `?endpoint=` and `AZURE_ENDPOINT` take it.
    pub endpoint: String,
    port: u16,
    shell: Child,
}

impl Azurite {
    /// An unused prefix in its container.
    pub fn bucket(&self, prefix: &str) -> Bucket {
        let settings = self.variables().map(|(name, value)| (name.to_ascii_lowercase(), value)).into();
        Bucket {
            kind: Kind::Azure,
            name: CONTAINER.to_owned(),
            prefix: prefix.to_owned(),
            settings,
            identity: CredentialInputs::default(),
        }
    }

    /// The same as a URL, for use with the variables.
    pub fn url(&self, prefix: &str) -> String {
        format!("az://{CONTAINER}/{prefix}")
    }

    /// Address and credentials, as the variables of Azure's tools.
    pub fn variables(&self) -> [(&'static str, String); 3] {
        [
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned()),
            ("AZURE_ENDPOINT", self.endpoint.clone()),
        ]
    }

    /// Creates the container; returns whether it exists.
    fn has_container(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let request = format!(
            "PUT /{ACCOUNT}/{CONTAINER}?restype=container&{MAY_MAKE_CONTAINERS} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.port
        );
        let mut answer = String::new();
        let asked = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        asked.is_ok() && ["HTTP/1.1 201", "HTTP/1.1 409"].iter().any(|there| answer.starts_with(there))
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "another process's start is waited for; how long it takes decides nothing"
    )]
    fn wait_until_ready(&self) {
        for _ in 0..600 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            if self.has_container() {
                return;
            }
        }
        panic!("no Azurite came up at {}", self.endpoint);
    }
}

/// The server of this test program.
pub fn azurite() -> &'static Azurite {
    static SERVER: OnceLock<Azurite> = OnceLock::new();
    SERVER.get_or_init(|| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let endpoint = format!("http://127.0.0.1:{port}/{ACCOUNT}");
        let server = Azurite { endpoint, port, shell: shell(port) };
        server.wait_until_ready();
        server
    })
}

fn program() -> PathBuf {
    let azurite = "target/azurite/node_modules/azurite/dist/src/blob/main.js";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(azurite);
    assert!(path.exists(), "{} is not there: ./test fetches it", path.display());
    path
}

/// Runs the server in its own folder until this process ends. Clients may use a newer version of
/// the protocol than the server.
fn shell(port: u16) -> Child {
    let script = format!(
        "D=$(mktemp -d) || exit; export TMPDIR=\"$D\" HOME=\"$D\"; cd \"$D\"; ( exec node '{}' --blobHost 127.0.0.1 \
         --blobPort {port} --location \"$D\" --skipApiVersionCheck --silent --disableTelemetry ) >\"$D/log\" 2>&1 \
         </dev/null & server=$!\ncat >/dev/null; kill -KILL $server; wait $server; cd /; rm -rf \"$D\"",
        program().display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().unwrap()
}
