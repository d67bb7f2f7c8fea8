//! The end of a GC cycle: once a cycle, while `runtime.work` is stable.

use agent_common::{
    event::Kind,
    go::{ABSENT, gc::Cycle},
    hits::HitKind,
};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use super::assist;
use crate::{
    clock,
    hits::hit,
    maps::target,
    read::{self, Unreadable},
    record,
};

/// At runtime.prepareFreeWorkbufs, which gcMarkTermination calls once, after it has restarted the world.
#[uprobe]
pub fn go_gc_cycle(_ctx: ProbeContext) -> u32 {
    if let Err(at) = cycle() {
        record::unread(at);
    }
    0
}

#[inline(always)]
fn cycle() -> Result<(), Unreadable> {
    let (tgid, _) = read::current();
    let Some(target) = target(tgid) else { return Ok(()) };
    // One hit a cycle: it is attached outside windows too.
    hit(target, HitKind::GoGcCycle);
    let go = &target.go;
    let work = |offset: u32| read::user::<i64>(go.work + u64::from(offset));
    let controller = |offset: u32| read::user::<i64>(go.gc_controller + u64::from(offset));
    let optional = |offset: u32| if offset == ABSENT { Ok(0) } else { controller(offset) };
    let number = u64::from(read::user::<u32>(go.memstats + u64::from(go.mem_numgc))?);
    let begin = work(go.work_t_sweep_term)?;
    assist::over(target, number, begin as u64);
    record::event(Cycle {
        header: record::header(Kind::GcCycle, target.id, clock::now()),
        number,
        sweep_term: begin,
        mark: work(go.work_t_mark)?,
        mark_term: work(go.work_t_mark_term)?,
        end: work(go.work_t_end)?,
        pause: work(go.work_pause_ns)?,
        heap_before: work(go.work_heap0)? as u64,
        heap_after: work(go.work_heap1)? as u64,
        heap_live: work(go.work_heap2)? as u64,
        heap_goal: optional(go.gc_last_heap_goal)? as u64,
        assist: optional(go.gc_assist_time)?,
        dedicated: optional(go.gc_dedicated_time)?,
        fractional: optional(go.gc_fractional_time)?,
        idle: optional(go.gc_idle_time)?,
        gogc: i64::from(read::user::<i32>(go.gc_controller + u64::from(go.gc_percent))?),
        memory_limit: if go.gc_memory_limit == ABSENT {
            i64::MAX
        } else {
            controller(go.gc_memory_limit)?
        },
        max_procs: read::user::<i32>(go.work + u64::from(go.work_max_procs))? as u32,
        forced: u32::from(read::user::<u8>(go.work + u64::from(go.work_user_forced))? != 0),
    });
    Ok(())
}
