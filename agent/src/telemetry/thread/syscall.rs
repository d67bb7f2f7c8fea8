//! System calls.

use crate::telemetry::{
    AttributeDef, Defs,
    Instrument::{Counter, ExponentialHistogram},
    MetricDef, OVERFLOW, SpanDef,
    go::{GOROUTINE_FUNCTION, GOROUTINE_ID, GOROUTINE_SYSTEM},
    thread::THREAD_ID,
};

pub const SYSCALL_NAME: &str = "whywait.syscall.name";

def!(
    SYSCALL_DURATION,
    "whywait.thread.syscall.duration",
    "s",
    ExponentialHistogram,
    &[SYSCALL_NAME],
    "Duration of system calls of the service's threads, by call, including idle ones such as futex and epoll_wait; only with `--with thread.syscall`.",
    "tp_btf: sys_enter, sys_exit"
);
def!(
    GOROUTINE_SYSCALL_TIME,
    "go.goroutine.syscall.time",
    "ns",
    Counter,
    &[GOROUTINE_FUNCTION, GOROUTINE_SYSTEM, OVERFLOW],
    "Time of goroutines in system calls, by start function. Without system calls that the runtime makes on its own stack, and without time in C code.",
    "tp_btf: sys_enter, sys_exit"
);

pub static DEFS: Defs = Defs {
    metrics: &[&SYSCALL_DURATION, &GOROUTINE_SYSCALL_TIME],
    spans: &[SpanDef {
        name: "syscall {call}",
        description: "A system call took longer than --slow-wait, and is not one that waits for an event (poll, select, epoll, futex, sleep, accept, wait, signals, io_uring); only with `--with thread.syscall`.",
        source: "tp_btf: sys_enter, sys_exit",
        attributes: &[
            SYSCALL_NAME,
            THREAD_ID,
            GOROUTINE_ID,
            GOROUTINE_SYSTEM,
            GOROUTINE_FUNCTION,
        ],
    }],
    attributes: &[AttributeDef {
        key: SYSCALL_NAME,
        kind: "string",
        description: "The system call's name, or its number if the name is not known.",
    }],
};
