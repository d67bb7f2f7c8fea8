//! A goroutine's wait from runnable to running.

use crate::{event::Header, layout, shared};

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

shared! {
    /// Key of a goroutine that is runnable.
    pub struct RunnableKey {
        /// Address of its g.
        pub g: u64,
        /// The target's slot.
        pub slot: u64,
    }

    /// Since when, and why.
    pub struct Runnable {
        /// CLOCK_MONOTONIC, ns.
        pub since: u64,
        /// A [`Source`].
        pub source: u32,
        /// Thread that made it runnable.
        pub tid: u32,
    }

    /// A wait over the threshold.
    pub struct Wait {
        pub header: Header,
        /// CLOCK_MONOTONIC, ns: when it became runnable. It ran at `header.time`.
        pub since: u64,
        pub goid: u64,
        /// goid of its creator; 0 when the version does not keep it.
        pub parent_goid: u64,
        /// Program counter of the `go` statement that created it.
        pub gopc: u64,
        /// Entry of the function it was started with.
        pub startpc: u64,
        /// A [`Source`].
        pub source: u32,
        /// runtime.waitReason before it became runnable; 0 when it had never waited.
        pub wait_reason: u32,
    }
}

layout!(RunnableKey: 16, Runnable: 16, Wait: 72);
