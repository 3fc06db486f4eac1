//! Locks by a clock of the test's own.

use std::cell::Cell;

use futures_util::future::FutureExt;

use super::*;
use crate::clock::Still;
use crate::handler::Permit;

const LENGTH: Duration = Duration::from_secs(60);

fn locks() -> (Locks, Rc<Still>) {
    let clock = Rc::new(Still::default());
    (Locks::new(Rc::clone(&clock) as _, LENGTH), clock)
}

fn jobs(names: &[&str]) -> Vec<Job> {
    let job = |name: &&str| Job {
        event: Bytes::copy_from_slice(name.as_bytes()),
        file: (**name).into(),
        vars: Rc::new(Vec::new()),
        likeness: None,
        attempt: 1,
        epoch: 7,
        permit: Permit::new(|| true),
    };
    names.iter().map(job).collect()
}

fn settlement(kind: SettlementKind) -> Settlement {
    Settlement { kind, exit: None, stderr: String::new() }
}

/// Takes what there is now for a member that asks for so many.
fn take(locks: &Locks, most: usize) -> Vec<HandedOut> {
    locks.demand(most).take().now_or_never().unwrap_or_default()
}

/// The outcomes that are there now, by the places of their jobs.
fn outcomes(reports: &mut Reports) -> Vec<(usize, Outcome)> {
    let mut all = Vec::new();
    while let Some(Some(some)) = reports.next().now_or_never() {
        all.extend(some.into_iter().map(|(place, report)| (place, report.outcome)));
    }
    all
}

#[test]
fn no_more_is_started_than_is_asked_for() {
    let (locks, _) = locks();
    assert_eq!(locks.max_in_flight(), Some(0));
    let (first, second) = (locks.demand(3), locks.demand(2));
    assert_eq!(locks.max_in_flight(), Some(5));
    drop(second);
    assert_eq!(locks.max_in_flight(), Some(3));
    let mut reports = locks.run_many(jobs(&["a", "b"]));
    assert_eq!(locks.max_in_flight(), Some(3), "two of the three are there");
    let taken = first.take().now_or_never().unwrap();
    assert_eq!(taken.iter().map(|event| &*event.name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((taken[0].attempt, taken[0].epoch, &*taken[0].event), (1, 7, &b"a"[..]));
    drop(first);
    assert_eq!(locks.max_in_flight(), Some(2), "two are locked, and nobody asks for more");
    locks.settle(&taken[1].token, settlement(SettlementKind::Acknowledge)).unwrap();
    assert_eq!(locks.max_in_flight(), Some(1));
    assert_eq!(outcomes(&mut reports), [(1, Outcome::Exit(0))]);
}

#[test]
fn a_settlement_is_what_the_run_reports() {
    let cases = [
        (SettlementKind::Acknowledge, Outcome::Exit(0), None),
        (SettlementKind::Release(Duration::from_secs(9)), Outcome::Released(Some(3)), Some(Duration::from_secs(9))),
        (SettlementKind::Return, Outcome::Stopped, None),
        (SettlementKind::Reject, Outcome::Rejected(Some(3)), None),
    ];
    for (kind, outcome, retry_after) in cases {
        let (locks, clock) = locks();
        let mut reports = locks.run_many(jobs(&["a"]));
        let token = take(&locks, 1).remove(0).token;
        clock.move_to(Duration::from_secs(5));
        let said = Settlement { kind, exit: Some(3), stderr: "why".to_owned() };
        assert_eq!(locks.settle(&token, said.clone()), Ok(()));
        let report = reports.next().now_or_never().flatten().unwrap().remove(0).1;
        let wanted = RunReport { retry_after, ..RunReport::new(outcome, "why".to_owned(), Duration::from_secs(5)) };
        assert_eq!(report, wanted);
        assert!(reports.next().now_or_never().unwrap().is_none(), "all have ended");
        assert_eq!(locks.settle(&token, said), Ok(()), "its answer may have been lost");
        let other = match kind {
            SettlementKind::Reject => SettlementKind::Acknowledge,
            _ => SettlementKind::Reject,
        };
        assert_eq!(locks.settle(&token, settlement(other)), Err(LockError::Settled));
        assert_eq!(locks.renew(&token), Err(LockError::Settled));
    }
}

#[test]
fn a_lock_expires_unless_it_is_renewed() {
    let (locks, clock) = locks();
    let mut reports = locks.run_many(jobs(&["a", "b"]));
    let taken = take(&locks, 2);
    let mut expiry = Box::pin(locks.expire());
    assert!(expiry.as_mut().now_or_never().is_none());
    clock.move_to(LENGTH - Duration::from_secs(1));
    locks.renew(&taken[1].token).unwrap();
    assert!(expiry.as_mut().now_or_never().is_none());
    assert_eq!(outcomes(&mut reports), []);
    clock.move_to(LENGTH);
    assert!(expiry.as_mut().now_or_never().is_none());
    assert_eq!(outcomes(&mut reports), [(0, Outcome::TimedOut)]);
    let acknowledge = || settlement(SettlementKind::Acknowledge);
    assert_eq!(locks.settle(&taken[0].token, acknowledge()), Err(LockError::Expired));
    assert_eq!(locks.settle(&taken[1].token, acknowledge()), Ok(()));
    assert_eq!(outcomes(&mut reports), [(1, Outcome::Exit(0))]);
}

#[test]
fn what_nobody_takes_is_given_back() {
    let (locks, clock) = locks();
    let mut reports = locks.run_many(jobs(&["a"]));
    clock.move_to(UNTAKEN);
    assert!(locks.expire().now_or_never().is_none());
    assert_eq!(outcomes(&mut reports), [(0, Outcome::Stopped)]);
    assert!(take(&locks, 1).is_empty());
    assert_eq!(locks.max_in_flight(), Some(0));
}

#[test]
fn a_member_that_waits_is_woken() {
    let (locks, _) = locks();
    let demand = locks.demand(1);
    let mut waiting = Box::pin(demand.take());
    assert!(waiting.as_mut().now_or_never().is_none());
    let _reports = locks.run_many(jobs(&["a"]));
    assert_eq!(waiting.as_mut().now_or_never().map(|taken| taken.len()), Some(1));
}

#[test]
fn a_run_that_may_not_start_any_more_is_not_handed_out() {
    let (locks, _) = locks();
    let holds = Rc::new(Cell::new(true));
    let mut all = jobs(&["a"]);
    let held = Rc::clone(&holds);
    all[0].permit = Permit::new(move || held.get());
    let mut reports = locks.run_many(all);
    holds.set(false);
    assert!(take(&locks, 1).is_empty());
    assert_eq!(outcomes(&mut reports), [(0, Outcome::Stopped)]);
}

#[test]
fn a_lock_is_over_when_another_worker_may_own_the_shard() {
    let (locks, _) = locks();
    let owns = Rc::new(Cell::new(true));
    let mut all = jobs(&["a", "b"]);
    for job in &mut all {
        let owned = Rc::clone(&owns);
        job.permit = Permit::new(|| true).while_owned(move || owned.get());
    }
    let mut reports = locks.run_many(all);
    let taken = take(&locks, 2);
    owns.set(false);
    let acknowledged = locks.settle(&taken[0].token, settlement(SettlementKind::Acknowledge));
    assert_eq!(acknowledged, Err(LockError::PastEpoch), "the event runs again there");
    assert_eq!(locks.renew(&taken[1].token), Err(LockError::PastEpoch));
    assert_eq!(outcomes(&mut reports), [(0, Outcome::Stopped), (1, Outcome::Stopped)]);
}

#[test]
fn large_events_are_handed_out_a_few_at_a_time() {
    let (locks, _) = locks();
    let large = "x".repeat(TAKEN_BYTES * 2 / 3);
    let mut lots = Vec::new();
    let mut handed_out = 0;
    while locks.0.state.borrow().locked_bytes < LOCKED_BYTES {
        lots.push(locks.run_many(jobs(&[&large, &large, &large])));
        let taken = take(&locks, 9);
        assert_eq!(taken.len(), 2, "a third one waits");
        handed_out += taken.len() + take(&locks, 9).len();
    }
    let _waiting = locks.demand(5);
    assert_eq!(locks.max_in_flight(), Some(handed_out), "no more are started");
    locks.terminate();
    assert_eq!(locks.0.state.borrow().locked_bytes, 0);
    assert_eq!(locks.max_in_flight(), Some(5));
}

#[test]
fn a_shard_that_is_lost_takes_its_locks_along() {
    let (locks, _) = locks();
    let lost = locks.run_many(jobs(&["a", "b"]));
    let mut kept = locks.run_many(jobs(&["c"]));
    let taken = take(&locks, 1);
    drop(lost);
    let acknowledge = || settlement(SettlementKind::Acknowledge);
    assert_eq!(locks.settle(&taken[0].token, acknowledge()), Err(LockError::PastEpoch));
    let taken = take(&locks, 9);
    assert_eq!(taken.len(), 1, "what waited is gone, too");
    assert_eq!(locks.settle(&taken[0].token, acknowledge()), Ok(()));
    assert_eq!(outcomes(&mut kept), [(0, Outcome::Exit(0))]);
}

#[test]
fn a_worker_that_stops_gives_everything_back() {
    let (locks, _) = locks();
    let mut reports = locks.run_many(jobs(&["a", "b"]));
    let taken = take(&locks, 1);
    locks.refuse_new_runs();
    assert_eq!(outcomes(&mut reports), [(1, Outcome::Stopped)]);
    let mut late = locks.run_many(jobs(&["c"]));
    assert_eq!(outcomes(&mut late), [(0, Outcome::Stopped)]);
    locks.terminate();
    assert_eq!(outcomes(&mut reports), [(0, Outcome::Stopped)]);
    assert_eq!(locks.renew(&taken[0].token), Err(LockError::Stopped));
}

#[test]
fn tokens_of_others_are_told_apart() {
    let (locks, _) = locks();
    let _reports = locks.run_many(jobs(&["a"]));
    let token = take(&locks, 1).remove(0).token;
    let (worker, rest) = token.split_once('-').unwrap();
    for wrong in ["", "x", "1-2", "1-2-3-4", "+1-1-1", &token.to_uppercase(), &format!("{worker}{token}")] {
        let wanted = if *wrong == *token { Ok(()) } else { Err(LockError::NoToken) };
        assert_eq!(locks.renew(wrong), wanted, "{wrong}");
    }
    assert_eq!(locks.renew(&format!("00000000000000ff-{rest}")), Err(LockError::OtherWorker));
    assert_eq!(locks.renew(&format!("{worker}-1-00000001")), Err(LockError::Unknown), "its salt is another");
    assert_eq!(locks.renew(&format!("{worker}-2-00000000")), Err(LockError::Unknown));
    assert_eq!(locks.renew(&token), Ok(()));
}

#[test]
fn a_member_that_has_gone_costs_no_attempt() {
    let (locks, _) = locks();
    let mut reports = locks.run_many(jobs(&["a"]));
    let taken = take(&locks, 1);
    locks.take_back(&taken);
    assert_eq!(outcomes(&mut reports), [(0, Outcome::Stopped)]);
}

#[test]
fn what_is_remembered_has_an_end() {
    let (locks, _) = locks();
    let mut first = None;
    for _ in 0..=REMEMBERED {
        let _reports = locks.run_many(jobs(&["a"]));
        let token = take(&locks, 1).remove(0).token;
        locks.settle(&token, settlement(SettlementKind::Acknowledge)).unwrap();
        first.get_or_insert(token);
    }
    assert_eq!(locks.renew(&first.unwrap()), Err(LockError::Unknown));
    assert_eq!(locks.0.state.borrow().past.ends.len(), REMEMBERED);
}
