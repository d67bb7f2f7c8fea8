//! The machines that the agent is built for.

use std::process::Command;

use anyhow::Result;

use crate::{progress, sh};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arch {
    Amd64,
    /// Built across, and run in qemu.
    Arm64,
}

impl Arch {
    /// As Go, Debian and qemu's users have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Rust has it.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => sh::STATIC_TARGET,
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Has cargo link for it statically; `--target` keeps the flag away from build scripts and macros, and that it is no variable away
    /// from what tests build.
    pub(crate) fn link_statically(self, cargo: &mut Command) {
        cargo.args(["--target", self.triple()]);
        let flags = r#"["-C", "target-feature=+crt-static"]"#;
        cargo.args(["--config", &format!("target.{}.rustflags={flags}", self.triple())]);
        // It would win.
        cargo.env_remove("RUSTFLAGS");
        if self == Self::Arm64 {
            cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
        }
    }

    /// Rust's standard library for it, which rustup fetches once.
    pub(crate) fn ensure_std(self) -> Result<()> {
        let installed = sh::capture(&mut sh::cmd("rustup", &["target", "list", "--installed"]))?;
        if installed.lines().any(|line| line == self.triple()) {
            return Ok(());
        }
        let mut add = sh::cmd("rustup", &["target", "add", self.triple()]);
        progress::step(&format!("Adding Rust's {}", self.triple()), &mut add)
    }
}
