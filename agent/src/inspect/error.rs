//! Why a binary, or a place in it, can't be used. Each message names the way out.

/// Why a binary that belongs to a known runtime can't be traced (or why the bytes are no binary at all).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    #[error("its file cannot be read, {0}: check its file system, then restart the agent")]
    NoAnswer(String),
    #[error("not an ELF executable: give a process whose /proc/PID/exe is one")]
    NotElf,
    #[error(
        "the ELF file is truncated or malformed ({part}): compare it with the build's original and deploy it again"
    )]
    Malformed { part: &'static str },
    #[error(
        "the file has {found} {what}, more than the {most} that fit into the agent's memory: its runtime is not watched"
    )]
    TooLarge { what: &'static str, found: u64, most: u64 },
    #[error(
        "the Go binary is obfuscated ({sign}), as garble does: its functions cannot be identified. Watch a build without garble"
    )]
    Obfuscated { sign: String },
    #[error(
        "built by {toolchain}, whose runtime is not that of the Go toolchain, {supported}: build it with that toolchain"
    )]
    OtherToolchain {
        toolchain: &'static str,
        supported: &'static str,
    },
    #[error("{runtime} is in its shared object {object}, and a runtime is watched only if it is in the executable")]
    InObject { runtime: String, object: String },
    #[error("{runtime} on machine {machine}: only builds for {supported} are supported; use such a build")]
    UnsupportedMachine {
        runtime: &'static str,
        machine: String,
        supported: &'static str,
    },
    #[error(
        "the {runtime} binary is stripped of its symbols: build it without strip (Rust: `strip = \"none\"` in the release profile)"
    )]
    Stripped { runtime: &'static str },
    #[error(
        "no DWARF in this {found} binary (-ldflags=-w or -s), and the table of offsets, {supported}, does not cover it: {reason}. Build it with DWARF, or use a newer agent"
    )]
    NoOffsets {
        found: String,
        reason: String,
        supported: &'static str,
    },
    #[error(
        "{what} cannot be found in the code of this stripped Go binary ({reason}): build it without -ldflags=-s, or use a newer agent"
    )]
    NotFound { what: &'static str, reason: String },
    #[error("{runtime} {found} isn't supported, {supported} is: use a toolchain within that range or a newer agent")]
    UnsupportedVersion {
        runtime: &'static str,
        found: String,
        supported: &'static str,
    },
    #[error(
        "tokio in a dev build: without optimisation (opt-level 0) its functions are unknown. Build it with --release, or with `opt-level = 2` or 3 in its profile"
    )]
    Unoptimised,
    #[error(
        "{what} isn't where this agent expects it ({detail}): report the toolchain's version, and use one within {supported} until then"
    )]
    UnexpectedLayout {
        what: String,
        detail: String,
        supported: &'static str,
    },
    #[error(
        "the agent failed on it, which is a bug: please report the toolchain that built it (the log has the place); it is not inspected again"
    )]
    Panicked,
}

/// Why a function has no proved attach point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    #[error("no function of the names {candidates:?} in this binary (inlined, or not linked in): this hook stays off")]
    NoSuchFunction { candidates: Vec<String> },
    #[error("{function} cannot be found in a stripped binary: this hook stays off")]
    NoNames { function: String },
    #[error("{count} functions are called {function}: which of them runs is not known, this hook stays off")]
    Ambiguous { function: String, count: usize },
    #[error("the bytes of {function} at {vaddr:#x} aren't in the file: this hook stays off")]
    NoCode { function: String, vaddr: u64 },
    #[error("{function} can't be disassembled at {vaddr:#x}: this hook stays off")]
    Undecodable { function: String, vaddr: u64 },
    #[error(
        "the kernel refuses a uprobe on the instruction of {function} at {vaddr:#x}, and there is no other place: this hook stays off"
    )]
    Refused { function: String, vaddr: u64 },
    #[error("{function}: {reason}: this hook stays off")]
    NotProved { function: String, reason: String },
}
