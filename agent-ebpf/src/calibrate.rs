//! The empty program: what a hit of it costs is the trap.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};

#[uprobe]
pub fn calibrate(_ctx: ProbeContext) -> u32 {
    0
}
