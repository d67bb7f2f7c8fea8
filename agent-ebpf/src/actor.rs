//! What runs on a thread: a goroutine, a task, or neither.

use agent_common::{
    event::{ACTOR_GOROUTINE, ACTOR_NONE, ACTOR_TASK, Actor},
    target::{IS_GO, IS_TOKIO, PROBES_OPEN, Target},
    tokio::poll::UNENDED,
};

use crate::{
    arch, read,
    table::{self, Workers},
};

/// What runs on the current thread of `target`.
#[inline(always)]
pub fn current(target: &Target, tid: u32) -> Actor {
    if target.flags & IS_GO != 0
        && let Some(id) = goroutine(target)
    {
        return Actor {
            id,
            kind: ACTOR_GOROUTINE,
            future: 0,
        };
    }
    // Outside a window it is not known which task a thread polls.
    if target.flags & (IS_TOKIO | PROBES_OPEN) == IS_TOKIO | PROBES_OPEN
        // SAFETY: an entry of this thread's own, written by this thread only.
        && let Some(thread) = table::get::<Workers>(tid).map(|thread| unsafe { &*thread })
        && thread.target_id == target.id
        && thread.task != 0
        // Whether a poll whose end is not seen is still in progress is not known.
        && thread.future & UNENDED == 0
        && thread.since >= target.probes_since
    {
        return Actor {
            id: task_id(target, thread.task).unwrap_or(0),
            kind: ACTOR_TASK,
            future: thread.future,
        };
    }
    Actor {
        id: 0,
        kind: ACTOR_NONE,
        future: 0,
    }
}

/// goid of the goroutine on the current thread: g as the thread has it; on g0, the goroutine that m runs.
#[inline(always)]
fn goroutine(target: &Target) -> Option<u64> {
    if target.go.tls_g == 0 {
        return None;
    }
    let g = arch::thread_g(target)?;
    let goid: u64 = read::user(g + u64::from(target.go.g_goid)).ok()?;
    if goid != 0 {
        return Some(goid);
    }
    let m: u64 = read::user(g + u64::from(target.go.g_m)).ok()?;
    let current: u64 = read::user(m + u64::from(target.go.m_curg)).ok()?;
    read::user(current + u64::from(target.go.g_goid)).ok()
}

/// tokio's task id: its offset from the header is in the header's vtable (tokio, runtime/task/core.rs, Header::get_id).
#[inline(always)]
pub fn task_id(target: &Target, task: u64) -> Option<u64> {
    let vtable: u64 = read::user(task + u64::from(target.tokio_vtable)).ok()?;
    let offset: u64 = read::user(vtable + u64::from(target.tokio_id_offset)).ok()?;
    read::user(task.wrapping_add(offset)).ok()
}
