//! What a hit costs on this very machine: a function of our own is probed with an empty program, called, and timed.

use std::time::Instant;

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeLinkId, UProbeScope},
    },
};

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
pub fn trap(ebpf: &mut Ebpf) -> anyhow::Result<f64> {
    let bare = time();
    let id = attach(ebpf, EMPTY)?;
    let probed = time();
    program(ebpf, EMPTY)?.detach(id)?;
    Ok((probed - bare).max(0.0))
}

/// What the kernel's statistics say that the empty program takes, ns: they read the clock twice a run. They must be kept
/// while this is called.
pub fn bias(ebpf: &mut Ebpf) -> anyhow::Result<f64> {
    let before = program(ebpf, EMPTY)?.info()?;
    let id = attach(ebpf, EMPTY)?;
    time();
    let program = program(ebpf, EMPTY)?;
    program.detach(id)?;
    let after = program.info()?;
    let runs = after.run_count().saturating_sub(before.run_count());
    let time = after.run_time().saturating_sub(before.run_time());
    Ok(time.as_nanos() as f64 / runs.max(1) as f64)
}

/// Calls the function that [`attach`] probes.
pub fn hit() {
    whywait_calibrate();
}

/// Loads a program and attaches it to a function of our own.
pub fn attach(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<UProbeLinkId> {
    let address = whywait_calibrate as *const () as u64;
    let maps = procfs::process::Process::myself()?.maps()?;
    let map = maps
        .iter()
        .find(|map| (map.address.0..map.address.1).contains(&address))
        .context("our own code is in no mapping")?;
    let offset = address - map.address.0 + map.offset;
    let program = program(ebpf, name)?;
    if program.fd().is_err() {
        program.load()?;
    }
    Ok(program.attach(
        UProbeAttachLocation::AbsoluteOffset(offset),
        "/proc/self/exe",
        UProbeScope::CallingProcess,
    )?)
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

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut UProbe> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?;
    Ok(program.try_into()?)
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
