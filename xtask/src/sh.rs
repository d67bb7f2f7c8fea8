//! Running other programs: where the workspace is, and errors that name the command that failed.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// The triple the static agent and the VMs' targets are built for.
pub(crate) const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Cargo's target directory of the workspace.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// A command that runs in the workspace's root.
pub(crate) fn cmd<S: AsRef<OsStr>>(program: S, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// The cargo that runs this xtask, without what that one says of xtask, or of a test: some build scripts ask for these variables, and
/// all that hangs on them would be built anew each time another program asks.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = cmd(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), args);
    let of_package =
        |name: &str| name == "OUT_DIR" || ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| name.starts_with(of));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(of_package) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command with the terminal's own input and output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", show(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", show(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote to its standard output, trimmed.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", show(command)))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}\n{}", show(command), output.status, why.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a quiet command that may hang, such as one that downloads, for at most `limit`.
pub(crate) fn within(command: &mut Command, limit: Duration) -> Result<()> {
    let log = target().join("xtask/last-attempt.log");
    let file = create(&log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", show(command)))?;
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let last = said
                .lines()
                .rfind(|line| line.contains("error"))
                .unwrap_or("no message");
            bail!("{} failed: {}", show(command), last.trim());
        }
        if began.elapsed() > limit {
            child.kill().ok();
            child.wait().ok();
            bail!("{} took longer than {} s", show(command), limit.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Creates a file and the folders above it.
pub(crate) fn create(path: &Path) -> Result<std::fs::File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Copies a file only when its bytes differ, so that what was built from it stays fresh; safe while the old one runs.
pub(crate) fn install(from: &Path, to: &Path) -> Result<()> {
    let new = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let beside = to.with_extension("new");
    std::fs::copy(from, &beside).with_context(|| format!("cannot write {}", beside.display()))?;
    std::fs::rename(&beside, to).with_context(|| format!("cannot write {}", to.display()))
}

/// The first folder of PATH that holds `program`.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// True in CI, where a skipped check is a failed one.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
}

/// The command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
