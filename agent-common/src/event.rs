//! The header that every ring-buffer event begins with.

use crate::{layout, shared};

shared! {
    /// First bytes of every event.
    pub struct Header {
        /// CLOCK_MONOTONIC, ns: when the event was written.
        pub time: u64,
        /// Which event follows: a [`Kind`].
        pub kind: u32,
        /// The target's id ([`crate::target::Target::id`]); 0 for events of no target.
        pub target_id: u32,
        /// Kernel pid of the process (the user's pid).
        pub tgid: u32,
        /// Kernel tid of the thread that hit the probe.
        pub tid: u32,
    }

    /// Who was running on the thread: a goroutine or a task.
    pub struct Actor {
        /// goid, or tokio's task id; 0 when unknown.
        pub id: u64,
        /// [`ACTOR_NONE`], [`ACTOR_GOROUTINE`] or [`ACTOR_TASK`].
        pub kind: u32,
        /// For a task: the future's type id ([`crate::tokio::poll`]); else 0.
        pub future: u32,
    }
}

layout!(Header: 24, Actor: 16);

pub const ACTOR_NONE: u32 = 0;
pub const ACTOR_GOROUTINE: u32 = 1;
pub const ACTOR_TASK: u32 = 2;

/// Event kinds, as [`Header::kind`] holds them.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`crate::process::exec::Exec`]
    Exec = 1,
    /// [`crate::go::gc::Cycle`]
    GcCycle = 2,
    /// [`crate::go::sched::Wait`]
    GoWait = 3,
    /// [`crate::tokio::poll::Poll`]
    TokioPoll = 4,
    /// [`crate::net::connect::Connect`]
    Connect = 5,
    /// [`crate::net::request::Request`]
    Request = 6,
    /// [`crate::go::stw::Stop`]
    GoStop = 7,
    /// [`crate::go::assist::Assists`]
    GoAssists = 8,
    /// [`crate::thread::syscall::Syscall`]
    Syscall = 9,
    /// [`crate::go::latency::SlowStart`]
    GoSlowStart = 10,
}
