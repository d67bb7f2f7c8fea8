//! What whywait costs a target: hits, which the kernel side counts, times what one costs. A hit's cost is measured on this machine: a trap by `calibrate` and
//! `traps`, what it costs more after a pause by `cold`, and a program by the kernel's own statistics (`seen`). `cost` holds it all together.

pub mod calibrate;
pub mod cold;
pub mod cost;
mod counts;
pub mod seen;
pub mod traps;

pub use cost::{Costs, Meter};
pub use counts::HitCounts;
