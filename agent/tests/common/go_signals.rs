//! Every signal of a Go process against what else knows it: relations between figures, and not one time of a clock.

use serde_json::Value;

use crate::{
    common::{attribute, is_slow, number_of},
    go_life::{Life, Said, text},
};

#[path = "go_latency.rs"]
mod go_latency;
#[path = "go_memory.rs"]
mod go_memory;
#[path = "go_times.rs"]
mod go_times;
#[path = "go_wall.rs"]
mod go_wall;

use go_latency::latencies;
use go_memory::{goroutines, in_c, runtime};
use go_times::{Sums, add, difference, our_sums, their_sums};
use go_wall::wall_times;

const SIGNALS: [&str; 13] = [
    "go.runtime",
    "go.goroutines",
    "go.wait",
    "go.gc",
    "go.stw",
    "go.assist",
    "go.sched",
    "go.handoff",
    "go.latency",
    "net.connect",
    "net.request",
    "net.retransmit",
    "thread.run_queue",
];
/// Functions whose goroutines' states last long beside what a probe and the trace's own events take.
const LASTING: [&str; 7] = [
    "main.nap",
    "main.spin",
    "main.hear",
    "main.choose",
    "main.takeFirst",
    "main.takeSecond",
    "main.takeLock",
];

/// What is not as it should be is kept with its signal.
struct Findings {
    life: Life,
    signal: &'static str,
}

impl Findings {
    fn of(&mut self, signal: &'static str) -> &mut Self {
        self.signal = signal;
        self
    }

    fn hold(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.life.wrong.push((self.signal, what()));
        }
    }

    fn same(&mut self, what: &str, ours: i64, theirs: i64) {
        self.hold(ours == theirs, || format!("{what}: {ours}, not {theirs}"));
    }

    /// A preemption in the wrong moment makes a wait more or less.
    fn near(&mut self, what: &str, ours: i64, theirs: i64) {
        self.hold((ours - theirs).abs() <= 1 + theirs / 100, || {
            format!("{what}: {ours}, not {theirs}")
        });
    }
}

pub fn check(said: &Said) -> Life {
    let mut findings = Findings {
        life: Life::default(),
        signal: "",
    };
    coverage(said, &mut findings);
    runtime(said, findings.of("go.runtime"));
    goroutines(said, findings.of("go.goroutines"));
    in_c(said, &mut findings);
    wall_times(said, findings.of("go.wait"));
    cycles(said, findings.of("go.gc"));
    stops(said, findings.of("go.stw"));
    assists(said, findings.of("go.assist"));
    waits(said, findings.of("go.sched"));
    handoffs(said, findings.of("go.handoff"));
    latencies(said, findings.of("go.latency"));
    if !findings.life.less.iter().any(|(what, _)| what == "no net.request") {
        let calls = said.told("calls");
        let net = findings.of("net.request");
        net.same("served", said.sum("whywait.server.request.duration", &[]), calls);
        net.same("made", said.sum("whywait.client.request.duration", &[]), calls);
    }
    findings
        .of("net.connect")
        .same("connects", said.sum("whywait.tcp.connect.duration", &[]), 1);
    if !is_slow() {
        run_queue(said, findings.of("thread.run_queue"));
    }
    let right = findings.life.wrong.is_empty();
    times(said, findings.of("go.sched"));
    if !is_slow() {
        run_queue_time(said, findings.of("thread.run_queue"));
    }
    findings.life.only_times = right && !findings.life.wrong.is_empty();
    findings.life
}

/// Every signal is there, but for what the version lacks, and that is said.
fn coverage(said: &Said, findings: &mut Findings) {
    for signal in SIGNALS {
        let found = said.points_of("whywait.signal.state", &[("whywait.signal", signal)]);
        let found = found.last().cloned().unwrap_or_default();
        let (coverage, cause) = (text(&found, "whywait.coverage"), text(&found, "whywait.cause"));
        let expected = match (signal, said.minor) {
            ("go.stw", ..22) => ("off", "the runtime keeps the reason of a stop only since go1.22"),
            ("go.stw", 22) => (
                "partial",
                "the runtime keeps the time when all Ps had stopped only since go1.23",
            ),
            ("net.request", _) if no_requests(&cause) => ("off", cause.as_str()),
            _ => ("full", ""),
        };
        findings
            .of(signal)
            .hold((coverage.as_str(), cause.as_str()) == expected, || {
                format!("{coverage}: {cause}")
            });
        match coverage.as_str() {
            "full" => {}
            "off" => findings.life.less.push((format!("no {signal}"), cause)),
            _ => findings.life.less.push((format!("{signal} in part"), cause)),
        }
    }
}

/// Before Linux 6.3 there is no such tracepoint, and on arm64 no fexit either (docs/design/probes.md).
fn no_requests(cause: &str) -> bool {
    let says = |what| cause.contains(what);
    cfg!(target_arch = "aarch64") && says("unknown BTF type `btf_trace_sock_send_length`") && says("(os error 524)")
}

/// Every cycle, and both its pauses to the nanosecond, against debug.ReadGCStats.
fn cycles(said: &Said, findings: &mut Findings) {
    let cycles: Vec<&Value> = said.spans_named("go.gc.cycle").collect();
    findings.same("cycles", cycles.len() as i64, said.told("cycles"));
    let pauses = cycles
        .iter()
        .filter_map(|cycle| attribute(cycle, "go.gc.pause.total_ns"));
    findings.same(
        "pauses, ns",
        pauses.map(|pause| number_of(&pause)).sum(),
        said.told("pauses_ns"),
    );
    let forced = cycles
        .iter()
        .filter(|cycle| attribute(cycle, "go.gc.forced") == Some(Value::from(true)));
    let forced: Vec<_> = forced.collect();
    findings.same("forced cycles", forced.len() as i64, said.told("forced"));
    // Who asked is seen when the world is stopped.
    let asked = |cycle: &&&&Value| {
        text(cycle, "go.gc.trigger") == "forced"
            && text(cycle, "go.goroutine.function") == "main.force"
            && text(cycle, "go.stw.requested_at").starts_with("main.force (")
    };
    let by_force = forced.iter().filter(asked).count() as i64;
    findings.same(
        "by main.force",
        by_force,
        if said.minor < 22 { 0 } else { said.told("forced") },
    );
    let by_heap = cycles.iter().filter(|cycle| text(cycle, "go.gc.trigger") == "heap");
    let others = said.told("cycles") - said.told("forced");
    findings.same(
        "by the heap",
        by_heap.count() as i64,
        if said.minor < 22 { 0 } else { others },
    );
}

/// Every stop with its reason and where it was asked for; how many there were, against /sched/pauses/total/other.
fn stops(said: &Said, findings: &mut Findings) {
    let stops: Vec<&Value> = said
        .spans
        .iter()
        .filter(|span| span["name"].as_str().is_some_and(|name| name.starts_with("go.stw ")))
        .collect();
    findings.same(
        "stops that are told, and counted",
        stops.len() as i64,
        said.told("other_stops").max(0),
    );
    let told = said.told["stops"].as_object().expect("stops by reason");
    for (reason, told) in told.iter().filter(|_| said.minor >= 22) {
        let of_reason: Vec<_> = stops
            .iter()
            .filter(|stop| text(stop, "go.stw.reason") == *reason)
            .collect();
        findings.same(reason, of_reason.len() as i64, number_of(told));
        let asked_at = |stop: &&&&Value| text(stop, "go.stw.requested_at").starts_with("main.stop (");
        findings.same(
            &format!("{reason} by main.stop"),
            of_reason.iter().filter(asked_at).count() as i64,
            number_of(told),
        );
        findings.same(
            &format!("{reason} as a value"),
            said.sum("go.stw.duration", &[("go.stw.reason", reason)]),
            number_of(told),
        );
    }
    let length = |span: &Value| number_of(&span["endTimeUnixNano"]) - number_of(&span["startTimeUnixNano"]);
    for stop in stops {
        let parts: Vec<&Value> = said
            .spans
            .iter()
            .filter(|span| span["parentSpanId"] == stop["spanId"])
            .collect();
        findings.same(
            "parts of a stop",
            parts.len() as i64,
            if said.minor < 23 { 0 } else { 2 },
        );
        if !parts.is_empty() {
            findings.same(
                "their lengths",
                parts.iter().map(|part| length(part)).sum(),
                length(stop),
            );
        }
    }
}

/// What goroutines marked because they allocated, the main one more than all others, against the runtime's sums: of each cycle,
/// and of /cpu/classes since go1.20.
fn assists(said: &Said, findings: &mut Findings) {
    /// What a P has not handed in when a cycle ends is in our sum alone, ns (runtime/mgcpacer.go, gcAssistTimeSlack).
    const SLACK: i64 = 5000;
    let ours = said.sum("go.gc.assist.time", &[]);
    let of_main = said.sum("go.gc.assist.time", &[("go.goroutine.function", "runtime.main")]);
    let cycles = said.spans_named("go.gc.cycle");
    let of_cycles = cycles.filter_map(|cycle| attribute(cycle, "go.gc.cpu.assist_ns"));
    let of_cycles: i64 = of_cycles.map(|time| number_of(&time)).sum();
    let most = SLACK * said.told("cycles");
    // The trace's reader allocates as well.
    findings.hold(of_main * 2 > ours, || format!("{of_main} ns are main's, of {ours}"));
    findings.hold((of_cycles..=of_cycles + most).contains(&ours), || {
        format!("{ours} ns, by the cycles {of_cycles}")
    });
    let told = said.told("assists_ns");
    findings.same("says so", i64::from(told >= 0), i64::from(said.minor >= 20));
    // Seconds as a float: the last nanosecond may be lost.
    findings.hold(told < 0 || (told - 1..=told + most).contains(&ours), || {
        format!("{ours} ns, by /cpu/classes {told}")
    });
}

/// Ps that sysmon took from goroutines in a system call, against those that were made to sleep in one, and against the trace's steals.
fn handoffs(said: &Said, findings: &mut Findings) {
    /// Reads of the program's own input before and behind the trace, and what the trace cuts.
    const UNTRACED: i64 = 3;
    let ours = said.sum("go.processor.handoffs", &[("go.processor.handoff.reason", "sysmon")]);
    let told = said.told("blocks");
    findings.hold(ours >= told, || format!("by sysmon: {ours}, not {told}"));
    if said.minor >= 22 {
        let steals = number_of(&said.trace["steals"]);
        findings.hold((ours - steals).abs() <= UNTRACED, || {
            format!("by sysmon: {ours}, by the trace {steals}")
        });
    }
}

/// How often threads waited for a core, against the kernel's own account.
fn run_queue(said: &Said, findings: &mut Findings) {
    /// Threads that got a core between our first look and the account's, or behind the last one: sysmon's naps above all.
    const MOMENTS: i64 = 10;
    let often = said.sum("whywait.thread.run_queue.duration", &[]);
    let (_, cores) = said.run_queue;
    // Some machines keep their own process 1 from being traced: a wait that ends in a switch away from it is seen by no hook.
    let unseen = said.output.dropped("thread_unseen");
    findings.hold((often + unseen - cores).abs() <= MOMENTS, || {
        format!("{often} times, {unseen} unseen, the kernel's {cores}")
    });
}

/// How long they waited. Since Linux 6.12 the kernel's account may take a sleep for a wait: a thread that goes to sleep stays queued for a while, and
/// when it is moved to another CPU meanwhile, its wait begins (kernel/sched/core.c, enqueue_task calls sched_info_enqueue for it as well).
fn run_queue_time(said: &Said, findings: &mut Findings) {
    /// How much of a wait may lie before our first look or behind the last one, s, and a part of the whole for the clock's readings.
    const MOMENT: f64 = 0.002;
    const PART: f64 = 0.05;
    /// The kernel's wait ends when it begins to choose who is next (linux, kernel/sched/stats.h, sched_info_arrive: rq_clock), ours at the
    /// switch itself: later by what the choice takes, 4 to 14 us in virtual machines whose core was idle, s. How exact a long wait is,
    /// e2e_net says (run_queue_delay_is_the_kernels); here the number is what counts.
    const SWITCH: f64 = 50e-6;
    let points = said.points("whywait.thread.run_queue.duration");
    let ours: f64 = points.iter().filter_map(|point| point["sum"].as_f64()).sum();
    let often = said.sum("whywait.thread.run_queue.duration", &[]);
    let (theirs, cores) = said.run_queue;
    let unseen = said.output.dropped("thread_unseen");
    println!("run queue: {ours:.6} s, {often} times, {unseen} unseen; the kernel's {theirs:.6} s, {cores} times");
    let near = MOMENT + PART * theirs;
    let least = if unseen == 0 { theirs - near } else { 0.0 };
    let range = least..=theirs + near + SWITCH * often as f64;
    findings.hold(range.contains(&ours), || format!("{ours} s, the kernel's {theirs} s"));
}

/// How often goroutines waited, for what, and how often they ran.
fn waits(said: &Said, findings: &mut Findings) {
    /// Waits for the trace's own beginning and end.
    const UNTRACED: i64 = 4;
    // One in so many waits is none, by the trace as well, when a preemption lets the other side come first: a turn of 10 ms is over
    // sooner in an emulator.
    let preempted = if is_slow() { 20 } else { 100 };
    let waits = |reason| said.sum("go.goroutine.wait.duration", &[("go.goroutine.wait_reason", reason)]);
    // Reasons, what the program counted, and the trace's names: the runtime's own goroutines wait and sleep as well.
    for (reasons, key, traced) in [
        (
            &["chan receive", "chan send"][..],
            "chan",
            &["chan receive", "chan send"][..],
        ),
        (&["sync.Mutex.Lock", "semacquire"], "mutex", &["sync"]),
        (&["sync.Cond.Wait"], "cond", &["sync.(*Cond).Wait"]),
        (&["select"], "select", &["select"]),
        (&["sleep"], "sleep", &["sleep"]),
        (&["IO wait"], "io_wait", &["network"]),
    ] {
        let ours: i64 = reasons.iter().map(|reason| waits(reason)).sum();
        let told = said.told(key);
        let counts = traced.iter().map(|name| &said.trace["waits"][name]["count"]);
        let counts = counts.filter(|count| !count.is_null());
        let traced: i64 = counts.map(number_of).sum();
        findings.hold(ours + 1 + told / preempted >= told, || {
            format!("{key}: {ours}, not {told}, by the trace {traced}")
        });
        findings.hold((ours - traced).abs() <= UNTRACED + traced / 100, || {
            format!("{key}: {ours}, by the trace {traced}")
        });
    }
    let yields = said.sum("go.goroutine.preemptions", &[("go.goroutine.function", "main.yield")]);
    findings.near("yields", yields, said.told("yields"));
    let ended = said.sum("go.goroutine.ended", &[("go.goroutine.function", "main.takeLock")]);
    findings.same("ended", ended, said.told("mutex"));
    // Those that the runtime starts directly are not among them: its workers, and the trace's reader, which may spin unseen by the
    // trace while it ends.
    let starts = said.sum("go.goroutine.runnable.duration", &[]);
    // Nor those that found a P right at the end of a system call: nobody schedules them.
    let resumed = number_of(&said.trace["resumed"]);
    let theirs = number_of(&said.trace["starts"]) - resumed;
    println!("starts: {starts}, by the trace {theirs}, {resumed} more after a system call at once");
    findings.near("starts, by the trace", starts, theirs);
    let all = starts + said.sum("go.goroutine.runnable.unstamped", &[]);
    let sampled = said.told("sampled");
    findings.hold(all >= sampled, || {
        format!("{all} starts, but the runtime sampled {sampled}")
    });
}

/// Where the time of goroutines went, by the function they were started with, against the trace. All functions' together are within 1 %
/// of the whole, each one's within 5 %: a thread that loses its core between the trace's event and the probe moves some
/// milliseconds from one state to the next. In an emulator a trap takes 0.1 to 0.2 ms: of each wake-up that is
/// runnable for the trace, whose event is before the probe, and still the wait for us. And a core stands still in the others' turns, as
/// one thread emulates all.
fn times(said: &Said, findings: &mut Findings) {
    let (most, most_of_one) = if is_slow() { (0.06, 0.10) } else { (0.01, 0.05) };
    let (mut all_ours, mut all_theirs) = (Sums::new(), Sums::new());
    for function in LASTING {
        let (ours, theirs) = (our_sums(said, function), their_sums(said, function));
        findings.hold(!theirs.is_empty(), || format!("{function} is not in the trace"));
        let off_by = difference(&ours, &theirs);
        findings.hold(off_by <= most_of_one, || {
            format!("{function}: {ours:?}, not {theirs:?}")
        });
        add(&mut all_ours, &ours);
        add(&mut all_theirs, &theirs);
    }
    let off_by = difference(&all_ours, &all_theirs);
    findings.life.off_by = off_by;
    findings.hold(off_by <= most, || format!("all: {all_ours:?}, not {all_theirs:?}"));
}
