//! Where the kernel programs find the Go runtime's facts in a process.

use agent_common::go::{
    self, ABSENT, G_IN_REGISTER,
    stw::{NONE, PREEMPTED_IN_RUNNEXT, START, TIMES},
};

use crate::inspect::{FieldLoc, GoGlobals, GoImage, GoOffsets, TlsProof};

/// Addresses and offsets for a process that maps the executable at `bias`.
pub fn of_go(image: &GoImage, offsets: &GoOffsets, globals: &GoGlobals, bias: u64) -> go::Layout {
    let need = |field: &FieldLoc| field.offset as u32;
    let maybe = |field: &Option<FieldLoc>| field.as_ref().map_or(ABSENT, |field| field.offset as u32);
    let (g, work, controller) = (&offsets.g, &offsets.work, &offsets.gc_controller);
    go::Layout {
        // 0 says unknown: the current goroutine is then not looked up.
        tls_g: image.tls_g.as_ref().map_or(0, |tls| match tls.proof {
            TlsProof::Register => G_IN_REGISTER,
            _ => tls.offset,
        }),
        work: globals.work.wrapping_add(bias),
        gc_controller: globals.gc_controller.wrapping_add(bias),
        memstats: globals.memstats.wrapping_add(bias),
        sched: globals.sched.wrapping_add(bias),
        gomaxprocs: globals.gomaxprocs.wrapping_add(bias),
        base: bias,
        g_goid: need(&g.goid),
        g_parent_goid: maybe(&g.parent_goid),
        g_gopc: need(&g.gopc),
        g_startpc: need(&g.startpc),
        g_waitreason: need(&g.waitreason),
        g_m: need(&g.m),
        g_schedlink: need(&g.schedlink),
        m_curg: need(&offsets.m.curg),
        p_runqhead: need(&offsets.p.runqhead),
        p_runqtail: need(&offsets.p.runqtail),
        sched_npidle: need(&offsets.sched.npidle),
        poll_rg: need(&offsets.poll_desc.rg),
        poll_wg: need(&offsets.poll_desc.wg),
        work_cycles: need(&work.cycles),
        work_t_sweep_term: need(&work.t_sweep_term),
        work_t_mark: need(&work.t_mark),
        work_t_mark_term: need(&work.t_mark_term),
        work_t_end: need(&work.t_end),
        work_heap0: need(&work.heap0),
        work_heap1: need(&work.heap1),
        work_heap2: need(&work.heap2),
        work_mode: need(&work.mode),
        work_user_forced: need(&work.user_forced),
        work_pause_ns: need(&work.pause_ns),
        work_stw_procs: need(&work.stwprocs),
        work_max_procs: need(&work.maxprocs),
        gc_last_heap_goal: maybe(&controller.last_heap_goal),
        gc_assist_time: maybe(&controller.assist_time),
        gc_dedicated_time: maybe(&controller.dedicated_mark_time),
        gc_fractional_time: maybe(&controller.fractional_mark_time),
        gc_idle_time: maybe(&controller.idle_mark_time),
        mem_numgc: need(&offsets.memstats.numgc),
        g_preempt: need(&g.preempt),
        g_sched_pc: need(&g.sched_pc),
        g_sched_bp: need(&g.sched_bp),
        sched_runq_tail: need(&offsets.sched.runq_tail),
        world_stop: match image.version.minor {
            ..22 => NONE,
            22 => START,
            23..26 => TIMES,
            _ => PREEMPTED_IN_RUNNEXT,
        },
        g_sched_sp: need(&g.sched_sp),
        p_runnext: need(&offsets.p.runnext),
        m_p: need(&offsets.m.p),
        gc_percent: need(&controller.gc_percent),
        gc_memory_limit: maybe(&controller.memory_limit),
        gc_percent_heap_goal: maybe(&controller.gc_percent_heap_goal),
        p_gc_assist_time: maybe(&offsets.p.gc_assist_time),
        // These two are set when their probes' sites are known.
        handoff_return: 0,
        g_runnable_time: ABSENT,
        sched_time_to_run: maybe(&offsets.sched.time_to_run),
        pad: 0,
    }
}
