//! How much memory something takes at its most.

use std::{fs::File, io::Read as _};

/// Bytes of this process' memory at their most since `begin`, by the kernel's mark (proc_pid_clear_refs(5)).
pub fn peak(begin: impl FnOnce()) -> u64 {
    let kib = |key: &str| {
        let mut status = String::new();
        File::open("/proc/self/status")
            .and_then(|mut file| file.read_to_string(&mut status))
            .expect("status");
        let figure = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .expect("a figure");
        figure.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    std::fs::write("/proc/self/clear_refs", "5").expect("a reset");
    let before = kib("VmRSS:");
    begin();
    kib("VmHWM:").saturating_sub(before) << 10
}
