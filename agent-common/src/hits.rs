//! How often each kind of probe was hit: what a target pays is hits times the cost of one.

use crate::{layout, shared};

/// Kinds of probes, by what a hit of them costs.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    GoExecute = 0,
    GoRunqput = 1,
    GoGosched = 2,
    GoExitsyscall = 3,
    GoNetpoll = 4,
    GoInjectglist = 5,
    GoGcCycle = 6,
    TokioPollBegin = 7,
    TokioPollEnd = 8,
    TokioPark = 9,
    TokioSchedule = 10,
    TokioSpawn = 11,
    NetState = 12,
    NetMoved = 13,
    ThreadWakeup = 14,
    ThreadSwitch = 15,
    /// A hook was called for a target while its hooks do not count.
    HookIdle = 16,
    GoPark = 17,
    GoExit = 18,
    GoStw = 19,
    GoStop = 20,
    GoAssist = 21,
    GoHandoff = 22,
    ThreadSyscall = 23,
    /// A thread ended: what is kept of it ends with it, window or no window.
    ThreadExit = 24,
    /// No hit of its own: one in a window of plane 2 was the first on its CPU in so long, and cost more for it. Others had the
    /// processor's caches meanwhile.
    Cold64us = 25,
    Cold256us = 26,
    Cold1ms = 27,
    Cold4ms = 28,
    Cold16ms = 29,
    Cold64ms = 30,
}

/// Pauses after which a hit costs more, ns: from each on, up to the next.
pub const COLD: [(Probe, u64); 6] = [
    (Probe::Cold64us, 64_000),
    (Probe::Cold256us, 256_000),
    (Probe::Cold1ms, 1_000_000),
    (Probe::Cold4ms, 4_000_000),
    (Probe::Cold16ms, 16_000_000),
    (Probe::Cold64ms, 64_000_000),
];

impl Probe {
    /// Number of kinds.
    pub const COUNT: usize = 31;

    /// Every kind, with the programs of the object that count it; more than one where alternatives exist. An idle call may
    /// be of any hook's.
    pub const ALL: [(Self, &'static [&'static str]); Self::COUNT] = [
        (Self::GoExecute, &["go_execute"]),
        (Self::GoRunqput, &["go_runqput"]),
        (Self::GoGosched, &["go_gosched"]),
        (Self::GoExitsyscall, &["go_exitsyscall"]),
        (Self::GoNetpoll, &["go_netpoll"]),
        (Self::GoInjectglist, &["go_injectglist"]),
        (Self::GoGcCycle, &["go_gc_cycle"]),
        (Self::TokioPollBegin, &["tokio_poll_begin"]),
        (Self::TokioPollEnd, &["tokio_poll_end"]),
        (Self::TokioPark, &["tokio_park"]),
        (Self::TokioSchedule, &["tokio_schedule"]),
        (Self::TokioSpawn, &["tokio_spawn"]),
        (Self::NetState, &["net_set_state", "net_closed"]),
        (
            Self::NetMoved,
            &[
                "net_send",
                "net_recv",
                "net_send_inet",
                "net_send_inet6",
                "net_recv_inet",
                "net_recv_inet6",
            ],
        ),
        (Self::ThreadWakeup, &["thread_wakeup", "thread_wakeup_new"]),
        (Self::ThreadSwitch, &["thread_switch"]),
        (Self::HookIdle, &["hook_idle"]),
        (Self::GoPark, &["go_park"]),
        (Self::GoExit, &["go_exit"]),
        (Self::GoStw, &["go_stw"]),
        (Self::GoStop, &["go_stop"]),
        (Self::GoAssist, &["go_assist"]),
        (Self::GoHandoff, &["go_handoff"]),
        (Self::ThreadSyscall, &["thread_sys_enter", "thread_sys_exit"]),
        (Self::ThreadExit, &["process_exit"]),
        // Names of what is told.
        (Self::Cold64us, &["cold_64us"]),
        (Self::Cold256us, &["cold_256us"]),
        (Self::Cold1ms, &["cold_1ms"]),
        (Self::Cold4ms, &["cold_4ms"]),
        (Self::Cold16ms, &["cold_16ms"]),
        (Self::Cold64ms, &["cold_64ms"]),
    ];

    /// What the first hit on a CPU in so long counts as besides, ns.
    #[inline(always)]
    pub const fn cold(pause: u64) -> Option<Self> {
        // No loop over a table: that would be a map of the kernel's. Most hits are soon after another.
        if pause < COLD[0].1 {
            None
        } else if pause < COLD[1].1 {
            Some(COLD[0].0)
        } else if pause < COLD[2].1 {
            Some(COLD[1].0)
        } else if pause < COLD[3].1 {
            Some(COLD[2].0)
        } else if pause < COLD[4].1 {
            Some(COLD[3].0)
        } else if pause < COLD[5].1 {
            Some(COLD[4].0)
        } else {
            Some(COLD[5].0)
        }
    }

    /// Whether it is one of [`COLD`].
    pub const fn is_cold(self) -> bool {
        self as u32 >= Self::Cold64us as u32
    }

    /// Whether a hit of it is a trap (plane 2); the others are calls from within the kernel.
    pub const fn is_uprobe(self) -> bool {
        !matches!(
            self,
            Self::NetState
                | Self::NetMoved
                | Self::ThreadWakeup
                | Self::ThreadSwitch
                | Self::ThreadSyscall
                | Self::ThreadExit
                | Self::HookIdle
        ) && !self.is_cold()
    }
}

/// Events that the program `flood`, which is there for measurements only, writes a hit.
pub const FLOOD: u32 = 32;

/// Hits by [`Probe`], of one target on one CPU.
pub type Hits = [u64; Probe::COUNT];

/// What counts for windows only, as an index.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// Plane 1: the kernel's hooks.
    Hooks = 0,
    /// Plane 2: uprobes on the runtimes' schedulers.
    Probes = 1,
}

impl Plane {
    /// Number of such planes.
    pub const COUNT: usize = 2;
}

/// Hits in windows that a CPU keeps to itself before it adds them to those of all, [`Cut::used`]: what is allowed is exceeded by no more than
/// that many a CPU, and one hit in as many pays for a word that all CPUs write.
pub const TOGETHER: u64 = 16;

shared! {
    /// A target's account on one CPU.
    pub struct Account {
        pub hits: Hits,
        /// Hits in windows that are not in [`Cut::used`] yet, by [`Plane`].
        pub held: [u64; Plane::COUNT],
        /// When a probe was last hit here: CLOCK_MONOTONIC, ns.
        pub last: u64,
    }

    /// What a target's windows may still have, by [`Plane`].
    pub struct Cut {
        /// When the programs ended a window by themselves, as its allowance was used up: CLOCK_MONOTONIC, ns; 0 while they have not.
        pub at: [u64; Plane::COUNT],
        /// Hits in windows so far, on all CPUs.
        pub used: [u64; Plane::COUNT],
    }
}

layout!(Account: Probe::COUNT * 8 + 24, Cut: 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_at_their_own_number() {
        for (index, (probe, programs)) in Probe::ALL.iter().enumerate() {
            assert_eq!(*probe as usize, index);
            assert!(!programs.is_empty());
        }
        assert!(Probe::TokioSpawn.is_uprobe() && !Probe::NetState.is_uprobe() && !Probe::Cold1ms.is_uprobe());
    }

    #[test]
    fn a_hit_is_as_cold_as_the_pause_before_it_is_long() {
        for (pause, expected) in [
            (0, None),
            (63_999, None),
            (64_000, Some(Probe::Cold64us)),
            (255_999, Some(Probe::Cold64us)),
            (1_000_000, Some(Probe::Cold1ms)),
            (63_999_999, Some(Probe::Cold16ms)),
            (64_000_000, Some(Probe::Cold64ms)),
            (u64::MAX, Some(Probe::Cold64ms)),
        ] {
            assert_eq!(Probe::cold(pause), expected, "{pause}");
            assert!(expected.is_none_or(Probe::is_cold));
        }
        assert!(
            COLD.windows(2)
                .all(|pair| pair[0].1 < pair[1].1 && pair[0].0 as u32 + 1 == pair[1].0 as u32)
        );
    }
}
