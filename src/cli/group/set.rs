//! `evbus group set`, `pause` and `resume`: change a definition.

use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::cli::ls::{FilterArgs, WhereArg};
use crate::cli::output;
use crate::cli::session::Opened;
use crate::cli::style::wanted;
use crate::event::{Condition, Filter, TypeFilter};
use crate::group::{Definition, GroupName, operate};

/// Change a group's filter
///
/// -t replaces the wanted types, --not the unwanted ones (--not '' removes all), --where the
/// condition (--where '' removes it); what is not given stays. The change holds for all events
/// emitted from then on, and for every worker. Events that were skipped before stay skipped: see
/// evbus group reset.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus group set mail -t 'order.*' -t 'invoice.*'
  evbus group set mail --not 'order.test'
  evbus group set mail -t '**' --not '' --where ''")]
pub(super) struct GroupSetArgs {
    /// The group
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    condition: WhereArg,
}

/// Stop a group's workers from starting handlers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus group pause mail
  evbus group pause loader --why 'db restore'")]
pub(super) struct GroupPauseArgs {
    /// The group
    #[arg(value_name = "NAME")]
    name: String,
    /// Set the reason that status shows
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Let a paused group's workers continue
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus group resume mail
  evbus group resume loader && evbus status loader")]
pub(super) struct GroupResumeArgs {
    /// The group
    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) async fn run(args: &GroupSetArgs, opened: &Opened) -> Result<Code, Failure> {
    let filter = &args.filter;
    let condition = args.condition.condition()?;
    if filter.types.is_empty() && filter.not.is_empty() && args.condition.condition.is_none() {
        return Err(
            Failure::usage("nothing to change").help(command("group", format_args!("set {} -t 'PATTERN'", args.name)))
        );
    }
    let mut now = Filter::default();
    let group = GroupName::parse(&args.name)?;
    let bus = opened.bus_handle();
    let changed = operate::change(bus, &group, |definition| {
        let types = changed_filter(definition, filter)?;
        definition.types = types.types_text();
        definition.not = types.not_text();
        if args.condition.condition.is_some() {
            definition.condition = condition.as_ref().map(|condition| condition.as_str().to_owned());
        }
        let stands = definition.condition.as_deref().map(Condition::parse).transpose()?;
        now = Filter { types, condition: stands };
        Ok::<(), Failure>(())
    })
    .await?;
    let changed = there(opened, &args.name, changed).await?;
    let name = &args.name;
    let reset = command("group", format_args!("reset {name} --to TIME"));
    output::note(&match changed {
        true => format!(
            "'{name}' wants {} from its position on ({reset} goes back); a watcher with \
             another filter, in its options or its config, will not start again",
            wanted(&now)
        ),
        false => format!("'{name}' wants {} already", wanted(&now)),
    });
    Ok(Code::Done)
}

/// The definition's filter with the given parts replaced.
fn changed_filter(definition: &Definition, filter: &FilterArgs) -> Result<TypeFilter, Failure> {
    let types = if filter.types.is_empty() { &definition.types } else { &filter.types };
    let not: Vec<String> = match filter.not.as_slice() {
        [] if filter.types.iter().any(|types| types.contains('!')) => Vec::new(),
        [] => definition.not.clone(),
        not => not.iter().filter(|pattern| !pattern.is_empty()).cloned().collect(),
    };
    Ok(TypeFilter::new(types, &not)?)
}

/// Whether a group was changed; fails if there is none.
async fn there(opened: &Opened, name: &str, changed: Option<bool>) -> Result<bool, Failure> {
    match changed {
        Some(changed) => Ok(changed),
        None => Err(super::unknown(opened.bus_handle(), name).await?),
    }
}

async fn set_paused(opened: &Opened, name: &str, paused: bool, why: Option<&str>) -> Result<bool, Failure> {
    let changed = operate::set_paused(opened.bus_handle(), &GroupName::parse(name)?, paused, why).await?;
    there(opened, name, changed).await
}

pub(super) async fn pause(args: &GroupPauseArgs, opened: &Opened) -> Result<Code, Failure> {
    set_paused(opened, &args.name, true, args.why.as_deref()).await?;
    let poll = opened.bus_handle().store.profile().poll.1.as_secs();
    let (name, resume) = (&args.name, command("group", format_args!("resume {}", args.name)));
    output::note(&format!(
        "'{name}' is paused: within a poll ({poll}s) workers start no more handlers; running ones end; {resume}"
    ));
    Ok(Code::Done)
}

pub(super) async fn resume(args: &GroupResumeArgs, opened: &Opened) -> Result<Code, Failure> {
    let changed = set_paused(opened, &args.name, false, None).await?;
    output::note(&match changed {
        true => format!("'{}' goes on", args.name),
        false => format!("'{}' was not paused", args.name),
    });
    Ok(Code::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventTime;
    use crate::group::Position;

    fn changed(types: &[&str], not: &[&str]) -> (Vec<String>, Vec<String>) {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let definition = Definition {
            created: EventTime::MIN,
            types: owned(&["order.*"]),
            not: owned(&["order.test"]),
            condition: None,
            shards: 1,
            start: Position::START,
            paused: None,
        };
        let filter = changed_filter(&definition, &FilterArgs { types: owned(types), not: owned(not) }).unwrap();
        (filter.types_text(), filter.not_text())
    }

    #[test]
    fn omitted_options_are_unchanged() {
        let lists = |types: &[&str], not: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
            (owned(types), owned(not))
        };
        assert_eq!(changed(&["mail.*"], &[]), lists(&["mail.*"], &["order.test"]));
        assert_eq!(changed(&[], &["order.x"]), lists(&["order.*"], &["order.x"]));
        assert_eq!(changed(&[], &[""]), lists(&["order.*"], &[]));
        assert_eq!(changed(&["**"], &[""]), lists(&[], &[]));
        assert_eq!(changed(&["a.*,!a.b"], &[]), lists(&["a.*"], &["a.b"]));
    }
}
