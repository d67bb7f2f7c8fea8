//! How processes come, change and go while they are watched.

mod common;

#[path = "common/processes.rs"]
mod processes;

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use agent_common::{histogram::BlockKey, net::Peer, thread::syscall::Call, tokio::poll::Thread as Worker};
use common::{
    Agent, Output,
    maps::{array, keys, map},
    privileged,
};
use processes::{NEVER, PROGRAM, built, start, step, wait_for};

fn entries<K: aya::Pod, V: aya::Pod>(agent: &Agent, name: &str) -> Vec<(K, V)> {
    map(agent, name).iter().filter_map(Result::ok).collect()
}

/// Waits until the kernel side holds nothing of any target.
fn nothing_is_kept(agent: &Agent) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let kept = keys::<BlockKey>(agent, "BLOCK_KEYS").len() + entries::<u32, Peer>(agent, "PEERS").len();
        if kept == 0 {
            return;
        }
        assert!(Instant::now() < end, "{kept} entries are kept of targets that ended");
        thread::sleep(Duration::from_millis(100));
    }
}

fn has(output: &Output, service: &str, metric: &str) -> bool {
    !output.points(service, metric).is_empty()
}

#[test]
fn a_target_that_becomes_another_program_leaves_its_last_figures_and_nothing_else() {
    if !privileged() {
        return;
    }
    let (_folder, paths) = built(&["before", "after"]);
    let (before, after) = (paths[0].to_str().unwrap(), paths[1].to_str().unwrap());
    let agent = Agent::run(&[&NEVER[..], &["--exe", before, "--exe", after]].concat(), 0);
    let mut service = start(&paths[0], &["exec", after, "stay"]);
    let mut agent = agent.watching(1);
    thread::sleep(Duration::from_secs(2));
    assert!(!keys::<BlockKey>(&agent, "BLOCK_KEYS").is_empty());
    step(&mut service);
    agent = agent.watching(1);
    thread::sleep(Duration::from_secs(2));
    drop(service);
    nothing_is_kept(&agent);
    let output = agent.stop();
    for service in ["before", "after"] {
        for metric in [
            "go.goroutine.count",
            "go.goroutine.runnable.duration",
            "whywait.overhead.hits",
        ] {
            assert!(has(&output, service, metric), "{metric} of {service}: {}", output.said);
        }
    }
    assert_eq!(
        output.said.matches(" became another program").count(),
        1,
        "{}",
        output.said
    );
    assert_eq!(output.said.matches(") ended").count(), 1, "{}", output.said);
    let farewell = output.said.split("ended during the run:").nth(1).unwrap();
    assert_eq!(farewell.matches("goroutine runnable").count(), 2, "{farewell}");
}

#[test]
fn an_executable_that_is_mapped_twice_is_read_where_it_runs() {
    if !privileged() {
        return;
    }
    let (folder, paths) = built(&["exec"]);
    let pie = folder.path().join("pie");
    let mut go = Command::new("go");
    go.current_dir(folder.path()).args(["build", "-buildmode=pie", "-o"]);
    assert!(go.arg(&pie).arg("main.go").status().unwrap().success());
    for program in [&paths[0], &pie] {
        let service = start(program, &["mapped"]);
        let agent = Agent::run(&[&NEVER[..], &["--pid", &service.pid().to_string()]].concat(), 1);
        thread::sleep(Duration::from_secs(1));
        let output = agent.stop();
        let name = program.file_name().unwrap().to_str().unwrap();
        for metric in ["go.goroutine.count", "go.goroutine.runnable.duration"] {
            assert!(has(&output, name, metric), "{metric} of {name}: {}", output.said);
        }
    }
}

/// Each waits for the look at everything that comes twice a minute, side by side.
#[test]
fn what_no_event_tells_of_is_found() {
    thread::scope(|scope| {
        for of in [
            a_process_that_forks_after_its_start_is_found,
            nothing_is_kept_of_threads_that_ended,
        ] {
            scope.spawn(of);
        }
    });
}

/// A daemon forks and goes on as what it is: nobody execs, so no event tells of it.
fn a_process_that_forks_after_its_start_is_found() {
    if !privileged() {
        return;
    }
    // Before Go's runtime starts, as it can't be forked after.
    const FORK: &str = r#"package main
/*
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void daemonize(void) {
    pid_t pid = fork();
    if (pid != 0) {
        _exit(0);
    }
    setsid();
}
*/
import "C"
"#;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("go.mod"), "module example.org/daemon\ngo 1.18\n").unwrap();
    fs::write(folder.path().join("main.go"), PROGRAM).unwrap();
    fs::write(folder.path().join("fork.go"), FORK).unwrap();
    let program = folder.path().join("daemon");
    let mut go = Command::new("go");
    go.current_dir(folder.path())
        .env("CGO_ENABLED", "1")
        .args(["build", "-o"]);
    assert!(go.arg(&program).arg(".").status().unwrap().success());
    // One that is there before, so that it is known when the first look was taken.
    let (_other, paths) = built(&["before"]);
    let _before = start(&paths[0], &["stay"]);
    let exes = ["--exe", program.to_str().unwrap(), "--exe", paths[0].to_str().unwrap()];
    // The summary says "watching" too.
    let agent = Agent::run(&[&NEVER[..], &exes].concat(), 1);
    let mut service = start(&program, &["stay"]);
    let pid: u32 = service.address.parse().unwrap();
    assert_ne!(pid, service.pid());
    assert!(service.child.wait().unwrap().success());
    let output = agent.watching(1).stop();
    let ended = rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid as i32).unwrap(),
        rustix::process::Signal::KILL,
    );
    assert!(
        ended.is_ok() && output.said.contains(&format!("(pid {pid})")),
        "{}",
        output.said
    );
}

#[test]
fn commands_that_end_by_themselves_are_not_worth_a_word() {
    if !privileged() {
        return;
    }
    let (_folder, paths) = built(&["command", "before"]);
    let _before = start(&paths[1], &["stay"]);
    let exes = ["--exe", paths[0].to_str().unwrap(), "--exe", paths[1].to_str().unwrap()];
    let agent = Agent::run(&[&NEVER[..], &exes].concat(), 1);
    // Some are over before they are looked at, the others are while they are attached, or just after.
    let (brief, longer) = ((5..100).step_by(5), (250..400).step_by(5));
    let briefly = brief.clone().count();
    let times = brief.chain(longer);
    let commands: Vec<_> = times
        .map(|time: u32| {
            Command::new(&paths[0])
                .args(["brief", &time.to_string()])
                .stdout(Stdio::null())
                .spawn()
        })
        .collect();
    let mut pids = Vec::new();
    for command in commands {
        let mut command = command.unwrap();
        pids.push(command.id());
        assert!(command.wait().unwrap().success());
    }
    thread::sleep(Duration::from_secs(2));
    let output = agent.stop();
    let of = |pid: &&u32, words: &str| {
        let (named, process) = (format!("(pid {pid})"), format!("process {pid}"));
        let mut lines = output.said.lines().filter(|line| line.contains(words));
        lines.any(|line| line.contains(&named) || line.contains(&process))
    };
    let warned: Vec<_> = pids.iter().filter(|pid| of(pid, "WARN")).collect();
    assert!(warned.is_empty(), "{warned:?}: {}", output.said);
    // On a busy machine one of them may take long all the same.
    let watched = pids[..briefly].iter().filter(|pid| of(pid, " watching ")).count();
    assert!(watched <= briefly / 4, "{watched} of {briefly}: {}", output.said);
}

/// A quiet service whose window never closes, and whose threads come and go.
fn nothing_is_kept_of_threads_that_ended() {
    const THREADS: usize = 2000;
    if !privileged() {
        return;
    }
    let (folder, paths) = built(&["threads"]);
    let said = folder.path().join("done");
    let mut service = start(&paths[0], &["threads", &THREADS.to_string(), said.to_str().unwrap()]);
    let pid = service.pid();
    let agent = Agent::run(
        &[&NEVER[..], &["--with", "thread.syscall", "--pid", &pid.to_string()]].concat(),
        1,
    );
    let kept = |agent: &Agent| {
        let threads = keys::<u32>(agent, "THREAD_KEYS").len();
        (entries::<u32, Call>(agent, "SYSCALLS").len(), threads)
    };
    let alive = || fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    step(&mut service);
    // The last of them is over, as it says.
    wait_for(&said);
    let (calls, threads) = kept(&agent);
    let alive = alive();
    assert!(
        calls <= alive + 10 && threads <= alive + 10,
        "of {calls} and {threads} threads something is kept, {alive} live"
    );
    // One that nobody saw end.
    let target_id = keys::<BlockKey>(&agent, "BLOCK_KEYS")[0].target_id();
    let dead = Worker {
        target_id,
        ..Worker::default()
    };
    array::<Worker>(&agent, "TOKIO_THREADS").set(0, dead, 0).unwrap();
    array::<u32>(&agent, "TOKIO_TIDS").set(0, u32::MAX, 0).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while !keys::<u32>(&agent, "TOKIO_TIDS").is_empty() {
        assert!(Instant::now() < end, "a thread that ended is kept");
        thread::sleep(Duration::from_millis(500));
    }
    drop(agent.stop());
}

/// Its pids would be nobody's, or somebody else's.
#[test]
fn in_a_pid_namespace_of_its_own_the_agent_says_so() {
    if !privileged() {
        return;
    }
    let program = std::env::var_os("WHYWAIT_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_whywait").into());
    let folder = tempfile::tempdir().unwrap();
    for command in ["run", "doctor"] {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--pid", "--fork", "--mount-proc"])
            .arg(&program)
            .arg(command);
        if command == "run" {
            unshare
                .args(["--plain", "--duration", "1s", "--out"])
                .arg(folder.path());
        }
        let output = unshare.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(10), "{command}: {said}");
        assert!(
            said.contains("a PID namespace of its own") && said.contains("hostPID"),
            "{said}"
        );
    }
}
