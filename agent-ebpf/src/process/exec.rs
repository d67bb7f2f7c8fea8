//! A process executed another program; a thread ended.

use agent_common::{event::Kind, hits::HitKind, loss::Loss, process::exec::Exec, target::SharedMap};
use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    clock, held,
    hits::hit,
    maps::{EXECS, SYSCALLS, target},
    read, record,
    table::{Threads, Workers},
};

#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(_ctx: BtfTracePointContext) -> i32 {
    match EXECS.reserve::<Exec>(0) {
        Some(mut entry) => {
            entry.write(Exec {
                header: record::header(Kind::Exec, 0, clock::now()),
            });
            // The agent polls the ring many times a second.
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        }
        None => record::lost(Loss::ExecFull),
    }
    0
}

/// Called on the thread that ends, before its last switch (linux, kernel/exit.c, do_exit): removes its entries.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(_ctx: BtfTracePointContext) -> i32 {
    let (tgid, tid) = read::current();
    let Some(target) = target(tgid) else {
        return 0;
    };
    hit(target, HitKind::ThreadExit);
    held::free::<Workers>(target, tid);
    held::remove(&SYSCALLS, SharedMap::Syscalls, target, &tid);
    held::free::<Threads>(target, tid);
    0
}
