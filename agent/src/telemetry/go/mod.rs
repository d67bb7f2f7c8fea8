//! Go: what several of its signals share.

pub mod assist;
pub mod gc;
pub mod goroutines;
pub mod handoff;
pub mod latency;
pub mod runtime;
pub mod sched;
pub mod stw;
pub mod wait;

use super::AttributeDef;

pub const GOROUTINE_ID: &str = "go.goroutine.id";
pub const GOROUTINE_FUNCTION: &str = "go.goroutine.function";
pub const GOROUTINE_SYSTEM: &str = "go.goroutine.system";
pub const GOROUTINE_CREATOR_FUNCTION: &str = "go.goroutine.creator.function";
pub const GOROUTINE_CREATOR_FILE: &str = "go.goroutine.creator.file";
pub const GOROUTINE_CREATOR_LINE: &str = "go.goroutine.creator.line";
pub const GOROUTINE_WAIT_REASON: &str = "go.goroutine.wait_reason";
pub const GOROUTINE_STATE: &str = "go.goroutine.state";
pub const GC_MAX_PROCS: &str = "go.processor.limit";

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: GOROUTINE_ID,
        kind: "int",
        description: "goid.",
    },
    AttributeDef {
        key: GOROUTINE_FUNCTION,
        kind: "string",
        description: "Start function of the goroutine, named as in the runtime's execution trace; `unknown` if it is not in the executable: on a thread that C created, and in a plugin.",
    },
    AttributeDef {
        key: GOROUTINE_SYSTEM,
        kind: "bool",
        description: "Whether it is one of the runtime's own goroutines, such as a GC worker.",
    },
    AttributeDef {
        key: GOROUTINE_CREATOR_FUNCTION,
        kind: "string",
        description: "The function with the go statement.",
    },
    AttributeDef {
        key: GOROUTINE_CREATOR_FILE,
        kind: "string",
        description: "File of the go statement.",
    },
    AttributeDef {
        key: GOROUTINE_CREATOR_LINE,
        kind: "int",
        description: "Line of the go statement.",
    },
    AttributeDef {
        key: GOROUTINE_WAIT_REASON,
        kind: "string",
        description: "Reason of the wait before it became runnable, or of the present one, as in the runtime; `none` if it never waited.",
    },
    AttributeDef {
        key: GOROUTINE_STATE,
        kind: "string",
        description: "For time: `running` (including system calls and calls into C), `runnable`, or `waiting`. For live goroutines and wall time: these (running without system calls), `syscall`, `cgo` (in a call into C), `preempted` (for a stack scan), or `leaked` (the GC found that nothing can wake it). In profiles, a goroutine that runs is `on CPU` or `running, off CPU`, if code on CPU was sampled.",
    },
    AttributeDef {
        key: GC_MAX_PROCS,
        kind: "int",
        description: "GOMAXPROCS during the cycle, or when the goroutine ran.",
    },
];
