//! Waiting for what another process does.

/// Waits until a condition that another process brings about is true.
#[track_caller]
#[allow(
    clippy::disallowed_methods,
    reason = "another process's doing is waited for; how long it takes decides nothing"
)]
pub fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_mins(5) {
        if true_now() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("never came true: {what}");
}
