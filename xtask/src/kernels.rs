//! The agent's selftest on older kernels: Debian's own, booted in VMs on static targets.
//!
//! Emulated (TCG, one thread): stock kernels do not boot on every nested KVM, and nothing here is timed.

mod boot;
mod fetch;
mod initrd;

use std::thread;

use anyhow::{Context as _, Result, bail};

pub(crate) use fetch::missing_packages;

use crate::{demo_build, progress, setup::Tools, sh};

/// Kernel series and the Debian suite that carries it.
const SERIES: &[(&str, &str)] = &[("5.10", "bullseye-security"), ("6.1", "bookworm-security")];

/// Boots every series, all at once; fails when one of them does.
pub(crate) fn test(tools: &Tools) -> Result<()> {
    let kernels = fetch::all(SERIES)?;
    let programs = demo_build::for_vms(tools)?;
    let image = sh::target().join("kernels/initrd.cpio.gz");
    initrd::pack(&programs, &image)?;

    progress::note(&format!("booting {} kernels in VMs", kernels.len()));
    let running: Vec<_> = kernels
        .into_iter()
        .map(|kernel| {
            let image = image.clone();
            (
                kernel.series.clone(),
                thread::spawn(move || boot::verdict(&kernel, &image)),
            )
        })
        .collect();
    let mut failed = Vec::new();
    for (series, thread) in running {
        let verdict = thread.join().ok().context("the thread that ran a VM panicked")?;
        match verdict {
            Ok(line) => progress::note(&format!("kernel {series}: {line}")),
            Err(why) => {
                eprintln!("kernel {series}: {why:#}");
                failed.push(series);
            }
        }
    }
    if !failed.is_empty() {
        bail!("kernels: {} failed", failed.join(", "));
    }
    Ok(())
}
