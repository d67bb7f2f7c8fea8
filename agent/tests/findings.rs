//! Findings on small Go programs with one thing planted each, and on twins without it.

mod common;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "common/go_build.rs"]
mod go_build;

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use common::{
    Agent, DEFAULTS, Output, attribute, findings, list, privileged,
    quota::{Of, Quota},
};
use go_build::build;
use serde_json::Value;

/// One group of programs at a time: they share the cores.
static ONE: Mutex<()> = Mutex::new(());

/// A program of fixtures/go_findings.go.txt, under a name of its own.
struct Planted {
    child: Child,
    name: String,
    _quota: Option<Quota>,
}

impl Planted {
    fn start(what: &str, env: &[(&str, &str)]) -> Self {
        let settings = env.iter().map(|(_, value)| format!(" {value}"));
        let name = format!("{what}{}", settings.collect::<String>());
        let program = build("findings", "local", &[], &[("CGO_ENABLED", "0")]);
        let mut child = Command::new(program)
            .arg(what)
            .envs(env.iter().copied())
            .env("OTEL_SERVICE_NAME", &name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        Self {
            child,
            name,
            _quota: None,
        }
    }

    /// The same under a CPU quota of a fifth of a core; None where the kernel has none.
    fn with_quota(what: &str, env: &[(&str, &str)]) -> Option<Self> {
        let mut planted = Self::start(what, env);
        planted._quota = Some(Quota::new(planted.child.id(), Of::Own)?);
        Some(planted)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs an agent beside them for some seconds, within the default budget.
fn watched(programs: &[&Planted], seconds: u64) -> Output {
    let pids: Vec<String> = programs.iter().map(|program| program.child.id().to_string()).collect();
    let pids = pids.join(",");
    let agent = Agent::run_with(&["--pid", &pids, "--metric-interval", "1s"], programs.len(), &DEFAULTS);
    thread::sleep(Duration::from_secs(seconds));
    agent.stop()
}

/// Each program has the finding that is planted in it, whose sentence names it; its twin has not.
#[track_caller]
fn check(output: &Output, rule: &str, planted: &Planted, says: &str, twin: &Planted) {
    let found = findings(&output.metrics, &planted.name);
    let is_found = found
        .iter()
        .any(|(name, sentence)| name == rule && sentence.contains(says));
    assert!(
        is_found,
        "{}: no {rule} of {says:?} in {found:#?}\n{}",
        planted.name, output.said
    );
    let of_twin = findings(&output.metrics, &twin.name);
    let has = of_twin.iter().any(|(name, _)| name == rule);
    assert!(!has, "{}: {rule} in {of_twin:#?}\n{}", twin.name, output.said);
}

#[test]
fn what_waits_is_found() {
    if !privileged() {
        return;
    }
    let _one = ONE.lock();
    let start = |what| Planted::start(what, &[]);
    let (leaks, starts) = (start("leaks"), start("starts"));
    let (locks, locks_shortly) = (start("locks"), start("locks-shortly"));
    let (connects, keeps_alive, refused) = (start("connects"), start("keeps-alive"), start("refused"));
    let (slow_peer, siblings) = (start("slow-peer"), start("siblings"));
    let (blocks_threads, has_threads) = (start("blocks-threads"), start("has-threads"));
    let programs = [
        &leaks,
        &starts,
        &locks,
        &locks_shortly,
        &connects,
        &keeps_alive,
        &refused,
        &slow_peer,
        &siblings,
        &blocks_threads,
        &has_threads,
    ];
    let output = watched(&programs, 14);
    check(&output, "go.goroutine.leak", &leaks, "main.forget", &starts);
    check(&output, "go.mutex.contended", &locks, "main.lock", &locks_shortly);
    check(
        &output,
        "net.connect_per_request",
        &connects,
        "127.0.0.1:",
        &keeps_alive,
    );
    check(&output, "net.connect_fails", &refused, "127.0.0.1:", &connects);
    check(&output, "net.slow_peer", &slow_peer, "127.0.0.4:", &siblings);
    check(
        &output,
        "go.threads.growing",
        &blocks_threads,
        "system calls",
        &has_threads,
    );
    // What is shown says more than the line that it had before.
    assert!(
        output.said.contains("  * goroutines of main.forget become more"),
        "{}",
        output.said
    );
    let before_end = output.said.rsplit_once("whywait ran").unwrap().0;
    let (_, last) = before_end.rsplit_once("\nwhywait ").unwrap();
    assert!(!last.contains("goroutines grow: main.forget"), "{last}");
    // Each begin is one event, not one at each reading.
    let begins = |program: &Planted, rule: &str| {
        let logs = output.logs.iter().flat_map(|line| list(&line["resourceLogs"]));
        let of_program =
            logs.filter(|logs| attribute(&logs["resource"], "service.name") == Some(program.name.as_str().into()));
        let records = of_program
            .flat_map(|logs| list(&logs["scopeLogs"]))
            .flat_map(|scope| list(&scope["logRecords"]));
        let is_begin = |record: &&Value| {
            record["eventName"] == "whywait.finding.begin"
                && attribute(record, "whywait.finding.name") == Some(rule.into())
        };
        records.filter(is_begin).count()
    };
    assert_eq!(begins(&connects, "net.connect_per_request"), 1);
    assert_eq!(begins(&locks, "go.mutex.contended"), 1);
    assert_eq!(begins(&keeps_alive, "net.connect_per_request"), 0);
}

#[test]
fn what_uses_the_cpu_is_found() {
    if !privileged() {
        return;
    }
    let _one = ONE.lock();
    let small = Planted::start("allocates", &[("GOGC", "100")]);
    let large = Planted::start("allocates", &[("GOGC", "2000")]);
    let limit = |mib: &'static str| Planted::start("allocates-near-limit", &[("GOGC", "off"), ("GOMEMLIMIT", mib)]);
    let (near, far) = (limit("40MiB"), limit("400MiB"));
    let late = Planted::start("loops", &[("GODEBUG", "asyncpreemptoff=1")]);
    let stops = Planted::start("loops", &[("GODEBUG", "asyncpreemptoff=0")]);
    let above = Planted::with_quota("computes", &[("GOMAXPROCS", "8")]);
    let fits = Planted::with_quota("computes", &[("GOMAXPROCS", "2")]);
    let quotas = above.as_ref().zip(fits.as_ref());
    let mut programs = vec![&small, &large, &near, &far, &late, &stops];
    programs.extend(quotas.iter().flat_map(|(above, fits)| [*above, *fits]));
    let output = watched(&programs, 14);
    check(&output, "go.gc.small_heap", &small, "for a heap of", &large);
    check(&output, "go.gc.memory_limit", &near, "GOMEMLIMIT=40 MiB", &far);
    check(
        &output,
        "go.stw.late_goroutine",
        &late,
        "for the goroutine at main.",
        &stops,
    );
    check(&output, "go.gc.forced", &stops, "most by main.", &small);
    if let Some((above, fits)) = quotas {
        check(
            &output,
            "go.gomaxprocs.above_quota",
            above,
            "GOMAXPROCS is 8, but cgroup /",
            fits,
        );
        let of_fits = findings(&output.metrics, &fits.name);
        assert!(of_fits.iter().any(|(name, _)| name == "cpu.throttled"), "{of_fits:#?}");
        // The one that says less is not shown beside it.
        let of_above = findings(&output.metrics, &above.name);
        assert!(
            of_above.iter().all(|(name, _)| name != "cpu.throttled"),
            "{of_above:#?}"
        );
    }
}

/// What doctor can say without a probe, and what it says that it cannot.
#[test]
fn doctor_finds_what_memory_shows() {
    if !privileged() {
        return;
    }
    let _one = ONE.lock();
    let (locks, locks_shortly) = (Planted::start("locks", &[]), Planted::start("locks-shortly", &[]));
    let doctor = |planted: &Planted, look: &str| {
        let pid = planted.child.id().to_string();
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_whywait"));
        let output = doctor.args(["doctor", "--pid", &pid, "--look", look]).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let said = doctor(&locks, "5s");
    assert!(said.contains("go.mutex.contended: explains"), "{said}");
    assert!(said.contains("--grouped` shows the stacks"), "{said}");
    let not_judged = said.lines().filter(|line| line.contains("not judged"));
    let by_probes: Vec<&str> = not_judged.filter(|line| line.contains("needs probes")).collect();
    let [line] = by_probes.as_slice() else {
        panic!("{said}");
    };
    for rule in ["net.connect_fails", "net.slow_peer", "go.stw.late_goroutine"] {
        assert!(line.contains(rule), "{said}");
    }
    let said = doctor(&locks_shortly, "5s");
    assert!(!said.contains("go.mutex.contended: explains"), "{said}");
    let said = doctor(&locks, "0s");
    assert!(!said.contains("  findings ") && !said.contains("not judged"), "{said}");
}
