//! System calls.

use super::{
    AttributeDef,
    Instrument::{Counter, ExponentialHistogram},
    MetricDef, SpanDef,
    goroutine::{GOROUTINE_FUNCTION, GOROUTINE_ID, GOROUTINE_SYSTEM},
    net::OVERFLOW,
    thread::THREAD_ID,
};

pub const SYSCALL_NAME: &str = "whywait.syscall.name";

def!(
    SYSCALL_DURATION,
    "whywait.thread.syscall.duration",
    "s",
    ExponentialHistogram,
    &[SYSCALL_NAME],
    "System calls of the service's threads, by call, idle ones such as futex and epoll_wait among them; only with `--with thread.syscall`.",
    "tp_btf: sys_enter, sys_exit"
);
def!(
    GOROUTINE_SYSCALL_TIME,
    "go.goroutine.syscall.time",
    "ns",
    Counter,
    &[GOROUTINE_FUNCTION, GOROUTINE_SYSTEM, OVERFLOW],
    "Time of goroutines in system calls, by the function they were started with. What the runtime asks for on a stack of its own is left out, and so is time in C code, which is no system call.",
    "tp_btf: sys_enter, sys_exit"
);

pub static METRICS: &[&MetricDef] = &[&SYSCALL_DURATION, &GOROUTINE_SYSCALL_TIME];

pub static SPANS: &[SpanDef] = &[SpanDef {
    name: "syscall {call}",
    description: "A system call took over --slow-wait, and is none that waits for anything to happen (poll, select, epoll, futex, sleep, accept, wait, signals, io_uring); only with `--with thread.syscall`.",
    source: "tp_btf: sys_enter, sys_exit",
    attributes: &[
        SYSCALL_NAME,
        THREAD_ID,
        GOROUTINE_ID,
        GOROUTINE_SYSTEM,
        GOROUTINE_FUNCTION,
    ],
}];

pub static ATTRIBUTES: &[AttributeDef] = &[AttributeDef {
    key: SYSCALL_NAME,
    kind: "string",
    description: "The system call's name, or its number when it is not known.",
}];
