//! Threads for work that may wait for the disk or compute for long, so that a worker's own thread
//! goes on.
//!
//! evbus has its own pool, because the runtime's pool ends the process where no thread can be
//! started: in a container at its limit of processes, or under `ulimit -u`. Here the caller's
//! thread does the work then, and the next call tries again.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::oneshot;

/// The most threads; further work waits for one.
const MOST: usize = 64;

/// The idle time after which a thread ends.
const IDLE: std::time::Duration = std::time::Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Pool {
    state: Mutex<PoolState>,
    more: Condvar,
}

#[derive(Default)]
struct PoolState {
    waiting: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

/// Runs `work` on another thread, or on this one if no other can be started. Returns its result;
/// none if it panicked.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
    let (answer, answered) = oneshot::channel();
    let pool = POOL.get_or_init(Arc::default);
    // The caller may be gone by then.
    pool.take(Box::new(move || _ = answer.send(work())));
    answered.await.ok()
}

/// What an error of [`start_resolver`] is about.
pub(crate) const NO_RESOLVER: &str = "cannot start a thread to resolve names";

/// Starts a thread that stays. The runtime resolves server names on a thread, and aborts the process if
/// it cannot start one.
///
/// # Errors
/// No thread can be started.
pub(crate) fn start_resolver() -> std::io::Result<()> {
    // The runtime would panic where this fails.
    let tried = std::thread::Builder::new().spawn(|| ())?;
    let _ = tried.join();
    drop(tokio::task::spawn_blocking(|| ()));
    Ok(())
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, work: Work) {
        let mut state = self.state();
        let needed = state.idle <= state.waiting.len() && state.threads < MOST;
        if needed && !self.start(&mut state) && state.threads == 0 {
            drop(state);
            return work();
        }
        state.waiting.push_back(work);
        self.more.notify_one();
    }

    /// Starts a thread, if the system gives one.
    fn start(self: &Arc<Self>, state: &mut PoolState) -> bool {
        let pool = Arc::clone(self);
        let started = std::thread::Builder::new().name("evbus-disk".to_owned()).spawn(move || pool.serve()).is_ok();
        state.threads += usize::from(started);
        started
    }

    fn serve(&self) {
        let mut state = self.state();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                drop(state);
                // Work that panics has no answer, and its thread goes on.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                state = self.state();
                continue;
            }
            state.idle += 1;
            let (woken, waited) = self.more.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.waiting.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn concurrent_calls_all_complete() {
        let sum = block_on(async {
            let all = (0..500u64).map(|n| run(move || n));
            futures_util::future::join_all(all).await.into_iter().flatten().sum::<u64>()
        });
        assert_eq!(sum, 499 * 500 / 2);
    }

    #[test]
    fn a_panic_returns_none_and_keeps_the_thread() {
        let answers = block_on(async { [run(|| panic!("on purpose")).await, run(|| 7).await] });
        assert_eq!(answers, [None, Some(7)]);
    }
}
