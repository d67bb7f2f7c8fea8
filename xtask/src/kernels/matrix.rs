//! Every Go version times every kind of build on arm64: built across, a VM for each version.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{
    ARM64_SERIES, boot,
    fetch::{self, Kernel},
    initrd,
};
use crate::{arch::Arch, demo_build, matrix, progress, setup::Tools, sh};

const TEST: &str = "go_matrix";
/// A PIE asks for it, as Go links it, and for no library: what is installed to link for arm64, and where it has to lie.
const LOADER: (&str, &str) = (
    "/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1",
    "lib/ld-linux-aarch64.so.1",
);
/// In a VM.
const BUILDS: &str = "builds";

/// What the tests printed, and whether all passed.
pub(crate) fn matrix(tools: &Tools, versions: &[String]) -> Result<(String, Result<()>)> {
    let kernels = fetch::all(ARM64_SERIES, Arch::Arm64)?;
    let kernel = kernels.first().context("a kernel")?;
    let agent = demo_build::agent_for_vm(Arch::Arm64)?;
    let (init, reader) = demo_build::for_arm64_vm(tools)?;
    let programs = [demo_build::tests_for_vms(Arch::Arm64, &[TEST])?, vec![agent, reader]].concat();
    let folder = sh::target().join("kernels/go-arm64");
    fs::remove_dir_all(&folder).ok();
    matrix::build_across(tools, versions, &folder)?;
    let mut images = Vec::new();
    for version in names(&folder)? {
        let image = folder.join(format!("{version}.cpio.gz"));
        initrd::pack(&init, &programs, &files(&folder, &version)?, &image)?;
        images.push((version, image));
    }
    // A VM keeps one thread busy.
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(images.len());
    progress::note(&format!("booting {} VMs, {at_once} at a time", images.len()));
    let (waiting, done) = (Mutex::new(images.into_iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((version, image)) = next(&waiting) {
                    let result = run(kernel, &version, &image);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((version, result));
                }
            });
        }
    });
    let (mut printed, mut failed) = (String::new(), Vec::new());
    for (version, (serial, passed)) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        printed.push_str(&serial);
        if !passed {
            failed.push(version);
        }
    }
    let verdict = if failed.is_empty() {
        Ok(())
    } else {
        Err(anyhow::anyhow!("on arm64 {} failed", failed.join(", ")))
    };
    Ok((printed, verdict))
}

fn next<T>(waiting: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// A version's serial line, and whether its test passed.
fn run(kernel: &Kernel, version: &str, image: &Path) -> (String, bool) {
    let name = format!("{}-{version}", kernel.name());
    // What is no parameter of the kernel's own becomes the first process' environment.
    let words = format!(
        "test={TEST}:every_build_of_every_version_is_known WHYWAIT_GO_MATRIX=whole WHYWAIT_GO_VERSIONS={version} \
         WHYWAIT_GO_BUILDS=/{BUILDS}"
    );
    let log = boot::log(&name);
    let verdict = boot::verdict(kernel, 2, image, &words, &log, Duration::ZERO);
    match &verdict {
        Ok(lines) => lines.iter().for_each(|line| progress::note(&format!("{name}: {line}"))),
        Err(why) => eprintln!("{name}: {why:#}"),
    }
    let serial = fs::read(log).unwrap_or_default();
    (String::from_utf8_lossy(&serial).into_owned(), verdict.is_ok())
}

/// A version's builds and the loader: where they lie, and where in a VM.
fn files(folder: &Path, version: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut files = vec![(PathBuf::from(LOADER.0), PathBuf::from(LOADER.1))];
    for build in names(&folder.join(version))? {
        let program = Path::new(version).join(build).join("facts");
        files.push((folder.join(&program), Path::new(BUILDS).join(&program)));
    }
    Ok(files)
}

/// Of the folders in a folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    if names.is_empty() {
        bail!(
            "{} has no builds: no version of that name is in agent/tests/go_matrix.rs",
            folder.display()
        );
    }
    Ok(names)
}
