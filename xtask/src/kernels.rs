//! The agent's selftest on other kernels, older and newer: Debian's own, booted in VMs on static targets.
//!
//! Emulated (TCG, one thread): stock kernels do not boot on every nested KVM, and nothing here is timed.

mod boot;
mod fetch;
mod initrd;
mod matrix;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

pub(crate) use fetch::missing_packages;
pub(crate) use matrix::matrix;

use crate::{
    arch::Arch,
    demo_build::{self, UNIT_TESTS},
    progress,
    setup::Tools,
    sh,
};
use fetch::Kernel;

/// What is booted: a kernel series, the Debian suite that carries it, its CPUs, more words of its command line, and tests.
struct Machine {
    series: &'static str,
    suite: &'static str,
    cpus: u32,
    words: &'static str,
    tests: &'static [Test],
}

/// A test program of agent, and which tests of it; `+` parts names.
type Test = (&'static str, &'static str);

/// Tests that ask for what the build's machine may not have: cgroups of version 2.
const QUOTAS: &[Test] = &[("causes", "quota"), ("threads", "throttled"), KERNEL_LOG];
/// The same, and of what CPUs share, which the build's machine may have too few of to tell.
const MANY_CPUS: &[Test] = &[
    ("causes", "quota"),
    ("threads", "throttled"),
    KERNEL_LOG,
    ("preemption", "the_kernel_is_soon_done"),
    (UNIT_TESTS, "an_allowance_is_one_for_all_cpus"),
];
/// Tests of programs that are preempted, which the build's kernel may never do.
const PREEMPTION: &[Test] = &[("preemption", ""), KERNEL_LOG];
/// The programs are others with messages.
const KERNEL_LOG: Test = ("kernel_log", "want_of_space");

/// The oldest kernel, one that is widespread, and the newest, as preemptive as it can be.
const MACHINES: &[Machine] = &[
    Machine {
        series: "5.10",
        suite: "bullseye-security",
        cpus: 2,
        words: "",
        tests: QUOTAS,
    },
    Machine {
        series: "6.1",
        suite: "bookworm-security",
        cpus: 8,
        words: "",
        tests: MANY_CPUS,
    },
    Machine {
        series: fetch::NEWEST,
        suite: "trixie-backports",
        cpus: 2,
        words: "preempt=full WHYWAIT_PREEMPTION_SECONDS=30",
        tests: PREEMPTION,
    },
];

/// How long their test takes, s. What is no parameter of the kernel's own becomes the first process' environment.
const SECONDS: &str = "WHYWAIT_PREEMPTION_SECONDS";

/// Kernels on which two runs of a program on one CPU share a stack, and how they preempt.
const PREEMPTIVE: &[(&str, &str)] = &[
    ("6.18", "preempt=full"),
    (fetch::NEWEST, "preempt=lazy"),
    (fetch::NEWEST, "preempt=full"),
    ("6.18", "preempt=lazy"),
];

/// On arm64: the oldest with all that Debian's cloud kernels have, and the newest, as preemptive as it can be. No times are held.
const ARM64_MACHINES: &[Machine] = &[
    Machine {
        series: ARM64_SERIES[0].0,
        suite: ARM64_SERIES[0].1,
        cpus: 2,
        words: "",
        tests: &[
            ("go_oracle", ""),
            ("e2e_go", "many_switches_are_those_of_the_execution_trace"),
        ],
    },
    Machine {
        series: fetch::NEWEST,
        suite: "trixie-backports",
        cpus: 2,
        words: "preempt=full WHYWAIT_PREEMPTION_SECONDS=30",
        tests: PREEMPTION,
    },
];
const ARM64_SERIES: &[(&str, &str)] = &[("6.1", "bookworm-security")];

/// Boots every machine, all at once; fails when one of them does.
pub(crate) fn test(tools: &Tools) -> Result<()> {
    let programs = vec![PathBuf::from("/bin/busybox")];
    let init = sh::root().join("xtask/assets/vm/init");
    test_on(tools, Arch::Amd64, MACHINES, &init, programs)
}

/// The same on arm64: tests that ask a Go program's own account, and of preemption; cross-built, emulated.
pub(crate) fn test_arm64(tools: &Tools) -> Result<()> {
    let (init, reader) = demo_build::for_arm64_vm(tools)?;
    test_on(tools, Arch::Arm64, ARM64_MACHINES, &init, vec![reader])
}

fn test_on(tools: &Tools, arch: Arch, machines: &[Machine], init: &Path, programs: Vec<PathBuf>) -> Result<()> {
    let series: Vec<(&str, &str)> = machines.iter().map(|machine| (machine.series, machine.suite)).collect();
    let kernels = fetch::all(&series, arch)?;
    let tests: Vec<Test> = machines.iter().flat_map(|machine| machine.tests).copied().collect();
    let image = image(tools, arch, init, programs, &tests)?;
    let boots = kernels.into_iter().zip(machines);
    let boots = boots.map(|(kernel, machine)| Boot {
        name: kernel.name(),
        kernel,
        cpus: machine.cpus,
        words: format!("{} {}", machine.words, words(machine.tests)),
        longer: Duration::ZERO,
    });
    boot_all(boots.collect(), &image)
}

/// For so long, programs that preempt themselves: on each kernel that lets them share a stack, with each kind of preemption, all at
/// once.
pub(crate) fn test_preemption(tools: &Tools, time: Duration) -> Result<()> {
    let series = [("6.18", "trixie-backports"), (fetch::NEWEST, "trixie-backports")];
    fetch::all(&series, Arch::Amd64)?;
    let init = sh::root().join("xtask/assets/vm/init");
    let image = image(
        tools,
        Arch::Amd64,
        &init,
        vec![PathBuf::from("/bin/busybox")],
        PREEMPTION,
    )?;
    let boots = PREEMPTIVE.iter().map(|(series, how)| {
        let kernel = Kernel::of(series, Arch::Amd64);
        Boot {
            name: format!("{}-{}", kernel.name(), how.replace('=', "-")),
            kernel,
            cpus: 2,
            words: format!("{how} {SECONDS}={} {}", time.as_secs(), words(PREEMPTION)),
            longer: time,
        }
    });
    boot_all(boots.collect(), &image)
}

/// What the machines run: `init`, the agent, the demo, other `programs`, and test programs.
fn image(tools: &Tools, arch: Arch, init: &Path, programs: Vec<PathBuf>, tests: &[Test]) -> Result<PathBuf> {
    let demo = demo_build::for_vms(tools, arch)?;
    let tests = demo_build::tests_for_vms(arch, &names(tests))?;
    let image = sh::target().join(format!("kernels/initrd-{}.cpio.gz", arch.name()));
    initrd::pack(init, &[demo, tests, programs].concat(), &[], &image)?;
    Ok(image)
}

/// Of the programs, each once.
fn names(tests: &[Test]) -> Vec<&'static str> {
    let names: BTreeSet<_> = tests.iter().map(|(name, _)| *name).collect();
    names.into_iter().collect()
}

/// Tests go onto the kernels' command line.
fn words(tests: &[Test]) -> String {
    let words: Vec<String> = tests.iter().map(|(name, only)| format!("test={name}:{only}")).collect();
    words.join(" ")
}

/// One machine.
struct Boot {
    name: String,
    kernel: Kernel,
    cpus: u32,
    /// More of the kernel's command line.
    words: String,
    /// How much longer than others it may take.
    longer: Duration,
}

fn boot_all(boots: Vec<Boot>, image: &Path) -> Result<()> {
    progress::note(&format!("booting {} kernels in VMs", boots.len()));
    let running: Vec<_> = boots
        .into_iter()
        .map(|boot| {
            let (name, image) = (boot.name.clone(), image.to_path_buf());
            let verdict = move || {
                let log = boot::log(&boot.name);
                boot::verdict(&boot.kernel, boot.cpus, &image, &boot.words, &log, boot.longer)
            };
            (name, thread::spawn(verdict))
        })
        .collect();
    let mut failed = Vec::new();
    for (name, thread) in running {
        let verdict = thread.join().ok().context("the thread that ran a VM panicked")?;
        match verdict {
            Ok(lines) => lines
                .iter()
                .for_each(|line| progress::note(&format!("kernel {name}: {line}"))),
            Err(why) => {
                eprintln!("kernel {name}: {why:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("kernels: {} failed", failed.join(", "));
    }
    Ok(())
}
