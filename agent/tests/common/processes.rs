//! A Go program that does what its arguments say.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::Service;

pub const PROGRAM: &str = include_str!("../fixtures/go_processes.go.txt");
/// No periodic metrics within a test.
pub const NEVER: [&str; 2] = ["--metric-interval", "1h"];

/// The fixture's program, by each of these names in a folder of their own.
pub fn built(names: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("main.go"), PROGRAM).unwrap();
    let build = |name: &&str| {
        let path = folder.path().join(name);
        let mut go = Command::new("go");
        go.current_dir(folder.path()).args(["build", "-o"]).arg(&path);
        assert!(go.arg("main.go").status().unwrap().success());
        path
    };
    let paths = names.iter().map(build).collect();
    (folder, paths)
}

pub fn start(program: &Path, args: &[&str]) -> Service {
    Service::of(Command::new(program).args(args).stdin(Stdio::piped()))
}

pub fn step(service: &mut Service) {
    service.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
}

/// Waits until a program has written something.
pub fn wait_for(said: &Path) {
    let end = Instant::now() + Duration::from_secs(60);
    while fs::read_to_string(said).unwrap_or_default().is_empty() {
        assert!(Instant::now() < end, "the program does not come to its end");
        thread::sleep(Duration::from_millis(100));
    }
}
