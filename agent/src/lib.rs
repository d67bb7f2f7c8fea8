//! whywait's agent. The modules are the data's way, in order; `pipeline` wires them.

#![deny(unsafe_code)]
// Printing may fail, and shows names: `surface::output` handles both.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod aside;
pub mod bpf;
pub mod capacity;
pub mod cgroup;
pub mod cli;
pub mod clock;
pub mod deadline;
pub mod exit;
pub mod faults;
pub mod heap;
pub mod kernel;
pub mod limits;
pub mod looks;
pub mod memory;
pub mod model;
pub mod overhead;
pub mod perf;
pub mod realtime;
pub mod signal;
pub mod telemetry;

pub mod aggregate;
pub mod attach;
pub mod budget;
pub mod collect;
pub mod discover;
pub mod enrich;
pub mod export;
pub mod findings;
pub mod inspect;
pub mod intake;
pub mod recording;
pub mod runtime;
pub mod signals;

pub mod account;
pub mod commands;
pub mod lifecycle;
pub mod pipeline;
pub mod surface;
pub mod target;
pub mod watch;
