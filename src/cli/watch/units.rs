//! What a watch runs side by side: each by itself, so that a change of the config touches only what it names.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
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
        format!("{kind} '{}'", name.escape_debug())
    }

    pub(super) fn into_watcher(self) -> Option<Watcher> {
        match self {
            Self::Watcher(watcher) => Some(*watcher),
            Self::Relay(_) | Self::Schedule(_) | Self::Source(_) => None,
        }
    }

    pub(super) fn is_watcher(&self) -> bool {
        matches!(self, Self::Watcher(_))
    }

    /// Whether it is one of these.
    pub(super) fn is_in(&self, units: &[Self]) -> bool {
        units.iter().any(|unit| unit.label() == self.label() && unit.does_the_same(self))
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
    new: Vec<String>,
    /// What runs ends in order, and begins again as it is now.
    changed: Vec<String>,
    removed: Vec<String>,
}

impl Display for Changes {
    /// `new: watcher 'a', watcher 'b'; removed: relay 'c'`.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let parts = [("new", &self.new), ("changed", &self.changed), ("removed", &self.removed)];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(_, labels)| !labels.is_empty())
            .map(|(what, labels)| format!("{what}: {}", labels.join(", ")))
            .collect();
        match &parts[..] {
            [] => formatter.write_str("nothing is different"),
            parts => formatter.write_str(&parts.join("; ")),
        }
    }
}

/// A unit, and what was made ready for it.
#[derive(Debug)]
pub(super) struct Prepared<P> {
    pub(super) unit: Unit,
    pub(super) with: P,
}

/// One unit as it runs, and what is to follow it.
struct Slot<P> {
    unit: RefCell<Unit>,
    /// What the unit has not taken yet.
    with: Cell<Option<P>>,
    level: RefCell<watch::Sender<Stop>>,
    next: RefCell<Option<Prepared<P>>>,
}

impl<P> Slot<P> {
    fn new(Prepared { unit, with }: Prepared<P>) -> Rc<Self> {
        let level = RefCell::new(watch::Sender::new(Stop::No));
        Rc::new(Self { unit: RefCell::new(unit), with: Cell::new(Some(with)), level, next: RefCell::default() })
    }

    fn is_ending(&self) -> bool {
        *self.level.borrow().borrow() != Stop::No
    }

    /// Whether this unit runs, and goes on to, or is to follow.
    fn comes_to(&self, unit: &Unit) -> bool {
        match (&*self.next.borrow(), self.is_ending()) {
            (Some(next), _) => next.unit.does_the_same(unit),
            (None, true) => false,
            (None, false) => self.unit.borrow().does_the_same(unit),
        }
    }

    fn stop(&self, level: Stop, next: Option<Prepared<P>>) {
        self.next.replace(next);
        self.level.borrow().send_if_modified(|now| level > std::mem::replace(now, level.max(*now)));
    }
}

/// How units are run: by workers on the bus itself, or as members through a server.
pub(super) trait Runs {
    /// What is made ready for a unit.
    type With;

    /// Runs a unit until it is told to stop, or has failed and said so. `has_waited`: what was made ready for it was made
    /// while another was still to end.
    async fn run(&self, prepared: Prepared<Self::With>, has_waited: bool, stop: watch::Receiver<Stop>) -> Code;
}

/// The units of one process, by their labels.
pub(super) struct Units<P> {
    slots: RefCell<BTreeMap<String, Rc<Slot<P>>>>,
    /// Those that no task runs yet.
    to_begin: RefCell<Vec<Rc<Slot<P>>>>,
    /// What the config has wanted last, whether it could begin or not.
    wanted: RefCell<Vec<Unit>>,
    /// How units have failed that did not begin again.
    codes: RefCell<BTreeMap<String, Code>>,
    /// Whether a change is prepared: until it is made, nobody knows what will run.
    is_changing: Cell<bool>,
    is_stopped: Cell<bool>,
    wake: Notify,
}

impl<P> Units<P> {
    pub(super) fn new() -> Self {
        Self {
            slots: RefCell::default(),
            to_begin: RefCell::default(),
            wanted: RefCell::default(),
            codes: RefCell::default(),
            is_changing: Cell::new(false),
            is_stopped: Cell::new(false),
            wake: Notify::new(),
        }
    }

    /// Tells all to stop.
    pub(super) fn stop(&self, level: Stop) {
        self.is_stopped.set(true);
        self.slots.borrow().values().for_each(|slot| slot.stop(level, None));
    }

    /// Whether all were told to stop, so that no change counts any more.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.get()
    }

    /// What the config has wanted last.
    pub(super) fn wanted(&self) -> Vec<Unit> {
        self.wanted.borrow().clone()
    }

    /// Whether the config has wanted the same unit before.
    pub(super) fn has_wanted(&self, unit: &Unit) -> bool {
        unit.is_in(&self.wanted.borrow())
    }

    /// Those of `wanted` that would begin, anew or for the first time.
    pub(super) fn differing<'w>(&self, wanted: &'w [Unit]) -> Vec<&'w Unit> {
        let slots = self.slots.borrow();
        let goes_on = |unit: &Unit| slots.get(&unit.label()).is_some_and(|slot| slot.comes_to(unit));
        wanted.iter().filter(|unit| !goes_on(unit)).collect()
    }

    /// Says that a change is prepared, or no longer.
    pub(super) fn set_changing(&self, is_changing: bool) {
        self.is_changing.set(is_changing);
        self.wake.notify_one();
    }

    /// Runs what is wanted, and nothing else: what comes to the same goes on, and all else begins as it was prepared. What
    /// was not prepared could not be, for the reasons of these codes. Once all are told to stop, nothing changes.
    pub(super) fn change_to(
        &self,
        wanted: Vec<Unit>,
        prepared: Vec<Prepared<P>>,
        failed: BTreeMap<String, Code>,
    ) -> Changes {
        let mut changes = Changes::default();
        if self.is_stopped.get() {
            return changes;
        }
        let mut slots = self.slots.borrow_mut();
        let labels: Vec<String> = wanted.iter().map(Unit::label).collect();
        for (label, slot) in slots.iter().filter(|(label, _)| !labels.contains(label)) {
            slot.stop(Stop::AfterRuns, None);
            changes.removed.push(label.clone());
        }
        let mut codes = self.codes.borrow_mut();
        codes.retain(|label, _| labels.contains(label));
        for prepared in prepared {
            let label = prepared.unit.label();
            codes.remove(&label);
            if let Some(slot) = slots.get(&label) {
                slot.stop(Stop::AfterRuns, Some(prepared));
                changes.changed.push(label);
            } else {
                let slot = Slot::new(prepared);
                slots.insert(label.clone(), Rc::clone(&slot));
                self.to_begin.borrow_mut().push(slot);
                changes.new.push(label);
            }
        }
        codes.extend(failed);
        self.wanted.replace(wanted);
        self.wake.notify_one();
        changes
    }

    /// Runs all until each has ended; without a watcher that could go on beside them, the others are stopped. `ended` is
    /// told the label of each that was stopped alone. Returns the exit code of a failure, if there was one.
    pub(super) async fn run_all(&self, runs: &impl Runs<With = P>, ended: &dyn Fn(&str)) -> Code {
        let (mut running, mut has_failed) = (FuturesUnordered::new(), false);
        loop {
            running.extend(self.to_begin.take().into_iter().map(|slot| self.run_slot(slot, runs)));
            let is_decided = self.is_stopped.get() || !self.is_changing.get();
            if is_decided && running.is_empty() {
                return self.codes.borrow().values().next().copied().unwrap_or(Code::Done);
            }
            if is_decided && std::mem::take(&mut has_failed) && !self.has_watchers() {
                self.stop(Stop::Starts);
            }
            let (slot, code) = tokio::select! { biased;
                Some(ended) = running.next() => ended,
                () = self.wake.notified() => continue,
            };
            let label = slot.unit.borrow().label();
            self.slots.borrow_mut().remove(&label);
            if code != Code::Done && self.wanted.borrow().iter().any(|unit| unit.label() == label) {
                self.codes.borrow_mut().insert(label.clone(), code);
            }
            if slot.is_ending() {
                if !self.is_stopped.get() {
                    ended(&label);
                }
            } else {
                has_failed |= slot.unit.borrow().is_watcher();
            }
        }
    }

    /// Whether a watcher goes on.
    fn has_watchers(&self) -> bool {
        let goes_on = |slot: &Rc<Slot<P>>| !slot.is_ending() || slot.next.borrow().is_some();
        self.slots.borrow().values().any(|slot| goes_on(slot) && slot.unit.borrow().is_watcher())
    }

    /// Runs a unit, and each that takes its place.
    async fn run_slot(&self, slot: Rc<Slot<P>>, runs: &impl Runs<With = P>) -> (Rc<Slot<P>>, Code) {
        let mut has_waited = false;
        loop {
            let Some(with) = slot.with.take() else { return (slot, Code::Done) };
            let (unit, stop) = (slot.unit.borrow().clone(), slot.level.borrow().subscribe());
            let code = runs.run(Prepared { unit, with }, has_waited, stop).await;
            let Some(Prepared { unit, with }) = slot.next.take() else { return (slot, code) };
            slot.unit.replace(unit);
            slot.with.set(Some(with));
            slot.level.replace(watch::Sender::new(Stop::No));
            has_waited = true;
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

    impl Runs for Fake {
        /// A name that shows which preparation it was.
        type With = u32;

        async fn run(&self, of: Prepared<u32>, has_waited: bool, mut stop: watch::Receiver<Stop>) -> Code {
            let name = shown(&of.unit);
            let waited = if has_waited { " after another" } else { "" };
            self.log.borrow_mut().push(format!("+{name}{waited} with {}", of.with));
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
    }

    impl Fake {
        fn new() -> Self {
            Self { log: RefCell::default(), may_end: Notify::new() }
        }

        /// What was logged since, sorted: what happens side by side has no order.
        fn take(&self) -> Vec<String> {
            let mut log = self.log.take();
            log.sort();
            log
        }
    }

    /// Lets all go on that can.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// A change, all of whose units can be prepared.
    fn change(units: &Units<u32>, wanted: &[Unit], with: u32) -> String {
        let differing = units.differing(wanted).into_iter().cloned();
        let prepared = differing.map(|unit| Prepared { unit, with }).collect();
        units.change_to(wanted.to_vec(), prepared, BTreeMap::new()).to_string()
    }

    async fn while_running<T>(units: &Units<u32>, fake: &Fake, script: impl Future<Output = T>) -> Code {
        let told = |label: &str| fake.log.borrow_mut().push(format!("told of {label}"));
        tokio::join!(units.run_all(fake, &told), script).0
    }

    #[tokio::test]
    async fn a_change_touches_only_what_differs() {
        let (units, fake) = (Units::new(), Fake::new());
        let [a, b, c] = [watcher("a", "1"), watcher("b", "held"), watcher("c", "1")];
        change(&units, &[a.clone(), b, c], 1);
        let script = async {
            settle().await;
            assert_eq!(fake.take(), ["+a 1 with 1", "+b held with 1", "+c 1 with 1"]);
            let wanted = [a.clone(), watcher("b", "2"), watcher("d", "1"), schedule("s")];
            let changes = "new: watcher 'd', schedule 's'; changed: watcher 'b'; removed: watcher 'c'";
            assert_eq!(change(&units, &wanted, 2), changes);
            settle().await;
            let log = fake.take();
            assert_eq!(log, ["+d 1 with 2", "+schedule 's' with 2", "-c 1", "told of watcher 'c'"], "b's still runs");
            assert_eq!(change(&units, &wanted, 3), "nothing is different", "b is to follow already");
            // Another change while it ends: the last one counts.
            assert_eq!(
                change(&units, &[a.clone(), watcher("b", "3"), schedule("s")], 4),
                "changed: watcher 'b'; removed: watcher 'd'"
            );
            settle().await;
            fake.take();
            fake.may_end.notify_one();
            settle().await;
            assert_eq!(fake.take(), ["+b 3 after another with 4", "-b held"]);
            units.stop(Stop::Starts);
            assert!(units.is_stopped());
        };
        assert_eq!(while_running(&units, &fake, script).await, Code::Done);
        assert_eq!(fake.take(), ["-a 1", "-b 3", "-schedule 's'"]);
    }

    #[tokio::test]
    async fn one_that_is_removed_while_it_ends_does_not_begin_again() {
        let (units, fake) = (Units::new(), Fake::new());
        let b = watcher("b", "1");
        change(&units, &[watcher("a", "held"), b.clone()], 1);
        let script = async {
            settle().await;
            change(&units, &[watcher("a", "2"), b.clone()], 2);
            assert_eq!(change(&units, std::slice::from_ref(&b), 3), "removed: watcher 'a'");
            fake.may_end.notify_one();
            settle().await;
            assert_eq!(fake.take()[2..], ["-a held", "told of watcher 'a'"]);
            // One that comes back while it ends begins as it is by then.
            change(&units, &[], 4);
            change(&units, std::slice::from_ref(&b), 5);
            settle().await;
            assert_eq!(fake.take(), ["+b 1 after another with 5", "-b 1"]);
            units.stop(Stop::Handlers);
        };
        while_running(&units, &fake, script).await;
    }

    #[tokio::test]
    async fn what_has_failed_begins_again_with_a_change_and_helpers_do_not_stay_alone() {
        let (units, fake) = (Units::new(), Fake::new());
        let wanted = [watcher("a", "fails"), watcher("b", "1"), schedule("s")];
        change(&units, &wanted, 1);
        let script = async {
            settle().await;
            assert_eq!(fake.take(), ["+a fails with 1", "+b 1 with 1", "+schedule 's' with 1"], "b goes on");
            assert_eq!(change(&units, &wanted, 2), "new: watcher 'a'");
            settle().await;
            assert_eq!(fake.take(), ["+a fails with 2"]);
            // Without watchers in the config the schedule goes on; without any that has not failed it does not, unless a
            // change is on its way.
            change(&units, &wanted[2..], 3);
            settle().await;
            assert_eq!(fake.take(), ["-b 1", "told of watcher 'b'"]);
            units.set_changing(true);
            change(&units, &[schedule("s"), watcher("b", "fails")], 4);
            settle().await;
            change(&units, &[schedule("s"), watcher("b", "2")], 5);
            units.set_changing(false);
            settle().await;
            assert_eq!(fake.take(), ["+b 2 with 5", "+b fails with 4"]);
            change(&units, &[schedule("s"), watcher("b", "fails")], 6);
        };
        assert_eq!(while_running(&units, &fake, script).await, Code::Failed);
        assert_eq!(fake.take(), ["+b fails after another with 6", "-b 2", "-schedule 's'"]);
        assert_eq!(while_running(&Units::new(), &fake, async {}).await, Code::Done);
    }

    #[tokio::test]
    async fn a_failure_that_a_change_has_mended_is_forgotten() {
        let (units, fake) = (Units::new(), Fake::new());
        let [a, b] = [watcher("a", "fails"), watcher("b", "1")];
        let failed = BTreeMap::from([("watcher 'c'".to_owned(), Code::Usage)]);
        let both = |a: &Unit| vec![a.clone(), b.clone()];
        let prepared = both(&a).into_iter().map(|unit| Prepared { unit, with: 1 }).collect();
        units.change_to([both(&a), vec![watcher("c", "1")]].concat(), prepared, failed);
        let script = async {
            settle().await;
            change(&units, &both(&watcher("a", "2")), 2);
            units.stop(Stop::Starts);
        };
        assert_eq!(while_running(&units, &fake, script).await, Code::Done, "a was mended, and c is not wanted");
    }

    #[test]
    fn where_a_group_starts_is_no_difference() {
        let from = |from| {
            let Unit::Watcher(watcher) = watcher("a", "1") else { unreachable!() };
            Unit::watcher(Watcher { from, ..*watcher })
        };
        let units = Units::new();
        change(&units, &[from(Some(StartFrom::Now))], 1);
        assert!(units.differing(&[from(None)]).is_empty());
        assert!(units.has_wanted(&from(None)) && !units.has_wanted(&watcher("a", "2")));
    }
}
