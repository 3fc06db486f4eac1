//! `evbus relay`: moves the rows of an outbox to the bus.

use std::ffi::OsString;

use tokio::sync::watch;

use super::exit::Code;
use super::failure::Failure;
use super::output::{self, Out};
use super::relays::{self, RelayPlan};
use super::session::{Needs, Session, block_on};
use super::watchers;
use crate::config::Origin;
use crate::group::worker::Stop;
use crate::relay::{Columns, ColumnsError};
use crate::store::dir::{Durability, Execution};

/// Move the rows of an outbox, a table in an application's database, to the bus
///
/// The application inserts a row in its own transaction. Each row becomes an event with the row's id, and is deleted once
/// the event is acknowledged. Rows that are no events are parked beside, with the reason.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus relay --from postgres://app@db/shop          # the table evbus.outbox, onto the bus
  evbus relay --from sqlite:///srv/app/app.db --once
  evbus relay --from postgres://app@db/shop --table app.outbox --map id=event_id,type=kind,data=payload
  evbus relay --from postgres://app@db/shop --parked")]
pub(super) struct RelayArgs {
    /// The database of the outbox: postgres://host/database, sqlite:///file, or a name from
    /// [buses.NAME] in the config
    #[arg(long, value_name = "DATABASE")]
    from: OsString,
    /// The table [default: evbus.outbox, or evbus_outbox in a SQLite file]
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Which columns of the table mean what: id=COLUMN,type=COLUMN,data=COLUMN,… of n, id, type,
    /// source, subject, key, data, attr, time
    #[arg(long, value_name = "MAP", requires = "table", conflicts_with = "preset")]
    map: Option<String>,
    /// The columns of another program's table: debezium
    #[arg(long, value_name = "NAME", requires = "table")]
    preset: Option<String>,
    /// The source of rows that name none, a URI reference [default: /DATABASE/TABLE]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// Move what is there, then end
    #[arg(long)]
    once: bool,
    /// Print the rows that are no events, one JSON line each, with the reason
    #[arg(long, conflicts_with = "once")]
    parked: bool,
    /// Put the parked rows back, to be tried again
    #[arg(long, conflicts_with_all = ["once", "parked"])]
    redrive: bool,
    /// Print no summary
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: RelayArgs, session: Session) -> Result<Code, Failure> {
    let refused = |error: ColumnsError| Failure::usage(format!("--map or --preset: {error}"));
    let columns = match (&args.map, &args.preset) {
        (Some(map), _) => Columns::parse(map).map_err(refused)?,
        (None, Some(preset)) => Columns::preset(preset).map_err(refused)?,
        (None, None) => Columns::own(),
    };
    let from = session.archive_address(&args.from)?;
    let name = from.display.clone();
    let plan = RelayPlan { name, from, table: args.table.clone(), columns, source: args.source.clone() };
    block_on(Needs::Everything, async {
        if args.parked || args.redrive {
            return look(&args, &plan, &session).await;
        }
        let address = session.address()?;
        if address.origin == Origin::Default {
            // Rows are deleted: they must not go to a bus that nobody reads.
            let what = "rows go to no bus that was not named";
            return Err(Failure::usage(what).help("--bus, EVBUS_URL, or [bus] url in the config names it"));
        }
        let opened = session.open_at(address, Execution::Threaded, Durability::Full).await?;
        let mut relay = plan.open(&opened, &session).await?;
        let moved = if args.once {
            relays::once(&mut relay).await?
        } else {
            if !args.quiet {
                output::note(&format!("moving rows from {} to {}", plan.from.display, opened.address));
            }
            let (stop, stopped) = watch::channel(Stop::No);
            let follow = relays::follow(&plan.name, &mut relay, &session, stopped);
            tokio::select! { biased;
                moved = follow => moved?,
                failure = watchers::on_signals(stop) => {
                    failure?;
                    return Ok(Code::Done);
                }
            }
        };
        opened.bus_handle().store.send_hints().await;
        if !args.quiet {
            output::note(&format!("{} to {}", moved.text(), opened.address));
        }
        Ok(Code::Done)
    })
}

async fn look(args: &RelayArgs, plan: &RelayPlan, session: &Session) -> Result<Code, Failure> {
    let mut outbox = plan.outbox(session).await?;
    let mut out = Out::new();
    if args.redrive {
        let back = outbox.redrive().await?;
        out.line(&format!("{} put back", super::style::plural(back, "row")))?;
    } else {
        for parked in outbox.parked().await? {
            out.json(&parked.document())?;
        }
    }
    out.flush()?;
    Ok(Code::Done)
}
