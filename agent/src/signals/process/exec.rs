//! New processes, so that a service is watched from its first moment.

use crate::attach::kernel::{Alternative, Hook, Point};

/// sched_process_exec fires in the new program's context, once its memory is laid out (linux, fs/exec.c, exec_binprm).
pub const HOOK: Hook = Hook {
    signal: "process.exec",
    alternatives: &[Alternative {
        name: "tp_btf/sched_process_exec",
        programs: &[("process_exec", Point::TpBtf("sched_process_exec"))],
    }],
    windowed: false,
    asked: None,
};
