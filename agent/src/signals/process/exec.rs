//! New programs, so that a service is watched from its first moments; and threads that end, whatever is kept of them with them.

use crate::signal::{Alternative, Hook, Point};

/// sched_process_exec fires in the new program's context, once its memory is laid out (linux, fs/exec.c, exec_binprm).
pub static HOOK: Hook = Hook {
    signal: "process.exec",
    alternatives: &[Alternative {
        name: "tp_btf/sched_process_exec,sched_process_exit",
        programs: &[
            ("process_exec", Point::TpBtf("sched_process_exec")),
            ("process_exit", Point::TpBtf("sched_process_exit")),
        ],
        without_ipv6: None,
    }],
    windowed: false,
    asked: None,
};
