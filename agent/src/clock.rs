//! Monotonic time inside, wall time only at export, by one anchor a batch.

use rustix::time::{ClockId, clock_gettime};

use crate::model::MonoNs;

/// CLOCK_MONOTONIC now.
pub fn now() -> MonoNs {
    MonoNs(nanos(ClockId::Monotonic))
}

/// A monotonic instant and the wall time it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    mono: u64,
    /// ns after 1970.
    wall: u64,
}

impl Anchor {
    /// Reads both clocks, the wall clock between two readings of the monotonic one, and keeps the tightest of some tries.
    pub fn take() -> Self {
        let tries = (0..5).map(|_| {
            let before = nanos(ClockId::Monotonic);
            let wall = nanos(ClockId::Realtime);
            let after = nanos(ClockId::Monotonic);
            (
                after - before,
                Self {
                    mono: before + (after - before) / 2,
                    wall,
                },
            )
        });
        tries
            .min_by_key(|(gap, _)| *gap)
            .map_or(Self { mono: 0, wall: 0 }, |(_, anchor)| anchor)
    }

    /// A monotonic instant, ns, and the wall time it was, ns after 1970.
    pub fn of(mono: u64, wall: u64) -> Self {
        Self { mono, wall }
    }

    /// As [`Self::of`] takes them.
    pub fn parts(&self) -> (u64, u64) {
        (self.mono, self.wall)
    }

    /// Wall time of a monotonic instant, ns after 1970.
    pub fn wall(&self, time: MonoNs) -> u64 {
        self.wall.saturating_add_signed(time.0 as i64 - self.mono as i64)
    }
}

/// When a process started on the monotonic clock, from its start in clock ticks after boot. Boot time counts suspended
/// time, which the monotonic clock does not: exact to the tick on a host that never slept since.
pub fn process_start(ticks: u64) -> MonoNs {
    let hz = rustix::param::clock_ticks_per_second();
    let boot = (u128::from(ticks) * 1_000_000_000 / u128::from(hz.max(1))) as u64;
    let asleep = nanos(ClockId::Boottime).saturating_sub(nanos(ClockId::Monotonic));
    MonoNs(boot.saturating_sub(asleep))
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_anchor_carries_intervals_over() {
        let anchor = Anchor {
            mono: 1_000,
            wall: 5_000_000,
        };
        assert_eq!(anchor.wall(MonoNs(1_000)), 5_000_000);
        assert_eq!(anchor.wall(MonoNs(1_250)), 5_000_250);
        assert_eq!(anchor.wall(MonoNs(400)), 4_999_400);
    }
}
