//! What goroutines do: running, waiting for something, or runnable and waiting for their turn.

use crate::{event::Header, layout, shared, thread::run_queue::OffCpu};

/// How a goroutine became runnable.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// runtime.runqput: readied by another goroutine, a timer, or just created.
    RunqPut = 1,
    /// runtime.goschedImpl: it yielded or was preempted.
    Gosched = 2,
    /// It came back from a system call and found no P.
    ExitSyscall = 3,
    /// runtime.netpollready: its descriptor became ready.
    Netpoll = 4,
    /// runtime.injectglist: it was waiting on a list of the runtime's own.
    InjectList = 5,
}

/// What a goroutine does. The numbers are not the runtime's.
pub const UNKNOWN: u32 = 0;
pub const RUNNABLE: u32 = 1;
/// It runs, or is in a system call.
pub const RUNNING: u32 = 2;
pub const WAITING: u32 = 3;

/// Wakers that are remembered: who woke it, who had woken that one, and so on.
pub const CHAIN: usize = 3;

/// Reasons of waiting that are kept apart: a [`crate::histogram::Series::GoTime`] category below it is a runtime.waitReason.
pub const REASONS: u32 = 64;

/// What a goroutine's time went into, besides waiting: categories of [`crate::histogram::Series::GoTime`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Running, its thread on a core.
    Running = 64,
    /// Its thread was asleep in the kernel: a system call, or a page fault.
    Blocked = 65,
    /// Running by the runtime's account; its thread waited for a core.
    RunningRunQueue = 66,
    /// The same, its cgroup being throttled.
    RunningThrottled = 67,
    /// Running, blocked or waiting for a core: the hooks did not count.
    RunningUnsplit = 68,
    /// Runnable, with every P taken.
    NoProcessor = 72,
    /// Runnable, its P's thread waiting for a core.
    RunQueue = 73,
    /// The same, its cgroup being throttled.
    Throttled = 74,
    /// Runnable, with an idle P at hand that had to be woken or found.
    IdleProcessor = 75,
    /// Runnable: the hooks did not count.
    RunnableUnsplit = 76,
    /// Of all its running, stretches of [`LONG`] and over.
    Long = 80,
    /// Counts only: preempted while it ran.
    Preempted = 81,
    /// Counts only: its function returned, or it called runtime.Goexit.
    Ended = 82,
}

/// A goroutine that runs for so long without a break is no good neighbour, ns: sysmon preempts after it (go1.26,
/// runtime/proc.go, forcePreemptNS).
pub const LONG: u64 = 10_000_000;

/// A queue whose length was not read.
pub const UNREAD: u32 = u32::MAX;

shared! {
    /// Key of a goroutine.
    pub struct GoroutineKey {
        /// Address of its g, which the runtime uses again.
        pub g: u64,
        /// The target's id.
        pub target_id: u64,
    }

    /// Who made a goroutine runnable that had been waiting.
    pub struct Waker {
        /// goid; 0 when it was the runtime itself (a timer, the network poller), or is not known.
        pub goid: u64,
        /// Entry of the function it was started with; 0 when not known.
        pub startpc: u64,
        /// CLOCK_MONOTONIC, ns: when it had begun to run; 0 when not seen.
        pub ran: u64,
    }

    /// What a goroutine does, as far as the present window has seen it.
    pub struct Goroutine {
        /// CLOCK_MONOTONIC, ns: since when it is in its state.
        pub since: u64,
        /// CLOCK_MONOTONIC, ns: since when it had waited before it became runnable; 0 when it had not, or was not seen.
        pub parked: u64,
        pub goid: u64,
        /// Entry of the function it was started with.
        pub startpc: u64,
        /// The window it was looked at in: the time that was opened at.
        pub window: u64,
        /// Of the thread `tid`, until `since`.
        pub off_cpu: OffCpu,
        /// Who woke it last, and who had woken that one.
        pub wakers: [Waker; CHAIN],
        /// [`UNKNOWN`], [`RUNNABLE`], [`RUNNING`], [`WAITING`].
        pub state: u32,
        /// A [`Source`], when runnable.
        pub source: u32,
        /// runtime.waitReason of its last wait.
        pub reason: u32,
        /// Thread that runs it, or made it runnable.
        pub tid: u32,
        /// When it became runnable: goroutines in that P's run queue before it, or [`UNREAD`].
        pub queue: u32,
        /// Idle Ps then, or [`UNREAD`].
        pub idle: u32,
    }

    /// A wait over the threshold.
    pub struct Wait {
        pub header: Header,
        /// CLOCK_MONOTONIC, ns: when it became runnable. It ran at `header.time`.
        pub since: u64,
        /// CLOCK_MONOTONIC, ns: when it began to wait before that; 0 when it had not, or was not seen.
        pub parked: u64,
        pub goid: u64,
        /// goid of its creator; 0 when the version does not keep it.
        pub parent_goid: u64,
        /// Program counter of the `go` statement that created it.
        pub gopc: u64,
        /// Entry of the function it was started with.
        pub startpc: u64,
        /// Of the time from runnable to running, ns: its thread waited for a core, or was throttled. Only with `split`.
        pub run_queue: u64,
        pub throttled: u64,
        pub wakers: [Waker; CHAIN],
        /// A [`Source`].
        pub source: u32,
        /// runtime.waitReason before it became runnable; 0 when it had never waited.
        pub wait_reason: u32,
        /// As in [`Goroutine`].
        pub queue: u32,
        pub idle: u32,
        /// 1 when the hooks saw the whole of its time from runnable to running.
        pub split: u32,
        /// 1 when what it waited for before was over the threshold, and no idleness.
        pub waited: u32,
        /// GOMAXPROCS when it ran.
        pub max_procs: u32,
        pub pad: u32,
    }
}

layout!(GoroutineKey: 16, Waker: 24, Goroutine: 160, Wait: 24 + 8 * 8 + 72 + 32);
