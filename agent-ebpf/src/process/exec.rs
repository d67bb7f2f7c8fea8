//! A process became another program.

use agent_common::{event::Kind, process::exec::Exec};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{read, record};

#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(_ctx: BtfTracePointContext) -> i32 {
    record::event(Exec {
        header: record::header(Kind::Exec, 0, read::now()),
    });
    0
}
