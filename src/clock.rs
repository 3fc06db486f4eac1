//! The only wall clock and the only source of randomness in evbus.
//!
//! Everything that needs the time, a pause or a random number is handed a [`Clock`], so that the
//! simulation can skew, freeze and repeat it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::event::EventTime;

#[cfg(test)]
mod still;
#[cfg(test)]
pub(crate) use still::{SetClock, Still};

/// A boxed future on one thread, as every asynchronous trait of evbus returns it.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Time and randomness, as one process sees them.
pub trait Clock {
    /// Wall time in microseconds. May be wrong, may jump; nothing may rely on it for safety.
    fn now(&self) -> EventTime;

    /// Time since some fixed moment, never going back, suspend included (`CLOCK_BOOTTIME`).
    fn elapsed(&self) -> Duration;

    /// Completes once [`Clock::elapsed`] has reached `until`.
    fn sleep_until(&self, until: Duration) -> Fut<'_, ()>;

    /// 64 random bits.
    fn random(&self) -> u64;
}

/// The pauses between tries: each twice as long as the one before, up to the longest.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pause: Duration,
    longest: Duration,
}

impl Backoff {
    /// Begins with the pause `first`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { pause: first, longest }
    }

    /// The next pause.
    pub const fn pause(&self) -> Duration {
        self.pause
    }

    /// Takes the next pause; the one after it is longer.
    pub fn take(&mut self) -> Duration {
        let longer = (self.pause * 2).min(self.longest);
        std::mem::replace(&mut self.pause, longer)
    }

    /// Waits for the next pause.
    pub async fn wait(&mut self, clock: &dyn Clock) {
        clock.sleep_until(clock.elapsed() + self.take()).await;
    }
}

/// The machine's clock and the kernel's randomness.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn now(&self) -> EventTime {
        let since_epoch = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let micros = since_epoch.tv_sec.saturating_mul(1_000_000).saturating_add(since_epoch.tv_nsec / 1_000);
        #[cfg(feature = "clock-file")]
        let micros = micros.saturating_add(wrong_by_micros());
        EventTime::from_micros(micros)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn elapsed(&self) -> Duration {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(boot.tv_sec.unsigned_abs(), u32::try_from(boot.tv_nsec).unwrap_or(0))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn sleep_until(&self, until: Duration) -> Fut<'_, ()> {
        Box::pin(async move {
            // tokio's timer stands still while the machine sleeps, so look again after waking.
            loop {
                let left = until.saturating_sub(self.elapsed());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left).await;
            }
        })
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn random(&self) -> u64 {
        let mut bytes = [0u8; 8];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                // A sandbox may refuse the system call, but it has the file.
                Err(error) => match from_file(&mut bytes[filled..]) {
                    Ok(()) => break,
                    // Without randomness no name would be unique.
                    Err(_) => panic!("the kernel gives no randomness: {error}"),
                },
            }
        }
        u64::from_ne_bytes(bytes)
    }
}

fn from_file(bytes: &mut [u8]) -> std::io::Result<()> {
    use std::io::Read;
    std::fs::File::open("/dev/urandom")?.read_exact(bytes)
}

/// How wrong the wall clock is to be: the tests set the clocks of real processes, and step them.
#[cfg(feature = "clock-file")]
fn wrong_by_micros() -> i64 {
    let seconds = std::env::var_os("EVBUS_CLOCK_FILE").and_then(|file| std::fs::read_to_string(file).ok());
    let seconds = seconds.and_then(|text| text.trim().parse::<i64>().ok());
    seconds.unwrap_or(0).saturating_mul(1_000_000)
}
