//! Builds the kernel side and leaves it in OUT_DIR, where `attach::kernel` embeds it.

use anyhow::Context as _;

/// Names the rustup toolchain that can build for the BPF target; `cargo xtask` sets it.
const TOOLCHAIN: &str = "WHYWAIT_BPF_TOOLCHAIN";

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    println!("cargo:rerun-if-changed=../agent-common");
    let toolchain = std::env::var(TOOLCHAIN).unwrap_or_else(|_| "bpf".to_owned());
    if !toolchain.starts_with("nightly") {
        // SAFETY: a build script's main has no other threads yet.
        unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    let package = aya_build::Package {
        name: "agent-ebpf",
        root_dir: "../agent-ebpf",
        ..Default::default()
    };
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom(&toolchain))
        .with_context(|| format!("cannot build the eBPF programs with toolchain {toolchain}: run `cargo xtask setup`"))
}
