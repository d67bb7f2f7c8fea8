//! The kernel side of whywait: probes that stamp, match and count. Values go into histograms kept here; only what is over
//! a threshold becomes an event. One signal a file, under the same path as in `agent-common` and `agent/src/signals`.
#![no_std]
#![no_main]
// The BPF target has no compare-and-swap on kernels before 5.12, so core's atomics have no fetch_add there; the instruction
// itself (an atomic add without a result) exists on all.
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the atomic add has no stable name on this target")]

mod actor;
mod arch;
mod calibrate;
mod clock;
mod go;
mod held;
mod hits;
mod log;
mod maps;
mod net;
mod process;
mod read;
mod record;
mod table;
mod thread;
mod tokio;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Helpers such as bpf_probe_read_user are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
