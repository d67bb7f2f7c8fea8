//! Processes by the hundred: what they cost the agent, and what it says of them, does not grow with their number.

mod common;

#[expect(dead_code, reason = "these processes take no steps")]
#[path = "common/processes.rs"]
mod processes;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use agent::discover::Process;
use common::{Agent, Service, attribute, demo, list, privileged, stock};
use processes::{NEVER, built, start};

/// Calls of the agent that read a whole map of the kernel side, by the kernel's account of them.
struct Walks(PathBuf);

impl Walks {
    fn begin(agent: &Agent) -> Self {
        let name = format!("whywait-walks-{}", std::process::id());
        let walks = Self(Path::new("/sys/kernel/tracing/instances").join(name));
        fs::create_dir(&walks.0).unwrap();
        let set = |file: &str, what: &str| fs::write(walks.0.join(file), what).unwrap();
        let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
        let threads: Vec<String> = threads
            .map(|task| task.unwrap().file_name().into_string().unwrap())
            .collect();
        // And those that they begin.
        set("options/event-fork", "1");
        set("set_event_pid", &threads.join(" "));
        // BPF_MAP_LOOKUP_BATCH (linux, include/uapi/linux/bpf.h).
        set("events/syscalls/sys_enter_bpf/filter", "cmd == 24");
        set("events/syscalls/sys_enter_bpf/enable", "1");
        walks
    }

    /// How many there were since the last call.
    fn count(&self) -> usize {
        let trace = fs::read_to_string(self.0.join("trace")).unwrap();
        fs::write(self.0.join("trace"), "").unwrap();
        trace.lines().filter(|line| line.contains("sys_bpf(")).count()
    }
}

impl Drop for Walks {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The kernel's maps are large, and what is read of them for one that ended is read for all.
#[test]
fn many_that_end_at_once_cost_no_more_than_a_few() {
    const FEW: usize = 2;
    const MANY: usize = 200;
    /// Blocks of histograms that such a target has, at most.
    const BLOCKS: usize = 8;
    if !privileged() {
        return;
    }
    let (_folder, paths) = built(&["before"]);
    let _before = start(&paths[0], &["stay"]);
    let exe = demo("rust-stock");
    let exes = ["--exe", paths[0].to_str().unwrap(), "--exe", exe.to_str().unwrap()];
    let signals = ["--without", "tokio.poll,tokio.wake"];
    let mut agent = Agent::run(&[&NEVER[..], &exes, &signals].concat(), 1);
    let walks = Walks::begin(&agent);
    let mut counts = Vec::new();
    for count in [FEW, MANY] {
        let mut services: Vec<Service> = (0..count).map(|_| stock(false)).collect();
        agent = agent.says(": 0 probes", count);
        for service in &services {
            service.get("/stock/1");
        }
        walks.count();
        for service in &mut services {
            service.child.kill().unwrap();
        }
        drop(services);
        agent = agent.says(") ended", count);
        counts.push(walks.count());
    }
    let output = agent.stop();
    println!("walks: {counts:?}");
    // They may come to their end over a few seconds, in each of which there is a walk for all: some calls, and one for each block of their histograms.
    let most = 10 * (counts[0] + BLOCKS * MANY);
    assert!(counts[0] > 0 && counts[1] <= most, "{counts:?}");
    // The last figures of each are told.
    let resources = output.metrics.iter().flat_map(|line| list(&line["resourceMetrics"]));
    let served = resources.filter(|resource| {
        let mut metrics = list(&resource["scopeMetrics"]).flat_map(|scope| list(&scope["metrics"]));
        metrics.any(|metric| metric["name"] == "whywait.server.request.duration")
    });
    let pids = served.filter_map(|resource| attribute(&resource["resource"], "process.pid")?.as_i64());
    assert_eq!(pids.collect::<BTreeSet<_>>().len(), FEW + MANY, "{}", output.said);
}

/// By the hundred, as a CI has them: a line each at the most, at debug, and next to no time.
#[test]
fn commands_by_the_hundred_are_worth_no_more_than_a_line_each() {
    const COMMANDS: usize = 300;
    /// Five at once, of 5 to 80 ms; says each one's pid, and in the end that there are no more.
    const SCRIPT: &str = r#"for round in $(seq 60); do
        for time in 5 15 30 50 80; do "$0" brief $time > /dev/null & echo $!; done
        wait
    done
    echo over; read line"#;
    if !privileged() {
        return;
    }
    let (_folder, paths) = built(&["command"]);
    let exe = paths[0].to_str().unwrap();
    // One that is there before, and does next to nothing.
    let stock = stock(false);
    let args = ["--exe", exe, "--pid", &stock.pid().to_string()];
    let agent = Agent::run_with(&[&NEVER[..], &args].concat(), 1, &[("RUST_LOG", "debug")]);
    let process = Process::read(agent.pid()).unwrap();
    let of_agent = || process.cpu_time().unwrap() as f64 / 1e9;
    let before = of_agent();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", SCRIPT, exe])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    let lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    let pids: Vec<String> = lines.map(Result::unwrap).take_while(|line| line != "over").collect();
    // cutime and cstime of proc_pid_stat(5).
    let stat = fs::read_to_string(format!("/proc/{}/stat", shell.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[13..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    let of_commands = ticks / rustix::param::clock_ticks_per_second() as f64;
    drop(shell.stdin.take());
    shell.wait().unwrap();
    thread::sleep(Duration::from_secs(1));
    let of_agent = of_agent() - before;
    let output = agent.stop();
    println!("CPU time: {of_commands} s of the commands, {of_agent} s of the agent");
    assert_eq!(pids.len(), COMMANDS);
    let mut watched = 0;
    for pid in &pids {
        let words = [
            format!("(pid {pid})"),
            format!("process {pid}:"),
            format!("process {pid} "),
        ];
        let is_of = |line: &&str| words.iter().any(|words| line.contains(words));
        let said: Vec<_> = output.said.lines().filter(is_of).collect();
        // On a busy machine one of them may take long all the same.
        let is_watched = said.iter().any(|line| line.contains(" watching "));
        watched += usize::from(is_watched);
        assert!(said.len() <= 1 || is_watched, "{said:?}");
        assert!(!said.concat().contains("WARN"), "{said:?}");
    }
    assert!(watched <= COMMANDS / 10, "{watched} are watched");
    assert!(
        of_agent < of_commands / 5.0,
        "{of_agent} s for commands of {of_commands} s"
    );
}
