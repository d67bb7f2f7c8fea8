//! `cargo xtask test`: every check and test, in the order in which they are cheap.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::{ArgGroup, Args};

use crate::{arch::Arch, build, checks, demo_build, kernels, matrix, progress, setup, sh, tidy};

#[derive(Args, Clone)]
#[command(group(ArgGroup::new("across").args(["only_kernels", "matrix"])))]
pub(crate) struct Options {
    /// Boot older kernels in VMs (the default)
    #[arg(long, overrides_with = "no_kernels")]
    kernels: bool,
    /// Do not test the older kernels
    #[arg(long)]
    no_kernels: bool,
    /// Test only the older kernels
    #[arg(long, conflicts_with = "no_kernels")]
    only_kernels: bool,
    /// With --only-kernels or --matrix: cross-compile for arm64 and test in an emulated VM
    #[arg(long, requires = "across")]
    arm64: bool,
    /// Test only programs that preempt themselves: this long, e.g. 30m, per kernel and kind of preemption
    #[arg(long, value_name = "TIME", conflicts_with_all = ["kernels", "no_kernels", "only_kernels"])]
    preemption: Option<humantime::Duration>,
    /// Test only every Go version with every kind of build; writes the section in docs/go-support.md
    #[arg(long, conflicts_with_all = ["kernels", "no_kernels", "only_kernels", "preemption"])]
    matrix: bool,
    /// With --matrix: only this version, e.g. go1.18.10 or `local`; can be repeated; other rows stay
    #[arg(long = "go", value_name = "VERSION", requires = "matrix")]
    versions: Vec<String>,
    /// Test only services of other projects under load; writes docs/real-services.md
    #[arg(long, conflicts_with_all = ["kernels", "no_kernels", "only_kernels", "matrix", "preemption"])]
    services: bool,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let with_kernels = !options.no_kernels;
    // As an ordinary user no VM is booted, so its packages are not asked for either.
    let tools = setup::ensure(setup::Wanted {
        kernels: with_kernels && !options.matrix && !options.services && !options.arm64 && sh::is_root(),
        arm64: options.arm64,
        arm64_kernels: options.arm64,
    })?;
    if options.matrix {
        let arch = if options.arm64 { Arch::Arm64 } else { Arch::Amd64 };
        return matrix::run(&tools, arch, &options.versions);
    }
    if options.arm64 {
        return kernels::test_arm64(&tools);
    }
    if options.only_kernels {
        return kernels::test(&tools);
    }
    if let Some(time) = options.preemption {
        return kernels::test_preemption(&tools, time.into());
    }
    if options.services {
        let test = [
            "-p",
            "agent",
            "--test",
            "services",
            "--",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ];
        return cargo_test(&tools, &test, &mut Counts::default());
    }
    checks::rust_format()?;
    checks::go(&tools)?;
    tidy::run(tidy::Options::default())?;
    checks::clippy()?;
    checks::fuzzed_readers()?;

    let mut counts = Counts::default();
    if sh::is_root() {
        build::static_agent()?;
        demo_build::all(&tools)?;
        demo_build::oracles(&tools)?;
        let others = ["--workspace", "--exclude", "agent-ebpf", "--exclude", "agent"];
        cargo_test(&tools, &others, &mut counts)?;
        // By itself, as it is released, and as the VMs have it: with the features that others ask of its dependencies it would be
        // compiled once more.
        let agent = ["--package", "agent", "--", "--test-threads=1"];
        cargo_test(&tools, &agent, &mut counts)?;
        if with_kernels {
            kernels::test(&tools)?;
        } else {
            skipped("the older kernels (--no-kernels)")?;
        }
    } else {
        skipped("NOT ROOT: every test that loads eBPF programs (agent/tests) and the older kernels")?;
        cargo_test(
            &tools,
            &["--workspace", "--exclude", "agent-ebpf", "--lib", "--bins"],
            &mut counts,
        )?;
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    Ok(())
}

/// Says loudly what is left out; in CI nothing may be.
fn skipped(what: &str) -> Result<()> {
    if sh::is_ci() {
        bail!("skipped in CI: {what}");
    }
    eprintln!("\n*** SKIPPED: {what} ***\n");
    Ok(())
}

/// Sums of cargo's own `test result:` lines.
#[derive(Default, Debug, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    /// Reads a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`; others change nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let words: Vec<&str> = result.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let number = pair[0].parse().unwrap_or(0);
            match pair[1] {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                _ => {}
            }
        }
    }
}

fn cargo_test(tools: &setup::Tools, args: &[&str], counts: &mut Counts) -> Result<()> {
    let result = passed_through(&mut command(tools, args)?, |line| counts.add(line));
    if result.is_err() {
        println!("{} passed, {} failed", counts.passed, counts.failed);
    }
    result
}

/// What is tested is what is released: the static agent. Tests find Go in PATH, wherever it was found here.
pub(crate) fn command(tools: &setup::Tools, args: &[&str]) -> Result<Command> {
    let go = tools.go.path.parent().map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(go.into_iter().chain(std::env::split_paths(&path)))?;
    Arch::Amd64.ensure_std()?;
    let mut command = sh::cargo(&["test", "--release", "--no-fail-fast"]);
    Arch::Amd64.link_statically(&mut command);
    command
        .args(args)
        .env("PATH", path)
        .env("WHYWAIT_DEMO_DIR", demo_build::folder());
    Ok(command)
}

/// Runs cargo test with its output passed through as it is, and each line looked at.
pub(crate) fn passed_through(command: &mut Command, mut look: impl FnMut(&str)) -> Result<()> {
    progress::note(&sh::show(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let mut out = BufReader::new(child.stdout.take().context("its output is piped")?);
    let mut line = Vec::new();
    while out.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        look(String::from_utf8_lossy(&line).trim());
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test failed: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed() {
        let mut counts = Counts::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "test decoder::refuses_short ... ok",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 15, failed: 2 });
    }
}
