//! Prints acknowledged events. They are on the bus, whatever happens to stdout.

use std::io;

use super::target::Sent;
use crate::bus::emit::{AckKind, Draft};
use crate::cli::failure::Failure;
use crate::cli::help_line::{command, text};
use crate::cli::output::Out;
use crate::cli::style;

/// What is printed for an acknowledged event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Print {
    Id,
    Event,
    Nothing,
}

/// The acknowledgements of one emit.
pub(super) struct Acks {
    print: Print,
    out: Option<Out>,
    failed: Option<io::Error>,
    count: u64,
}

impl Acks {
    pub fn new(print: Print) -> Self {
        Self { print, out: Some(Out::new()), failed: None, count: 0 }
    }

    /// The number of acknowledged events.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Prints a batch, without the events whose id belongs to another event.
    pub fn report<'a>(&mut self, acknowledged: impl Iterator<Item = (&'a Draft, &'a Sent)> + Clone) {
        let on_the_bus = acknowledged.filter(|(_, sent)| sent.kind != AckKind::IdTaken);
        self.on_the_bus(on_the_bus.map(|(draft, _)| (draft.event().id(), draft.document())));
    }

    /// Prints events that are on the bus: the id and the document of each.
    pub fn on_the_bus<'a>(&mut self, mut events: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) {
        self.count += events.clone().count() as u64;
        let Some(out) = self.out.as_mut() else { return };
        let written = events.try_for_each(|event| line(out, self.print, event)).and_then(|()| out.flush());
        if let Err(error) = written {
            self.out = None;
            self.failed = Some(error).filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
        }
    }

    /// Ends the output. A closed pipe is not a failure; any other error says how many events are on
    /// the bus.
    pub fn end(self) -> Result<(), Failure> {
        let Some(error) = self.failed else { return Ok(()) };
        let (events, are) = (style::plural(self.count, "event"), if self.count == 1 { "is" } else { "are" });
        let why = crate::store::system_words(&error);
        Err(Failure::failed(format!("cannot write to stdout: {why}; {events} {are} on the bus all the same")))
    }
}

fn line(out: &mut Out, print: Print, (id, document): (&str, &[u8])) -> io::Result<()> {
    match print {
        Print::Nothing => Ok(()),
        Print::Id => out.line(id),
        Print::Event => out.line(String::from_utf8_lossy(document).trim_end()),
    }
}

/// The error for an id that belongs to another event.
pub(super) fn taken(draft: &Draft, sent: &Sent) -> Failure {
    let (id, source) = (draft.event().id(), draft.event().source());
    let name = sent.name.as_ref().map_or_else(String::new, |name| format!(", {name}"));
    let what = format!("id '{id}' of {source} is another event's{name}: this one is not on the bus");
    Failure::failed(what)
        .help([command("get", format_args!("--source {source} {id}")), text(" shows it; --if-exists ok accepts that")])
}
