//! How often probes and hooks were hit, by kind: the cost for a target is hits times the cost of one.

use crate::{
    layout, shared,
    target::{PROBES_OPEN, SAMPLE_OPEN, SOCKETS_OPEN, THREADS_OPEN},
};

/// When a probe or hook is hit, or called for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// In windows of its plane.
    Windows,
    /// Always: once a GC cycle, a stop of the world, or a thread that ends.
    Always,
    /// While hooks do not count.
    Idle,
}

/// Declares the kinds of probes, by what a hit of them costs: each with its plane, when it is hit, and the programs of the object that count it,
/// more than one where alternatives exist. The classes of cold hits follow them.
macro_rules! probes {
    (
        hit { $($(#[$meta:meta])* $name:ident: $plane:ident, $when:ident, $programs:expr;)* }
        cold { $($(#[$cold_meta:meta])* $cold:ident: $cold_name:literal;)* }
    ) => {
        /// Kinds of probes, by what a hit of them costs.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum HitKind {
            $($(#[$meta])* $name,)*
            $($(#[$cold_meta])* $cold,)*
        }

        impl HitKind {
            /// Every kind, with the programs of the object that count it. An idle call may be of any hook's.
            pub const ALL: [(Self, &'static [&'static str]); Self::COUNT] = [
                $((Self::$name, &$programs),)*
                // Their names in what is exported: they have no programs.
                $((Self::$cold, &[$cold_name]),)*
            ];

            const NAMES: &[&str] = &[$(stringify!($name),)* $(stringify!($cold),)*];
            /// Number of kinds.
            pub const COUNT: usize = Self::NAMES.len();

            /// Whether a hit of it is a trap (planes 2s and 2); the others are calls from within the kernel.
            pub const fn is_uprobe(self) -> bool {
                match self {
                    $(Self::$name => Plane::$plane.is_probed(),)*
                    $(Self::$cold => false,)*
                }
            }

            /// The plane whose budget pays for it. A cold hit may be one of the sample, too.
            pub const fn plane(self) -> Plane {
                match self {
                    $(Self::$name => Plane::$plane,)*
                    $(Self::$cold => Plane::Probes,)*
                }
            }

            /// When it is hit.
            pub const fn when(self) -> When {
                match self {
                    $(Self::$name => When::$when,)*
                    $(Self::$cold => When::Windows,)*
                }
            }
        }
    };
}

probes! {
    hit {
        GoExecute: Probes, Windows, ["go_execute"];
        GoRunqput: Probes, Windows, ["go_runqput"];
        GoGosched: Probes, Windows, ["go_gosched"];
        GoExitsyscall: Probes, Windows, ["go_exitsyscall"];
        GoNetpoll: Probes, Windows, ["go_netpoll"];
        GoInjectglist: Probes, Windows, ["go_injectglist"];
        GoPark: Probes, Windows, ["go_park"];
        GoExit: Probes, Windows, ["go_exit"];
        GoGcCycle: Probes, Always, ["go_gc_cycle"];
        GoStw: Probes, Always, ["go_stw"];
        GoStop: Probes, Always, ["go_stop"];
        GoAssist: Probes, Windows, ["go_assist"];
        GoHandoff: Probes, Windows, ["go_handoff"];
        GoLatency: Sample, Windows, ["go_latency"];
        TokioPollBegin: Probes, Windows, ["tokio_poll_begin"];
        TokioPollEnd: Probes, Windows, ["tokio_poll_end", "tokio_poll_return"];
        TokioPark: Probes, Windows, ["tokio_park"];
        TokioSchedule: Probes, Windows, ["tokio_schedule"];
        TokioSpawn: Probes, Windows, ["tokio_spawn"];
        NetState: Sockets, Windows, ["net_set_state", "net_closed"];
        NetMoved: Sockets, Windows, ["net_send", "net_recv", "net_send_inet", "net_send_inet6", "net_recv_inet", "net_recv_inet6"];
        NetRetransmit: Sockets, Windows, ["net_retransmit", "net_retransmit_error"];
        ThreadWakeup: Threads, Windows, ["thread_wakeup", "thread_wakeup_new"];
        ThreadSwitch: Threads, Windows, ["thread_switch"];
        ThreadSyscall: Threads, Windows, ["thread_sys_enter", "thread_sys_exit"];
        /// A thread ended: its entries are removed, outside windows too.
        ThreadExit: Threads, Always, ["process_exit"];
        /// A hook was called for a target while its hooks do not count.
        HookIdle: Threads, Idle, ["hook_idle"];
    }
    cold {
        /// Not a hit of its own, but a hit in a window of plane 2 or 2s that was the first on its CPU for this long. It cost more, since its
        /// data was no longer in the CPU's caches.
        Cold16us: "cold_16us";
        Cold64us: "cold_64us";
        Cold256us: "cold_256us";
        Cold1ms: "cold_1ms";
        Cold4ms: "cold_4ms";
        Cold16ms: "cold_16ms";
        Cold64ms: "cold_64ms";
        /// Not a hit of its own either: other probes were just hit on the CPU, but none of this kind for this long. The kernel's data for
        /// this probe was no longer in the caches.
        ColdKind16us: "cold_kind_16us";
        ColdKind64us: "cold_kind_64us";
        ColdKind256us: "cold_kind_256us";
        ColdKind1ms: "cold_kind_1ms";
        ColdKind4ms: "cold_kind_4ms";
        ColdKind16ms: "cold_kind_16ms";
        ColdKind64ms: "cold_kind_64ms";
    }
}

/// Pauses after which a hit costs more, ns: from each on, up to the next. The first hit on a CPU counts as these.
pub const COLD: [(HitKind, u64); 7] = [
    (HitKind::Cold16us, 16_000),
    (HitKind::Cold64us, 64_000),
    (HitKind::Cold256us, 256_000),
    (HitKind::Cold1ms, 1_000_000),
    (HitKind::Cold4ms, 4_000_000),
    (HitKind::Cold16ms, 16_000_000),
    (HitKind::Cold64ms, 64_000_000),
];

/// As [`COLD`], of the first hit of its kind.
pub const COLD_KIND: [HitKind; COLD.len()] = [
    HitKind::ColdKind16us,
    HitKind::ColdKind64us,
    HitKind::ColdKind256us,
    HitKind::ColdKind1ms,
    HitKind::ColdKind4ms,
    HitKind::ColdKind16ms,
    HitKind::ColdKind64ms,
];

impl HitKind {
    /// Which of [`COLD`] a hit is after this pause, ns; None when it comes soon after another.
    #[inline(always)]
    pub const fn cold(pause: u64) -> Option<usize> {
        // No loop over a table, which would be a map. Most hits come soon after another.
        if pause < COLD[0].1 {
            None
        } else if pause < COLD[1].1 {
            Some(0)
        } else if pause < COLD[2].1 {
            Some(1)
        } else if pause < COLD[3].1 {
            Some(2)
        } else if pause < COLD[4].1 {
            Some(3)
        } else if pause < COLD[5].1 {
            Some(4)
        } else if pause < COLD[6].1 {
            Some(5)
        } else {
            Some(6)
        }
    }

    /// Whether it is one of [`COLD`] or [`COLD_KIND`].
    pub const fn is_cold(self) -> bool {
        self as u32 >= Self::Cold16us as u32
    }
}

/// Events that the program `flood`, which is for measurements only, writes for each hit.
pub const FLOOD: u32 = 32;

/// Hits by [`HitKind`], of one target on one CPU.
pub type Hits = [u64; HitKind::COUNT];

/// The planes that have windows, as an index.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plane {
    /// Plane 1a: the kernel's hooks on sockets.
    Sockets = 0,
    /// Plane 2s: a uprobe where a runtime records a sample of its own.
    Sample = 1,
    /// Plane 1b: the kernel's hooks on its scheduler and on system calls.
    Threads = 2,
    /// Plane 2: uprobes on the runtimes' schedulers.
    Probes = 3,
}

impl Plane {
    /// Number of such planes.
    pub const COUNT: usize = 4;

    /// All of them, in the order in which the budget pays for them.
    pub const ALL: [Self; Self::COUNT] = [Self::Sockets, Self::Sample, Self::Threads, Self::Probes];

    /// The name under which it is exported.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Sample => "sample",
            Self::Threads => "threads",
            Self::Probes => "probes",
        }
    }

    /// Whether its programs are uprobes: each target has its own. The others are hooks, which all targets share.
    pub const fn is_probed(self) -> bool {
        matches!(self, Self::Sample | Self::Probes)
    }

    /// The bit of [`Target::flags`](crate::target::Target::flags) that says that its window is open.
    #[inline(always)]
    pub const fn open_flag(self) -> u32 {
        match self {
            Self::Sockets => SOCKETS_OPEN,
            Self::Sample => SAMPLE_OPEN,
            Self::Threads => THREADS_OPEN,
            Self::Probes => PROBES_OPEN,
        }
    }
}

/// Hits in windows that a CPU counts before it adds them to the sum of all CPUs, [`Cutoff::used`]. The allowance is exceeded by at most
/// this many hits for each CPU, and only one hit in as many writes a word that all CPUs share.
pub const HIT_BATCH: u64 = 16;

/// Kinds that are hit, rounded up to an even number, since shared types have no padding.
pub const KINDS: usize = (HitKind::Cold16us as usize).next_multiple_of(2);

/// Times of a kind's last hit are in units of 2 to the power of this, ns: 4 µs, which wrap around after 4.9 hours. A longer pause may be
/// taken for a shorter one.
pub const KIND_UNIT: u32 = 12;

shared! {
    /// Hits of a target on one CPU.
    pub struct Account {
        /// By [`HitKind`].
        pub hits: [u64; KINDS],
        /// Those that were the first after a pause, by [`COLD`].
        pub cold: [u64; COLD.len()],
        /// Those that were the first of their kind only, by [`COLD_KIND`].
        pub cold_kind: [u64; COLD.len()],
        /// Hits in windows that are not in [`Cutoff::used`] yet, by [`Plane`].
        pub held: [u64; Plane::COUNT],
    }

    /// When probes of any target were last hit on one CPU.
    pub struct LastHits {
        /// Any: CLOCK_MONOTONIC, ns; 0 if none was.
        pub last: u64,
        /// One of this kind, by [`HitKind`], in units of [`KIND_UNIT`].
        pub last_of: [u32; KINDS],
    }

    /// How far a target's windows have used their allowance, by [`Plane`].
    pub struct Cutoff {
        /// When the programs ended the window because its allowance was used up: CLOCK_MONOTONIC, ns; 0 if they did not.
        pub at: [u64; Plane::COUNT],
        /// Hits in windows so far, on all CPUs.
        pub used: [u64; Plane::COUNT],
    }
}

impl Account {
    /// All counts, by [`HitKind`].
    pub fn counted(&self) -> Hits {
        let mut counted = [0; HitKind::COUNT];
        counted[..KINDS].copy_from_slice(&self.hits);
        for (index, (cold, _)) in COLD.into_iter().enumerate() {
            counted[cold as usize] = self.cold[index];
            counted[COLD_KIND[index] as usize] = self.cold_kind[index];
        }
        counted
    }
}

layout!(Account: KINDS * 8 + COLD.len() * 16 + 32, LastHits: 8 + KINDS * 4, Cutoff: 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_at_their_own_number() {
        for (index, (probe, programs)) in HitKind::ALL.iter().enumerate() {
            assert_eq!(*probe as usize, index);
            assert!(!programs.is_empty());
            assert!(probe.is_cold() || index < KINDS, "{probe:?} has no place in an account");
        }
        assert!(HitKind::TokioSpawn.is_uprobe() && !HitKind::NetState.is_uprobe() && !HitKind::Cold1ms.is_uprobe());
    }

    #[test]
    fn a_hit_is_as_cold_as_the_pause_before_it_is_long() {
        for (pause, expected) in [
            (0, None),
            (15_999, None),
            (16_000, Some(HitKind::Cold16us)),
            (63_999, Some(HitKind::Cold16us)),
            (64_000, Some(HitKind::Cold64us)),
            (255_999, Some(HitKind::Cold64us)),
            (1_000_000, Some(HitKind::Cold1ms)),
            (63_999_999, Some(HitKind::Cold16ms)),
            (64_000_000, Some(HitKind::Cold64ms)),
            (u64::MAX, Some(HitKind::Cold64ms)),
        ] {
            assert_eq!(HitKind::cold(pause).map(|at| COLD[at].0), expected, "{pause}");
        }
        assert!(COLD.windows(2).all(|pair| pair[0].1 < pair[1].1));
        let of_pauses = COLD.map(|(probe, _)| probe).into_iter().chain(COLD_KIND);
        assert!(of_pauses.clone().all(|probe| probe.is_cold() && !probe.is_uprobe()));
        assert!(
            of_pauses
                .map(|probe| probe as usize)
                .eq(HitKind::Cold16us as usize..HitKind::COUNT)
        );
    }

    #[test]
    fn what_is_counted_stands_at_its_kind() {
        let mut account = Account::default();
        account.hits[HitKind::GoPark as usize] = 3;
        account.cold[3] = 2;
        account.cold_kind[6] = 1;
        let counted = account.counted();
        assert_eq!(counted.iter().sum::<u64>(), 6);
        let of = [HitKind::GoPark, HitKind::Cold1ms, HitKind::ColdKind64ms].map(|probe| counted[probe as usize]);
        assert_eq!(of, [3, 2, 1]);
    }
}
