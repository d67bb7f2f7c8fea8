//! States of goroutines: running, waiting, or runnable.

use crate::{event::Header, layout, shared, table, thread::run_queue::OffCpu};

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
    /// runtime.injectglist: it was on a list of the runtime's.
    InjectList = 5,
}

/// States of a goroutine. The numbers are not the runtime's.
pub const UNKNOWN: u32 = 0;
pub const RUNNABLE: u32 = 1;
/// It runs, or is in a system call.
pub const RUNNING: u32 = 2;
pub const WAITING: u32 = 3;

/// Wakers that are kept: the goroutine that woke it, the one that woke that, and so on.
pub const CHAIN: usize = 3;

/// Wait reasons below this have a value of their own: a [`crate::histogram::Series::GoTime`] category below it is a runtime.waitReason.
pub const REASONS: u32 = 64;

/// What a goroutine's time went into, besides waiting: categories of [`crate::histogram::Series::GoTime`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Running, and its thread was on a CPU.
    Running = 64,
    /// Its thread was asleep in the kernel: a system call, or a page fault.
    Blocked = 65,
    /// Running for the runtime; its thread was on a run queue.
    RunningRunQueue = 66,
    /// The same, while its cgroup was throttled.
    RunningThrottled = 67,
    /// Running, blocked or on a run queue: the hooks did not count.
    RunningUnsplit = 68,
    /// Runnable, and no P was idle.
    NoProcessor = 72,
    /// Runnable, and its P's thread was on a run queue.
    RunQueue = 73,
    /// The same, while its cgroup was throttled.
    Throttled = 74,
    /// Runnable, and a P was idle: it had to be found or woken.
    IdleProcessor = 75,
    /// Runnable: the hooks did not count.
    RunnableUnsplit = 76,
    /// Part of all its running: runs of at least [`LONG`].
    Long = 80,
    /// Counts only: preempted while it ran.
    Preempted = 81,
    /// Counts only: its function returned, or it called runtime.Goexit.
    Ended = 82,
}

/// A goroutine that runs for so long without a break delays others, ns: sysmon preempts it then (go1.26,
/// runtime/proc.go, forcePreemptNS).
pub const LONG: u64 = 10_000_000;

/// A length that could not be read.
pub const UNREAD: u32 = u32::MAX;

shared! {
    /// Key of a goroutine.
    pub struct GoroutineKey {
        /// Address of its g, which the runtime reuses.
        pub g: u64,
        /// The target's id.
        pub target_id: u64,
    }

    /// The goroutine that woke another.
    pub struct Waker {
        /// goid; 0 when it was the runtime itself (a timer, the network poller), or is not known.
        pub goid: u64,
        /// Entry of the function it was started with; 0 when not known.
        pub startpc: u64,
        /// CLOCK_MONOTONIC, ns: when it began to run; 0 when that was not seen.
        pub ran: u64,
    }

    /// The state of a goroutine, as far as the current window has seen it.
    pub struct Goroutine {
        /// The window that saw it, by the time at which it was opened.
        pub window: u64,
        /// CLOCK_MONOTONIC, ns: since when it is in its state.
        pub since: u64,
        /// CLOCK_MONOTONIC, ns: when it began to wait before it became runnable; 0 when it had not waited, or that was not seen.
        pub parked: u64,
        pub goid: u64,
        /// Entry of the function it was started with.
        pub startpc: u64,
        /// [`UNKNOWN`], [`RUNNABLE`], [`RUNNING`], [`WAITING`].
        pub state: u32,
        /// A [`Source`], when runnable.
        pub source: u32,
        /// runtime.waitReason of its last wait.
        pub reason: u32,
        /// The thread that runs it, or made it runnable.
        pub tid: u32,
        /// When it became runnable: goroutines before it in that P's run queue, or [`UNREAD`].
        pub queue: u32,
        /// Idle Ps at that time, or [`UNREAD`].
        pub idle: u32,
        /// Off-CPU time of the thread `tid` until `since`. From here on a second cache line.
        pub off_cpu: OffCpu,
        /// The goroutine that woke it last, the one that woke that, and so on.
        pub wakers: [Waker; CHAIN],
        pub pad: [u64; 4],
    }

    /// A wait over the threshold.
    pub struct Wait {
        pub header: Header,
        /// CLOCK_MONOTONIC, ns: when it became runnable. It ran at `header.time`.
        pub since: u64,
        /// CLOCK_MONOTONIC, ns: when it began to wait before that; 0 when it had not waited, or that was not seen.
        pub parked: u64,
        pub goid: u64,
        /// goid of its creator; 0 when the version does not keep it.
        pub parent_goid: u64,
        /// Program counter of the `go` statement that created it.
        pub gopc: u64,
        /// Entry of the function it was started with.
        pub startpc: u64,
        /// Parts of the time from runnable to running, ns: its thread was on a run queue, or throttled. Only with `split`.
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
        /// 1 when the hooks counted during all of the time from runnable to running.
        pub split: u32,
        /// 1 when its wait before that was over the threshold, and not for an idle reason.
        pub waited: u32,
        /// GOMAXPROCS when it ran.
        pub max_procs: u32,
        pub pad: u32,
    }
}

impl table::Key for GoroutineKey {
    #[inline(always)]
    fn hash(self) -> u64 {
        table::mixed(self.g, self.target_id)
    }

    #[inline(always)]
    fn is_free(self) -> bool {
        self.target_id == 0
    }
}

layout!(GoroutineKey: 16, Waker: 24, Goroutine: 192, Wait: 24 + 8 * 8 + 72 + 32);
