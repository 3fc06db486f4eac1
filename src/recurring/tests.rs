//! Hosts that serve one schedule, with clocks that are set by hand.

use std::rc::Rc;

use super::*;
use crate::clock::SetClock;
use crate::event::{EVENTS, ListedKey};
use crate::store::memory::{Calm, Contents, MemoryStore};
use crate::store::{List, object};

fn at(seconds: u64) -> EventTime {
    EventTime::from_micros(1_795_396_590_000_000).plus(Duration::from_secs(seconds))
}

/// Hosts, each with a process that serves the schedule.
struct Hosts {
    contents: Rc<Contents>,
    clock: Rc<SetClock>,
    schedule: Recurring,
    runtime: tokio::runtime::Runtime,
}

impl Hosts {
    fn new(catch_up: CatchUp) -> Self {
        let schedule = Recurring {
            name: "tick".to_owned(),
            rule: Rule::every(Duration::from_secs(10)).unwrap(),
            jitter: Duration::ZERO,
            catch_up,
            type_: "tick.due".to_owned(),
            subject: None,
            data: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let clock = Rc::new(SetClock::at(at(0)));
        Self { contents: Rc::default(), clock, schedule, runtime }
    }

    fn bus(&self) -> BusHandle {
        let store = MemoryStore::new(Rc::clone(&self.contents), Rc::new(Calm), object::PROFILE);
        BusHandle::new(Rc::new(store), Rc::clone(&self.clock) as _)
    }

    fn begin(&self) -> Scheduler {
        Scheduler::new(self.bus(), self.schedule.clone())
    }

    fn pass(&self, scheduler: &mut Scheduler, seconds: u64) -> SchedulePass {
        self.clock.set(at(seconds));
        self.runtime.block_on(scheduler.pass()).unwrap()
    }

    /// How many seconds after the beginning the events on the bus were due.
    fn events(&self) -> Vec<u64> {
        let bus = self.bus();
        self.runtime.block_on(async {
            let page = bus.store.list_after(List::all(EVENTS)).await.unwrap();
            let mut due = Vec::new();
            for key in page.keys.iter().filter(|key| ListedKey::parse(key).is_some()) {
                let object = bus.store.get(key).await.unwrap().unwrap();
                for line in object.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let event = Event::parse(line, usize::MAX).unwrap();
                    due.push(EventTime::from_rfc3339(event.time().unwrap()).unwrap().since(at(0)).as_secs());
                }
            }
            due.sort_unstable();
            due
        })
    }
}

#[test]
fn each_time_is_one_event_whoever_serves_it() {
    let hosts = Hosts::new(CatchUp::Last);
    let (mut one, mut other) = (hosts.begin(), hosts.begin());
    assert_eq!(hosts.pass(&mut one, 1).emitted, 0, "what was due before the first host came is none of its");
    for seconds in [9, 10, 11, 20, 29, 35] {
        hosts.pass(&mut one, seconds);
        hosts.pass(&mut other, seconds);
    }
    assert_eq!(hosts.events(), [10, 20, 30]);
    // A process that begins anew goes on where all of them were, even after the ids were forgotten.
    let ids: Vec<String> =
        hosts.runtime.block_on(async { hosts.bus().store.list_after(List::all(keys::DEDUP)).await.unwrap().keys });
    for id in ids {
        hosts.runtime.block_on(hosts.bus().store.delete(&id)).unwrap();
    }
    let mut third = hosts.begin();
    assert_eq!(hosts.pass(&mut third, 36).emitted, 0);
    assert_eq!(hosts.pass(&mut third, 41), SchedulePass { emitted: 1, missed: 0, next: Some(at(50)) });
}

#[test]
fn two_hosts_that_see_the_same_time_emit_one_event() {
    let hosts = Hosts::new(CatchUp::All);
    let (mut one, mut other) = (hosts.begin(), hosts.begin());
    hosts.pass(&mut one, 0);
    hosts.clock.set(at(30));
    let (first, second) = hosts.runtime.block_on(async { futures_util::future::join(one.pass(), other.pass()).await });
    assert_eq!(first.unwrap().emitted + second.unwrap().emitted, 3);
    assert_eq!(hosts.events(), [10, 20, 30]);
}

#[test]
fn what_was_missed_is_made_up_for_as_asked() {
    for (catch_up, after, events, missed) in [
        (CatchUp::All, 75, &[10, 20, 30, 40, 50, 60, 70][..], 0),
        (CatchUp::Last, 75, &[10, 70][..], 5),
        (CatchUp::None, 75, &[10, 70][..], 5),
        (CatchUp::Last, 705, &[10, 700][..], 68),
    ] {
        let hosts = Hosts::new(catch_up);
        let mut before = hosts.begin();
        hosts.pass(&mut before, 0);
        hosts.pass(&mut before, 10);
        let pass = hosts.pass(&mut hosts.begin(), after);
        assert_eq!((hosts.events(), pass.missed), (events.to_vec(), missed), "{catch_up:?} {after}");
    }
    let mut hosts = Hosts::new(CatchUp::None);
    hosts.schedule.rule = Rule::every(Duration::from_hours(1)).unwrap();
    let first = hosts.schedule.rule.next_after(at(0)).unwrap().since(at(0)).as_secs();
    hosts.pass(&mut hosts.begin(), 0);
    let pass = hosts.pass(&mut hosts.begin(), first + 601);
    assert_eq!((hosts.events(), pass.missed), (vec![], 1), "it passed too long ago");
    hosts.pass(&mut hosts.begin(), first + 3_600 + 599);
    assert_eq!(hosts.events(), [first + 3_600]);
}

/// As two hosts with time zones of their own do, whose drains come from cron.
#[test]
fn hosts_with_different_rules_do_not_silence_each_other() {
    let mut hosts = Hosts::new(CatchUp::Last);
    let seconds = [10, 15].map(|seconds| Rule::every(Duration::from_secs(seconds)).unwrap());
    let mut emitted = [0; 2];
    for second in 0..60 {
        for (rule, emitted) in seconds.iter().zip(&mut emitted) {
            hosts.schedule.rule = rule.clone();
            *emitted += hosts.pass(&mut hosts.begin(), second).emitted;
        }
    }
    assert_eq!(hosts.events(), [10, 15, 20, 30, 40, 45, 50]);
    assert_eq!(emitted.iter().sum::<u64>(), 7);
}

#[test]
fn a_long_time_off_costs_no_long_time() {
    let hosts = Hosts::new(CatchUp::Last);
    hosts.pass(&mut hosts.begin(), 0);
    let year = 365 * 86_400;
    let pass = hosts.pass(&mut hosts.begin(), year + 5);
    assert_eq!((pass.emitted, hosts.events()), (1, vec![year]));
    assert!(pass.missed >= 1_000, "{pass:?}");
}

#[test]
fn a_rule_that_was_changed_makes_up_for_nothing_of_before() {
    let mut hosts = Hosts::new(CatchUp::All);
    let mut before = hosts.begin();
    hosts.pass(&mut before, 0);
    hosts.pass(&mut before, 10);
    hosts.clock.set(at(20));
    hosts.schedule.rule = Rule::every(Duration::from_secs(1)).unwrap();
    let mut after = hosts.begin();
    assert_eq!(hosts.pass(&mut after, 22).emitted, 2);
    assert_eq!(hosts.events(), [10, 21, 22]);
    // The host that has the old rule still misses none of its times.
    assert_eq!(hosts.pass(&mut before, 31).emitted, 2);
    assert_eq!(hosts.events(), [10, 20, 21, 22, 30]);
}

#[test]
fn a_clock_that_is_years_ahead_silences_no_other_host() {
    let hosts = Hosts::new(CatchUp::Last);
    let mut right = hosts.begin();
    hosts.pass(&mut right, 1);
    let mut wrong = hosts.begin();
    let far = 1_000_000_000;
    assert_eq!(hosts.pass(&mut wrong, far).emitted, 1);
    for seconds in [11, 21, 31] {
        assert_eq!(hosts.pass(&mut right, seconds).emitted, 1);
    }
    // Nor itself, once its clock is put right.
    assert_eq!(hosts.pass(&mut wrong, 35).emitted, 0);
    assert_eq!(hosts.pass(&mut wrong, 41).emitted, 1);
    assert_eq!(hosts.events(), [10, 20, 30, 40, far]);
}

#[test]
fn all_hosts_put_a_time_off_by_the_same() {
    let mut hosts = Hosts::new(CatchUp::Last);
    hosts.schedule.jitter = Duration::from_secs(5);
    let put_off: Vec<u64> = (1..50).map(|n| hosts.schedule.put_off(at(n * 10)).since(at(n * 10)).as_secs()).collect();
    assert!(put_off.iter().all(|by| *by < 5) && put_off.iter().any(|by| *by != put_off[0]), "{put_off:?}");
    let due = hosts.schedule.put_off(at(10));
    hosts.pass(&mut hosts.begin(), 0);
    hosts.clock.set(due.minus(Duration::from_micros(1)));
    assert_eq!(hosts.runtime.block_on(hosts.begin().pass()).unwrap().next, Some(due));
    hosts.clock.set(due);
    assert_eq!(hosts.runtime.block_on(hosts.begin().pass()).unwrap().emitted, 1);
}

#[test]
fn a_time_that_nobody_serves_is_late() {
    let hosts = Hosts::new(CatchUp::Last);
    let state = |seconds| {
        hosts.clock.set(at(seconds));
        hosts.runtime.block_on(hosts.schedule.state(&hosts.bus())).unwrap()
    };
    assert_eq!(state(5).late, None, "it was never served");
    hosts.pass(&mut hosts.begin(), 5);
    assert_eq!(state(9), ScheduleState { late: None, next: Some(at(10)) });
    assert_eq!(state(25), ScheduleState { late: Some(at(10)), next: Some(at(30)) });
}
