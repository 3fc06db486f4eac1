//! `evbus serve`: the HTTP face.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch as channel;

use super::exit::Code;
use super::failure::Failure;
use super::output;
use super::service::Service;
use super::session::{Needs, Session, block_on};
use super::watchers::{is_ignored, received};
use crate::config::{ListenAddress, Origin, ServeSettings};
use crate::group::worker::Stop;
use crate::serve::{Access, AccessError, HookError, Hooks, ListenError, Listeners};
use crate::{Bus, Error, serve};

/// How many files are open beside the connections.
const OTHER_FILES: u64 = 128;

/// Take events in and give them out over HTTP, until stopped
///
/// Listens on 127.0.0.1:8787 unless told otherwise, and shows the groups and events to a browser there.
/// Events that were answered with 202 are on the bus. Members of a group that cannot reach the store take
/// events from here. Tokens, TLS, and the webhooks of other services are set up in the config: see [serve]
/// in evbus.toml(5).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus serve
  curl -d '{\"rc\":0}' 'http://127.0.0.1:8787/events?type=backup.done'
  curl -X POST 'http://127.0.0.1:8787/groups/mail:receive?maxEvents=10'
  evbus watch --bus http://127.0.0.1:8787 -g mail -- ./send-mail
  evbus serve --listen unix:/run/evbus.sock --listen 8787

TERM, INT and HUP: requests under way are answered, and streams end; a second signal ends all at once.
Sockets that systemd hands over (sd_listen_fds(3)) are used in place of --listen.")]
pub(super) struct ServeArgs {
    /// Listen here: a port of the loopback interface, ADDRESS:PORT, or unix:PATH; may be repeated
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Do not print where it listens
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: ServeArgs, session: Session) -> Result<Code, Failure> {
    let mut settings = session.config()?.serve;
    if !args.listen.is_empty() {
        let environment = &session.environment;
        let parse = |text: &String| {
            ListenAddress::parse(text, environment, &environment.cwd).map_err(|why| {
                Failure::usage(format!("--listen '{}' {why}", text.escape_debug()))
                    .help("--listen 8787, --listen 127.0.0.1:8787 or --listen unix:/run/evbus.sock")
            })
        };
        settings.listen = args.listen.iter().map(parse).collect::<Result<_, _>>()?;
    }
    let address = session.address()?;
    let shown = address.to_string();
    block_on(Needs::Everything, async {
        // Before anything listens: what is configured must not be open to others.
        Access::new(&settings, &settings.listen)?;
        let may_make = address.origin == Origin::Default;
        let bus = Bus::open_at(address, may_make).await?;
        let hooks = Hooks::new(&settings)?;
        settings.max_connections = connections(settings.max_connections);
        let listeners = Listeners::open(&settings).await?;
        let addresses = listeners.addresses()?;
        let access = Access::new(&settings, &addresses)?;
        if !args.quiet {
            announce(&shown, &addresses, &settings);
        }
        let service = Service::new(&session.environment);
        let (stop, stopped) = channel::channel(false);
        let (living, alive) = channel::channel(Stop::No);
        service.notify("READY=1");
        let serving = serve::serve(&bus, settings, (access, hooks), listeners, stopped);
        tokio::select! { biased;
            () = serving => Ok(Code::Done),
            ended = on_signals(stop, living) => ended,
            () = service.notify_until_stopped(&*session.clock, alive) => Ok(Code::Done),
        }
    })
}

/// How many connections there may be: each is an open file, of which there are only so many.
fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    let soft = match limit.current {
        Some(soft) if soft < needed => {
            let raised = Rlimit { current: limit.maximum.map_or(Some(needed), |most| Some(most.min(needed))), ..limit };
            let done = setrlimit(Resource::Nofile, raised).is_ok();
            if done { raised.current } else { limit.current }
        }
        soft => soft,
    };
    match soft.filter(|soft| *soft < needed) {
        None => wanted,
        Some(soft) => {
            let fit = usize::try_from(soft.saturating_sub(OTHER_FILES)).unwrap_or(wanted).max(1);
            output::warn(&format!("at most {fit} connections: a process may have {soft} open files here (ulimit -n)"));
            fit
        }
    }
}

fn announce(bus: &str, addresses: &[ListenAddress], settings: &ServeSettings) {
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    for address in addresses {
        match address {
            ListenAddress::Tcp(address) => output::note(&format!("serving {bus} on {scheme}://{address}")),
            ListenAddress::Unix(path) => output::note(&format!("serving {bus} on unix:{}", path.display())),
        }
    }
}

/// After the first signal what is under way may finish; the second ends it.
async fn on_signals(stop: channel::Sender<bool>, living: channel::Sender<Stop>) -> Result<Code, Failure> {
    let cannot = |error| Failure::failed(format!("cannot listen for signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    // Under nohup it is ignored.
    let hang_up = SignalKind::hangup();
    let mut hup = if is_ignored(hang_up) { None } else { Some(signal(hang_up).map_err(cannot)?) };
    for _ in 0..2 {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = received(&mut hup) => {}
        }
        stop.send_replace(true);
        living.send_replace(Stop::Starts);
    }
    Ok(Code::Done)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Address(error) => error.into(),
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<HookError> for Failure {
    fn from(error: HookError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::Bind { .. } => Self::failed(error.to_string()).help("--listen, or listen in [serve]"),
            ListenError::Tls(_) | ListenError::Inherited(..) => Self::usage(error.to_string()),
        }
    }
}
