//! Threads: what several signals share.

pub mod run_queue;
pub mod syscall;
pub mod totals;

use super::AttributeDef;

pub const THREAD_ID: &str = "thread.id";
pub const THREAD_NAME: &str = "thread.name";

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: THREAD_ID,
        kind: "int",
        description: "Kernel tid.",
    },
    AttributeDef {
        key: THREAD_NAME,
        kind: "string",
        description: "The kernel's name of the thread.",
    },
];
