//! What a hit costs on this very machine: a function of our own is probed with an empty program, called, and timed.

use std::{num::NonZeroU32, path::Path, time::Instant};

use anyhow::Context as _;

use crate::attach::uprobe::{Links, Object};

/// The program that does nothing.
const EMPTY: &str = "calibrate";
/// Calls timed at once, and how often.
const CALLS: u32 = 100;
const BATCHES: usize = 31;

/// What is probed.
mod probed {
    #![expect(
        unsafe_code,
        reason = "a function in assembly, so that its first instruction is one that the kernel emulates, as at the places \
                  the plan chooses"
    )]

    core::arch::global_asm!(
        ".pushsection .text",
        ".p2align 4",
        ".globl whywait_calibrate",
        "whywait_calibrate:",
        "push rbp",
        "pop rbp",
        "ret",
        ".popsection",
    );

    // SAFETY: it saves and restores one register and touches nothing else.
    unsafe extern "C" {
        pub safe fn whywait_calibrate();
    }
}
use probed::whywait_calibrate;

/// Cost of one trap, ns: the median over batches, less what a call costs without a probe.
pub fn trap(object: &mut Object) -> anyhow::Result<f64> {
    let bare = time();
    let link = attach(object, EMPTY)?;
    let probed = time();
    drop(link);
    Ok((probed - bare).max(0.0))
}

/// What the kernel's statistics say that the empty program takes, ns: they read the clock twice a run. They must be kept
/// while this is called.
pub fn bias(object: &mut Object) -> anyhow::Result<f64> {
    let runs = |object: &Object| object.runs(EMPTY).context("the kernel tells nothing of a program");
    let before = runs(object)?;
    let link = attach(object, EMPTY)?;
    time();
    drop(link);
    let after = runs(object)?;
    let count = after.1.saturating_sub(before.1).max(1);
    Ok(after.0.saturating_sub(before.0) as f64 / count as f64)
}

/// Calls the function that [`attach`] probes.
pub fn hit() {
    whywait_calibrate();
}

/// Attaches a program to a function of our own.
pub fn attach(object: &mut Object, name: &'static str) -> anyhow::Result<Links> {
    let address = whywait_calibrate as *const () as u64;
    let maps = procfs::process::Process::myself()?.maps()?;
    let map = maps
        .iter()
        .find(|map| (map.address.0..map.address.1).contains(&address))
        .context("our own code is in no mapping")?;
    let offset = address - map.address.0 + map.offset;
    let pid = NonZeroU32::new(std::process::id()).context("we are no process")?;
    let link = object.attach(name, Path::new("/proc/self/exe"), offset, pid);
    link.map_err(anyhow::Error::msg)
}

/// What of the machine changes what a hit costs while the agent runs: cores that are online, and the policy of their frequency.
/// What this machine does not tell is not in it.
pub fn machine() -> String {
    const CPUS: &str = "/sys/devices/system/cpu";
    let mut files = vec![format!("{CPUS}/online"), format!("{CPUS}/smt/active")];
    for policy in glob::glob(&format!("{CPUS}/cpufreq/policy*"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let of_policy = ["scaling_governor", "scaling_max_freq", "energy_performance_preference"];
        files.extend(of_policy.map(|name| policy.join(name).display().to_string()));
    }
    let texts = files.into_iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts.collect()
}

/// A call, ns.
fn time() -> f64 {
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..CALLS {
                whywait_calibrate();
            }
            begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches[BATCHES / 2]
}
