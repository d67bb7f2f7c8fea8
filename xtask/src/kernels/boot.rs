//! Boots one VM and reads its verdict off the serial line; qemu's own exit code says nothing (0 after a panic, too).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::fetch::Kernel;
use crate::{arch::Arch, progress, sh};

const MEMORY_MB: &str = "1024";
/// How many of the last serial lines a failure shows.
const SHOWN: usize = 60;

/// What the tests skipped and how many there were, and the verdict's line; or an error that shows the end of the serial log.
/// It may take `longer` than others.
pub(super) fn verdict(
    kernel: &Kernel,
    cpus: u32,
    initrd: &Path,
    words: &str,
    log: &Path,
    longer: Duration,
) -> Result<Vec<String>> {
    let limit = limit(kernel.arch) + longer;
    let mut serial = boot(kernel, cpus, initrd, words, log, limit)?;
    if let Verdict::EarlyOops(line) = judge(&serial) {
        progress::note(&format!("kernel {}: {line}; booting once more", kernel.name()));
        serial = boot(kernel, cpus, initrd, words, log, limit)?;
    }
    match judge(&serial) {
        Verdict::Passed(line) => Ok(said(&serial).into_iter().chain([line]).collect()),
        Verdict::Failed(line) | Verdict::EarlyOops(line) => bail!("{line}\n{}", tail(&serial)),
        Verdict::Silent => bail!(
            "no verdict within {} s; {}\n{}",
            limit.as_secs(),
            log.display(),
            tail(&serial)
        ),
    }
}

/// Where a VM's serial line is kept.
pub(super) fn log(name: &str) -> PathBuf {
    sh::target().join(format!("kernels/serial-{name}.log"))
}

fn limit(arch: Arch) -> Duration {
    Duration::from_secs(match arch {
        Arch::Amd64 => 600,
        Arch::Arm64 => 1200,
    })
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Passed(String),
    Failed(String),
    /// The emulator's rare fault before any test ran: worth a second boot.
    EarlyOops(String),
    Silent,
}

/// What of the tests' own lines is worth telling.
fn said(serial: &str) -> Vec<String> {
    let told = |line: &str| {
        let line = line.trim();
        let skipped = line.find("SKIPPED: ").map(|at| format!("*** {} ***", &line[at..]));
        skipped.or_else(|| {
            let is_told = line.starts_with("VM test ") || line.starts_with("test result: ");
            is_told.then(|| line.to_owned())
        })
    };
    serial.lines().filter_map(told).collect()
}

/// Reads the lines that assets/vm/init prints, and those of test programs.
fn judge(serial: &str) -> Verdict {
    // Of a test that has another name by now.
    if let Some(line) = serial
        .lines()
        .find(|line| line.starts_with("test result: ok. 0 passed"))
    {
        return Verdict::Failed(format!("no test was run: {}", line.trim()));
    }
    let (early, tested) = serial.split_once("VM selftest begins").unwrap_or((serial, ""));
    let oops = |line: &&str| line.contains("Oops") || line.contains("Kernel panic");
    // Whatever the tests say: a kernel may go on after it has killed the thread that was at fault.
    if let Some(line) = tested.lines().find(oops) {
        return Verdict::Failed(line.trim().to_owned());
    }
    if let Some(line) = serial
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("VM verdict "))
    {
        let passed = line.starts_with("VM verdict rc=0 ");
        return if passed {
            Verdict::Passed(line.to_owned())
        } else {
            Verdict::Failed(line.to_owned())
        };
    }
    match early.lines().find(oops) {
        Some(line) => Verdict::EarlyOops(line.trim().to_owned()),
        None => Verdict::Silent,
    }
}

fn boot(kernel: &Kernel, cpus: u32, initrd: &Path, words: &str, log: &Path, limit: Duration) -> Result<String> {
    sh::create(log)?;
    // Pointer authentication by qemu's own algorithm: the architected one is slow to emulate.
    let (program, machine, processor, console) = match kernel.arch {
        Arch::Amd64 => ("qemu-system-x86_64", "q35", "max", "ttyS0"),
        Arch::Arm64 => ("qemu-system-aarch64", "virt", "max,pauth-impdef=on", "ttyAMA0"),
    };
    let mut qemu = Command::new(program);
    qemu.args(["-machine", machine, "-accel", "tcg,thread=single", "-cpu", processor])
        .args(["-smp", &cpus.to_string(), "-m", MEMORY_MB])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .arg("-append")
        .arg(format!("console={console} panic=-1 quiet {words}"))
        .stdin(Stdio::null());
    let mut machine = Machine(qemu.spawn().with_context(|| format!("cannot start {program}"))?);
    let began = Instant::now();
    while machine.0.try_wait()?.is_none() && began.elapsed() < limit {
        thread::sleep(Duration::from_millis(200));
    }
    drop(machine);
    let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A VM, which does not outlive this value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

fn tail(serial: &str) -> String {
    let lines: Vec<&str> = serial.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(serial: &str, expected: Verdict) {
        assert_eq!(judge(serial), expected);
    }

    #[test]
    fn the_serial_line_decides() {
        check(
            "boot\nVM verdict rc=0 after 9 s\r\n",
            Verdict::Passed("VM verdict rc=0 after 9 s".to_owned()),
        );
        check("VM verdict rc=02 x", Verdict::Failed("VM verdict rc=02 x".to_owned()));
        check("VM selftest begins\n", Verdict::Silent);
        let none = "test result: ok. 0 passed; 0 failed";
        check(
            &format!("{none}\nVM verdict rc=0 after 9 s\n"),
            Verdict::Failed(format!("no test was run: {none}")),
        );
        check("[1] Oops: 0\n", Verdict::EarlyOops("[1] Oops: 0".to_owned()));
        check(
            "VM selftest begins\n[9] Kernel panic\n",
            Verdict::Failed("[9] Kernel panic".to_owned()),
        );
        check(
            "VM selftest begins\n[9] Oops: Oops: 0002 [#1]\nVM verdict rc=0 after 9 s\n",
            Verdict::Failed("[9] Oops: Oops: 0002 [#1]".to_owned()),
        );
    }

    #[test]
    fn what_is_skipped_is_told() {
        let serial = "VM test a:b at 9 s\r\nrunning 1 test\r\ntest b ... SKIPPED: no cgroups\r\nok\r\ntest result: ok. 1 passed;\r\n";
        let expected = [
            "VM test a:b at 9 s",
            "*** SKIPPED: no cgroups ***",
            "test result: ok. 1 passed;",
        ];
        assert_eq!(said(serial), expected);
    }
}
