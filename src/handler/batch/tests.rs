//! Events that run together, with a handler and a clock of the test's own.

use crate::handler::Var;
use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable, join, join_all};
use proptest::prelude::*;

use super::*;
use crate::clock::Still;
use crate::handler::{Obstacle, Permit};

/// A handler that fails if a line of its stdin says `bad`.
#[derive(Default)]
struct LineHandler {
    runs: RefCell<Vec<Vec<String>>>,
    vars: RefCell<Vec<Var>>,
    /// If set, runs end only after this is notified.
    held: Option<Rc<Notify>>,
    under_way: Cell<usize>,
    most_under_way: Cell<usize>,
    stopped: Cell<bool>,
    /// The outcome of a run without a bad line.
    outcome: Option<Outcome>,
}

struct UnderWay<'a>(&'a LineHandler);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

impl Handler for LineHandler {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        Box::pin(async move {
            let lines: Vec<String> = std::str::from_utf8(&job.event).unwrap().lines().map(str::to_owned).collect();
            let failed = lines.iter().any(|line| line.contains("bad"));
            self.runs.borrow_mut().push(lines);
            *self.vars.borrow_mut() = job.vars.list();
            self.under_way.set(self.under_way.get() + 1);
            self.most_under_way.set(self.most_under_way.get().max(self.under_way.get()));
            let _under_way = UnderWay(self);
            if let Some(held) = &self.held {
                held.notified().await;
            }
            let good = self.outcome.clone().unwrap_or(Outcome::Exit(0));
            report(if failed { Outcome::Exit(1) } else { good })
        })
    }
    fn terminate(&self) {
        self.stopped.set(true);
    }
    fn check(&self) -> Result<(), Obstacle> {
        Ok(())
    }
}

fn report(outcome: Outcome) -> RunReport {
    RunReport::new(outcome, String::new(), Duration::ZERO)
}

fn job(name: &str) -> Job {
    let vars: Vec<Var> = vec![("EVBUS_ID", name.into()), ("EVBUS_GROUP", "g".into()), ("EVBUS_EPOCH", "1".into())];
    let (event, file, vars) = (Bytes::copy_from_slice(name.as_bytes()), name.into(), Rc::new(vars));
    Job { event, file, vars, likeness: None, attempt: 1, epoch: 1, permit: Permit::new(|| true) }
}

fn batches(lines: &Rc<LineHandler>, clock: &Rc<Still>, size: usize, concurrency: usize) -> Batches {
    let bounds = BatchBounds { size, linger: Duration::from_secs(5), concurrency };
    Batches::new(Rc::clone(lines) as _, Rc::clone(clock) as _, bounds, Box::new(|_, _| {}))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The outcomes of jobs that come at once, with no others to come.
fn outcomes(batches: &Batches, clock: &Still, names: &[&str]) -> Vec<Outcome> {
    batches.expect(Some(names.len()));
    let reports = block_on(async {
        let mut runs = pin!(join_all(names.iter().map(|name| batches.run(job(name)))));
        if let Poll::Ready(reports) = futures_util::poll!(&mut runs) {
            return reports;
        }
        // If the first batches have ended before the last event comes, the last event has to wait.
        clock.move_to(clock.elapsed() + Duration::from_secs(5));
        runs.await
    });
    reports.into_iter().map(|report| report.outcome).collect()
}

#[test]
fn a_batch_is_one_run_in_the_order_of_names() {
    let (lines, clock) = <(Rc<LineHandler>, Rc<Still>)>::default();
    let batches = batches(&lines, &clock, 10, 1);
    assert_eq!(outcomes(&batches, &clock, &["c", "a", "b"]), vec![Outcome::Exit(0); 3]);
    assert_eq!(*lines.runs.borrow(), [["a", "b", "c"]]);
    let vars: [Var; 2] = [("EVBUS_GROUP", "g".into()), ("EVBUS_BATCH", "3".into())];
    assert_eq!(*lines.vars.borrow(), vars, "what they have in common");
}

#[test]
fn a_document_of_many_lines_is_one_line() {
    let (lines, clock) = <(Rc<LineHandler>, Rc<Still>)>::default();
    outcomes(&batches(&lines, &clock, 10, 1), &clock, &["{\"a\":\r\n1}\n", "{}"]);
    assert_eq!(*lines.runs.borrow(), [["{\"a\":  1}", "{}"]]);
}

#[test]
fn only_an_event_that_fails_alone_has_failed() {
    let (lines, clock) = <(Rc<LineHandler>, Rc<Still>)>::default();
    let found = outcomes(&batches(&lines, &clock, 8, 1), &clock, &["1", "2", "3", "4", "5", "6 bad", "7", "8"]);
    let failed: Vec<usize> = (0..8).filter(|at| found[*at] != Outcome::Exit(0)).collect();
    assert_eq!(failed, [5]);
    let lengths: Vec<usize> = lines.runs.borrow().iter().map(Vec::len).collect();
    assert_eq!(lengths, [8, 4, 4, 2, 1, 1, 2]);
}

#[test]
fn a_batch_that_was_stopped_or_never_started_is_not_split() {
    for outcome in [Outcome::NotStarted(Box::new("no such file".to_owned().into())), Outcome::Stopped] {
        let (lines, clock) =
            (Rc::new(LineHandler { outcome: Some(outcome.clone()), ..LineHandler::default() }), Rc::<Still>::default());
        let found = outcomes(&batches(&lines, &clock, 4, 1), &clock, &["1", "2", "3"]);
        assert_eq!((found, lines.runs.borrow().len()), (vec![outcome; 3], 1));
    }
}

#[test]
fn batches_respect_their_size_and_concurrency() {
    for concurrency in [1, 2] {
        let held = Rc::new(Notify::new());
        let lines = Rc::new(LineHandler { held: Some(Rc::clone(&held)), ..LineHandler::default() });
        let batches = batches(&lines, &Rc::default(), 3, concurrency);
        let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        batches.expect(Some(10));
        block_on(async {
            let all = join_all(names.iter().map(|name| batches.run(job(name))));
            let ending = async {
                while lines.runs.borrow().len() < 4 || lines.under_way.get() > 0 {
                    held.notify_one();
                    tokio::task::yield_now().await;
                }
            };
            join(all, ending).await;
        });
        let mut lengths: Vec<usize> = lines.runs.borrow().iter().map(Vec::len).collect();
        lengths.sort_unstable();
        assert_eq!((lengths, lines.most_under_way.get()), (vec![1, 3, 3, 3], concurrency));
    }
}

#[test]
fn a_batch_waits_for_more_events_until_its_linger_ends() {
    let (lines, clock) = <(Rc<LineHandler>, Rc<Still>)>::default();
    let batches = batches(&lines, &clock, 10, 1);
    block_on(async {
        let mut both = pin!(join(batches.run(job("1")), batches.run(job("2"))));
        clock.move_to(Duration::from_secs(4));
        assert!(futures_util::poll!(&mut both).is_pending());
        assert!(lines.runs.borrow().is_empty());
        clock.move_to(Duration::from_secs(9));
        both.await;
    });
    assert_eq!(*lines.runs.borrow(), [["1", "2"]]);
}

#[test]
fn a_retried_event_does_not_run_with_new_ones() {
    let (lines, clock) = <(Rc<LineHandler>, Rc<Still>)>::default();
    let batches = batches(&lines, &clock, 10, 1);
    batches.expect(Some(3));
    let tried = Job { attempt: 2, ..job("tried") };
    block_on(join_all([batches.run(job("1")), batches.run(tried), batches.run(job("2"))]));
    let mut runs = lines.runs.borrow().clone();
    runs.sort();
    assert_eq!(runs, [vec!["1", "2"], vec!["tried"]]);
}

#[test]
fn an_event_does_not_start_without_its_permit() {
    let (lines, clock) = <(Rc<LineHandler>, Rc<Still>)>::default();
    let batches = batches(&lines, &clock, 10, 1);
    batches.expect(Some(2));
    let late = Job { permit: Permit::new(|| false), ..job("late") };
    let (late, other) = block_on(join(batches.run(late), batches.run(job("other"))));
    assert_eq!((late.outcome, other.outcome), (Outcome::Stopped, Outcome::Exit(0)));
    assert_eq!(*lines.runs.borrow(), [["other"]]);
}

#[test]
fn an_aborted_event_ends_the_run_and_the_others_restart() {
    let held = Rc::new(Notify::new());
    let lines = Rc::new(LineHandler { held: Some(Rc::clone(&held)), ..LineHandler::default() });
    let batches = batches(&lines, &Rc::default(), 10, 1);
    batches.expect(Some(2));
    let (handle, registration) = AbortHandle::new_pair();
    block_on(async {
        let fenced = async {
            let _ = Abortable::new(batches.run(job("fenced")), registration).await;
        };
        let mut both = pin!(join(fenced, batches.run(job("kept"))));
        assert!(futures_util::poll!(&mut both).is_pending());
        assert_eq!(*lines.runs.borrow(), [["fenced", "kept"]]);
        handle.abort();
        assert!(futures_util::poll!(&mut both).is_pending());
        held.notify_one();
        assert_eq!(both.await.1.outcome, Outcome::Exit(0));
    });
    assert_eq!(lines.runs.borrow()[1..], [["kept"]]);
    assert_eq!(lines.most_under_way.get(), 1, "the first run was ended before the second began");
}

#[test]
fn after_the_end_running_batches_finish_and_none_start() {
    let held = Rc::new(Notify::new());
    let lines = Rc::new(LineHandler { held: Some(Rc::clone(&held)), ..LineHandler::default() });
    let batches = batches(&lines, &Rc::default(), 2, 1);
    block_on(async {
        let running = join(batches.run(job("1 bad")), batches.run(job("2")));
        let mut all = pin!(join(running, batches.run(job("3"))));
        assert!(futures_util::poll!(&mut all).is_pending());
        batches.refuse_new_runs();
        held.notify_one();
        let ((bad, good), waiting) = all.await;
        // A run of the halves would be a new run.
        assert_eq!([bad, good, waiting].map(|report| report.outcome), [const { Outcome::Stopped }; 3]);
    });
    assert_eq!(*lines.runs.borrow(), [["1 bad", "2"]]);
    assert!(!lines.stopped.get());
    batches.terminate();
    assert!(lines.stopped.get());
}

proptest! {
    /// Each event has a report: failed if it is bad, done if not; no run waits for ever.
    #[test]
    fn each_event_has_its_own_report(bad in prop::collection::vec(any::<bool>(), 1..40), size in 1usize..12) {
        let (lines, clock) = <(Rc<LineHandler>, Rc<Still>)>::default();
        let names: Vec<String> =
            bad.iter().enumerate().map(|(n, bad)| format!("{n:02}{}", if *bad { " bad" } else { "" })).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = outcomes(&batches(&lines, &clock, size, 2), &clock, &names);
        let failed: Vec<bool> = found.iter().map(|outcome| *outcome != Outcome::Exit(0)).collect();
        prop_assert_eq!(failed, bad);
    }
}

#[test]
fn an_answer_that_is_about_no_event_is_for_all() {
    let for_all = |outcome: &Outcome, tried| is_for_all(outcome, &[400, 404], tried);
    for status in [200, 204, 301, 401, 403, 408, 429, 502, 503, 504] {
        assert!(for_all(&Outcome::Status(status), true), "{status}");
    }
    for outcome in [Outcome::Status(500), Outcome::NoAnswer("reset".into())] {
        assert!(for_all(&outcome, false) && !for_all(&outcome, true), "{outcome:?}");
    }
    for outcome in
        [Outcome::Status(400), Outcome::Status(404), Outcome::Status(422), Outcome::TimedOut, Outcome::Exit(1)]
    {
        assert!(!for_all(&outcome, false), "{outcome:?}");
    }
}
