//! CLOCK_MONOTONIC in ns, the clock that the agent and the targets' accounts use.

use std::time::Duration;

use nix::{
    sys::time::TimeValLike as _,
    time::{ClockId, clock_gettime},
};

pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    u64::try_from(now.num_nanoseconds()).expect("a monotonic clock begins at 0")
}

/// Makes this thread's sleeps end on time: the kernel's default is to let them run 50 µs over.
pub(crate) fn precise_sleeps() -> nix::Result<()> {
    nix::sys::prctl::set_timerslack(1)
}

/// Sleeps until a moment, but not past `slice`, so that the caller can look at its stop flag.
pub(crate) fn sleep_towards(moment_ns: u64, slice: Duration) {
    let left = Duration::from_nanos(moment_ns.saturating_sub(now_ns()));
    std::thread::sleep(left.min(slice));
}
