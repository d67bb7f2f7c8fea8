//! Go's runtime: where its data is in a process.

pub mod assist;
pub mod gc;
pub mod handoff;
pub mod latency;
pub mod sched;
pub mod stw;

use crate::{layout, shared};

/// A field that this version of the runtime does not have.
pub const ABSENT: u32 = u32::MAX;

/// In [`Layout::tls_g`]: the current g is in a register of its own (arm64: R28), not in thread-local storage.
pub const G_IN_REGISTER: i64 = i64::MAX;

shared! {
    /// Addresses (absolute in the process) and byte offsets; [`ABSENT`] where the version has no such field.
    pub struct Layout {
        /// Thread-local storage base + this = the address of the current g; or [`G_IN_REGISTER`]; 0 when it is not known.
        pub tls_g: i64,
        /// Address of runtime.work.
        pub work: u64,
        /// Address of runtime.gcController.
        pub gc_controller: u64,
        /// Address of runtime.memstats.
        pub memstats: u64,
        /// Address of runtime.sched.
        pub sched: u64,
        /// Address of runtime.gomaxprocs.
        pub gomaxprocs: u64,
        /// Run-time address of link-time address 0 in the executable: its functions are less than 4 GiB above, and a plugin's are not.
        pub base: u64,
        pub g_goid: u32,
        pub g_parent_goid: u32,
        pub g_gopc: u32,
        pub g_startpc: u32,
        pub g_waitreason: u32,
        pub g_m: u32,
        pub g_schedlink: u32,
        pub m_curg: u32,
        pub p_runqhead: u32,
        pub p_runqtail: u32,
        pub sched_npidle: u32,
        pub poll_rg: u32,
        pub poll_wg: u32,
        pub work_cycles: u32,
        pub work_t_sweep_term: u32,
        pub work_t_mark: u32,
        pub work_t_mark_term: u32,
        pub work_t_end: u32,
        pub work_heap0: u32,
        pub work_heap1: u32,
        pub work_heap2: u32,
        pub work_mode: u32,
        pub work_user_forced: u32,
        pub work_pause_ns: u32,
        pub work_stw_procs: u32,
        pub work_max_procs: u32,
        pub gc_last_heap_goal: u32,
        pub gc_assist_time: u32,
        pub gc_dedicated_time: u32,
        pub gc_fractional_time: u32,
        pub gc_idle_time: u32,
        pub mem_numgc: u32,
        pub g_preempt: u32,
        /// g.sched.pc: where it continues; g.sched.bp: the frame pointer there.
        pub g_sched_pc: u32,
        pub g_sched_bp: u32,
        pub sched_runq_tail: u32,
        /// What the version's worldStop holds: [`stw::NONE`], [`stw::START`] or [`stw::TIMES`].
        pub world_stop: u32,
        pub g_sched_sp: u32,
        pub p_runnext: u32,
        pub m_p: u32,
        pub gc_percent: u32,
        pub gc_memory_limit: u32,
        pub gc_percent_heap_goal: u32,
        pub p_gc_assist_time: u32,
        /// Where handoffp's return address is: an offset from the stack pointer, or [`handoff::IN_LINK_REGISTER`].
        pub handoff_return: u32,
        /// Where runtime.sched has the histogram of scheduling latency.
        pub sched_time_to_run: u32,
        /// Where a g has the time that scheduling latency is recorded of. Used where the probe of [`latency`] finds no arguments, before
        /// go1.20; [`ABSENT`] where it does.
        pub g_runnable_time: u32,
        pub pad: u32,
    }
}

impl Layout {
    /// The id of a start function, by which goroutines' time is split: the low half of its address. 0 for one outside the executable,
    /// such as a plugin's, which could have the id of another.
    #[inline(always)]
    pub fn origin(&self, startpc: u64) -> u32 {
        if startpc.wrapping_sub(self.base) >> 32 == 0 {
            startpc as u32
        } else {
            0
        }
    }
}

layout!(Layout: 248);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: u64, startpc: u64, expected: u32) {
        let layout = Layout {
            base,
            ..Layout::default()
        };
        assert_eq!(layout.origin(startpc), expected, "{startpc:#x} above {base:#x}");
    }

    #[test]
    fn a_function_far_from_the_executable_is_not_mistaken_for_one_in_it() {
        check(0, 0x48_1234, 0x48_1234);
        check(0, 0x7f12_0048_1234, 0);
        let pie = 0x5555_ffff_0000;
        check(pie, pie + 0x1234, 0xffff_1234);
        // Over the edge of a low half.
        check(pie, pie + 0x48_1234, 0x47_1234);
        check(pie, 0x7f12_0047_1234, 0);
        check(pie, 0x47_1234, 0);
        // One that was started with none, as that of a thread that C made.
        check(pie, 0, 0);
        check(0, 0, 0);
    }
}
