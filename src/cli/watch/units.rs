//! What a watch runs side by side: each by itself, so that a change of the config touches only what it names.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, watch};

use crate::cli::exit::Code;
use crate::cli::relays::RelayPlan;
use crate::config::Watcher;
use crate::group::worker::Stop;
use crate::recurring::Recurring;
use crate::source::Source;

/// One section of the config that is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unit {
    /// `[watchers.NAME]`, or the watcher of the options.
    Watcher(Box<Watcher>),
    /// `[relays.NAME]`.
    Relay(RelayPlan),
    /// `[schedules.NAME]`.
    Schedule(Recurring),
    /// `[sources.NAME]`.
    Source(Source),
}

impl Unit {
    pub(super) fn watcher(watcher: Watcher) -> Self {
        Self::Watcher(Box::new(watcher))
    }

    /// Its name in messages, which no other has: `watcher 'mail'`.
    pub(super) fn label(&self) -> String {
        let (kind, name) = match self {
            Self::Watcher(watcher) => ("watcher", &watcher.name),
            Self::Relay(plan) => ("relay", &plan.name),
            Self::Schedule(schedule) => ("schedule", &schedule.name),
            Self::Source(source) => ("source", &source.name),
        };
        format!("{kind} '{name}'")
    }

    pub(super) fn into_watcher(self) -> Option<Watcher> {
        match self {
            Self::Watcher(watcher) => Some(*watcher),
            Self::Relay(_) | Self::Schedule(_) | Self::Source(_) => None,
        }
    }

    pub(super) fn into_relay(self) -> Option<RelayPlan> {
        match self {
            Self::Relay(plan) => Some(plan),
            Self::Watcher(_) | Self::Schedule(_) | Self::Source(_) => None,
        }
    }

    pub(super) fn is_watcher(&self) -> bool {
        matches!(self, Self::Watcher(_))
    }

    /// Whether another does the same. Where a group starts is read when it is made, and may be said relative to now.
    fn does_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Watcher(one), Self::Watcher(another)) => {
                Watcher { from: another.from, ..(**one).clone() } == **another
            }
            _ => self == other,
        }
    }
}

/// What a change has come to, as labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) new: Vec<String>,
    /// What runs ends in order, and begins again as it is now.
    pub(super) changed: Vec<String>,
    pub(super) removed: Vec<String>,
}

impl Changes {
    /// As text: `new: watcher 'a', watcher 'b'; removed: relay 'c'`.
    pub(super) fn text(&self) -> String {
        let parts = [("new", &self.new), ("changed", &self.changed), ("removed", &self.removed)];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(_, labels)| !labels.is_empty())
            .map(|(what, labels)| format!("{what}: {}", labels.join(", ")))
            .collect();
        if parts.is_empty() { "nothing is different".to_owned() } else { parts.join("; ") }
    }
}

/// One unit as it runs, and what is to follow it.
struct Slot {
    unit: RefCell<Unit>,
    stop: RefCell<watch::Sender<Stop>>,
    next: RefCell<Option<Unit>>,
}

impl Slot {
    fn new(unit: Unit) -> Rc<Self> {
        let stop = RefCell::new(watch::Sender::new(Stop::No));
        Rc::new(Self { unit: RefCell::new(unit), stop, next: RefCell::default() })
    }

    fn is_ending(&self) -> bool {
        *self.stop.borrow().borrow() != Stop::No
    }

    fn stop(&self, level: Stop, next: Option<Unit>) {
        self.next.replace(next);
        self.stop.borrow().send_replace(level);
    }
}

/// The units of one process, by their labels.
pub(super) struct Units {
    slots: RefCell<BTreeMap<String, Rc<Slot>>>,
    /// Those that are not run yet.
    begun: RefCell<Vec<Rc<Slot>>>,
    has_begun: Notify,
    is_stopped: Cell<bool>,
}

impl Units {
    /// Units that begin once they are run.
    pub(super) fn new(units: impl IntoIterator<Item = Unit>) -> Self {
        let (slots, begun) = Default::default();
        let all = Self { slots, begun, has_begun: Notify::new(), is_stopped: Cell::new(false) };
        units.into_iter().for_each(|unit| all.begin(unit));
        all
    }

    fn begin(&self, unit: Unit) {
        let (label, slot) = (unit.label(), Slot::new(unit));
        self.slots.borrow_mut().insert(label, Rc::clone(&slot));
        self.begun.borrow_mut().push(slot);
        self.has_begun.notify_one();
    }

    /// Tells all to stop.
    pub(super) fn stop(&self, level: Stop) {
        self.is_stopped.set(true);
        self.slots.borrow().values().for_each(|slot| slot.stop(level, None));
    }

    /// What runs, or ends.
    pub(super) fn running(&self) -> Vec<Unit> {
        self.slots.borrow().values().map(|slot| slot.unit.borrow().clone()).collect()
    }

    /// Those of `wanted` that would begin, anew or for the first time.
    pub(super) fn differing<'w>(&self, wanted: &'w [Unit]) -> Vec<&'w Unit> {
        let slots = self.slots.borrow();
        let goes_on = |unit: &Unit| {
            slots.get(&unit.label()).is_some_and(|slot| !slot.is_ending() && slot.unit.borrow().does_the_same(unit))
        };
        wanted.iter().filter(|unit| !goes_on(unit)).collect()
    }

    /// Runs what is wanted, and nothing else: what is the same goes on, and what has ended by itself begins again.
    pub(super) fn change_to(&self, wanted: Vec<Unit>) -> Changes {
        let mut changes = Changes::default();
        if self.is_stopped.get() {
            return changes;
        }
        let labels: Vec<String> = wanted.iter().map(Unit::label).collect();
        for (label, slot) in self.slots.borrow().iter().filter(|(label, _)| !labels.contains(label)) {
            slot.stop(Stop::Starts, None);
            changes.removed.push(label.clone());
        }
        for (label, unit) in labels.into_iter().zip(wanted) {
            let slot = self.slots.borrow().get(&label).cloned();
            match slot {
                None => {
                    self.begin(unit);
                    changes.new.push(label);
                }
                Some(slot) if !slot.is_ending() && slot.unit.borrow().does_the_same(&unit) => {}
                Some(slot) => {
                    slot.stop(Stop::Starts, Some(unit));
                    changes.changed.push(label);
                }
            }
        }
        changes
    }

    /// Runs all with `run` until each has ended; without a watcher that could go on beside them, the others are stopped.
    /// `ended` is told the label of each that was stopped alone. Returns the first exit code of a failure.
    pub(super) async fn run_all(
        &self,
        run: &impl AsyncFn(Unit, watch::Receiver<Stop>) -> Code,
        ended: &dyn Fn(&str),
    ) -> Code {
        let (mut running, mut code) = (FuturesUnordered::new(), Code::Done);
        loop {
            running.extend(self.begun.take().into_iter().map(|slot| self.run_slot(slot, run)));
            if running.is_empty() {
                return code;
            }
            let (slot, own) = tokio::select! { biased;
                Some(ended) = running.next() => ended,
                () = self.has_begun.notified() => continue,
            };
            let label = slot.unit.borrow().label();
            self.slots.borrow_mut().remove(&label);
            if code == Code::Done {
                code = own;
            }
            if self.is_stopped.get() {
                // Those that were told to stop are waited for.
            } else if slot.is_ending() {
                ended(&label);
            } else if slot.unit.borrow().is_watcher() && !self.has_watchers() {
                self.stop(Stop::Starts);
            }
        }
    }

    /// Whether a watcher goes on.
    fn has_watchers(&self) -> bool {
        let goes_on = |slot: &Rc<Slot>| !slot.is_ending() || slot.next.borrow().is_some();
        self.slots.borrow().values().any(|slot| goes_on(slot) && slot.unit.borrow().is_watcher())
    }

    /// Runs a unit, and each that takes its place.
    async fn run_slot(
        &self,
        slot: Rc<Slot>,
        run: &impl AsyncFn(Unit, watch::Receiver<Stop>) -> Code,
    ) -> (Rc<Slot>, Code) {
        loop {
            let (unit, stop) = (slot.unit.borrow().clone(), slot.stop.borrow().subscribe());
            let code = run(unit, stop).await;
            let Some(next) = slot.next.take() else { return (slot, code) };
            slot.unit.replace(next);
            slot.stop.replace(watch::Sender::new(Stop::No));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Action, StartFrom};
    use crate::group::GroupName;
    use crate::recurring::{CatchUp, Rule};

    fn watcher(name: &str, line: &str) -> Unit {
        let group = GroupName::parse(name).unwrap();
        Unit::watcher(Watcher::new(name.to_owned(), group, Action::Shell(line.to_owned())))
    }

    fn schedule(name: &str) -> Unit {
        Unit::Schedule(Recurring {
            name: name.to_owned(),
            rule: Rule::every(Duration::from_hours(1)).unwrap(),
            jitter: Duration::ZERO,
            catch_up: CatchUp::None,
            type_: "t".to_owned(),
            subject: None,
            data: None,
        })
    }

    fn shown(unit: &Unit) -> String {
        match unit {
            Unit::Watcher(watcher) => format!("{} {}", watcher.name, watcher.action.argv().unwrap()[2]),
            other => other.label(),
        }
    }

    /// Units that run until they are told to stop; "fails" fails at once, and "held" ends once it may.
    struct Fake {
        log: RefCell<Vec<String>>,
        may_end: Notify,
    }

    impl Fake {
        fn new() -> Self {
            Self { log: RefCell::default(), may_end: Notify::new() }
        }

        async fn run(&self, unit: Unit, mut stop: watch::Receiver<Stop>) -> Code {
            let name = shown(&unit);
            self.log.borrow_mut().push(format!("+{name}"));
            if name.ends_with("fails") {
                return Code::Failed;
            }
            let _ = stop.wait_for(|level| *level != Stop::No).await;
            if name.ends_with("held") {
                self.may_end.notified().await;
            }
            self.log.borrow_mut().push(format!("-{name}"));
            Code::Done
        }

        fn take(&self) -> Vec<String> {
            self.log.take()
        }
    }

    /// Lets all go on that can.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    async fn while_running<T>(units: &Units, fake: &Fake, script: impl Future<Output = T>) -> (Code, T) {
        let run = async |unit, stop| fake.run(unit, stop).await;
        let told = |label: &str| fake.log.borrow_mut().push(format!("told of {label}"));
        tokio::join!(units.run_all(&run, &told), script)
    }

    #[tokio::test]
    async fn a_change_touches_only_what_differs() {
        let (units, fake) = (Units::new([watcher("a", "1"), watcher("b", "held"), watcher("c", "1")]), Fake::new());
        let script = async {
            settle().await;
            assert_eq!(fake.take(), ["+a 1", "+b held", "+c 1"]);
            let wanted = vec![watcher("a", "1"), watcher("b", "2"), watcher("d", "1"), schedule("s")];
            assert_eq!(units.differing(&wanted), wanted[1..].iter().collect::<Vec<_>>());
            let changes = units.change_to(wanted.clone());
            assert_eq!(changes.text(), "new: watcher 'd', schedule 's'; changed: watcher 'b'; removed: watcher 'c'");
            settle().await;
            let mut log = fake.take();
            log.sort();
            assert_eq!(log, ["+d 1", "+schedule 's'", "-c 1", "told of watcher 'c'"], "b's handler still runs");
            // Another change while it ends: the last one counts.
            assert_eq!(units.change_to([&wanted[..1], &[watcher("b", "3")]].concat()).changed, ["watcher 'b'"]);
            settle().await;
            fake.take();
            fake.may_end.notify_one();
            settle().await;
            assert_eq!(fake.take(), ["-b held", "+b 3"]);
            assert_eq!(units.change_to(vec![watcher("b", "3"), watcher("a", "1")]).text(), "nothing is different");
            units.stop(Stop::Starts);
            assert_eq!(units.change_to(vec![watcher("e", "1")]), Changes::default(), "it is stopped");
        };
        assert_eq!(while_running(&units, &fake, script).await.0, Code::Done);
        let mut log = fake.take();
        log.sort();
        assert_eq!(log, ["-a 1", "-b 3"]);
    }

    #[tokio::test]
    async fn one_that_is_removed_while_it_ends_does_not_begin_again() {
        let (units, fake) = (Units::new([watcher("a", "held"), watcher("b", "1")]), Fake::new());
        let script = async {
            settle().await;
            units.change_to(vec![watcher("a", "2"), watcher("b", "1")]);
            units.change_to(vec![watcher("b", "1")]);
            fake.may_end.notify_one();
            settle().await;
            assert_eq!(fake.take()[2..], ["-a held", "told of watcher 'a'"]);
            // One that comes back while it ends begins as it is by then.
            units.change_to(vec![watcher("b", "2")]);
            units.change_to(vec![]);
            units.change_to(vec![watcher("b", "3")]);
            settle().await;
            assert_eq!(fake.take(), ["-b 1", "+b 3"]);
            units.stop(Stop::Handlers);
        };
        while_running(&units, &fake, script).await;
    }

    #[tokio::test]
    async fn what_has_failed_begins_again_with_a_change_and_helpers_do_not_stay_alone() {
        let (units, fake) = (Units::new([watcher("a", "fails"), watcher("b", "1"), schedule("s")]), Fake::new());
        let script = async {
            settle().await;
            assert_eq!(fake.take(), ["+a fails", "+b 1", "+schedule 's'"], "b goes on");
            let wanted = vec![watcher("a", "fails"), watcher("b", "1"), schedule("s")];
            assert_eq!(units.change_to(wanted).new, ["watcher 'a'"]);
            settle().await;
            assert_eq!(fake.take(), ["+a fails"]);
            // Without watchers in the config the schedule goes on; without any that has not failed it does not.
            units.change_to(vec![schedule("s")]);
            settle().await;
            assert_eq!(fake.take(), ["-b 1", "told of watcher 'b'"]);
            units.change_to(vec![schedule("s"), watcher("b", "fails")]);
        };
        assert_eq!(while_running(&units, &fake, script).await.0, Code::Failed);
        assert_eq!(fake.take(), ["+b fails", "-schedule 's'"]);
        let none = Units::new([]);
        assert_eq!(while_running(&none, &fake, async {}).await.0, Code::Done);
    }

    #[test]
    fn where_a_group_starts_is_no_difference() {
        let from = |from| {
            let Unit::Watcher(watcher) = watcher("a", "1") else { unreachable!() };
            Unit::watcher(Watcher { from, ..*watcher })
        };
        let units = Units::new([from(Some(StartFrom::Now))]);
        assert!(units.differing(&[from(None)]).is_empty());
    }
}
