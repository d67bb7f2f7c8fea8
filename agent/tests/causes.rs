//! Planted causes: where a goroutine's time goes, and who is to blame, is told apart.

mod common;

use std::{collections::HashMap, fs, path::PathBuf, process::Command, thread, time::Duration};

use common::{Agent, Output, Service, attribute, clocks, number_of, privileged, shop, to_mono};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

/// Time of goroutines that were started with a function, ns, by state and cause, or wait reason.
fn times(output: &Output, function: &str) -> HashMap<(String, String), i64> {
    let text = |point: &Value, key| attribute(point, key).and_then(|value| Some(value.as_str()?.to_owned()));
    let mut times = HashMap::new();
    for point in output.points("go-shop", "go.goroutine.time") {
        if !text(&point, "go.goroutine.function").is_some_and(|name| name.starts_with(function)) {
            continue;
        }
        let cause = text(&point, "go.goroutine.cause").or_else(|| text(&point, "go.goroutine.wait_reason"));
        let key = (text(&point, "go.goroutine.state").unwrap(), cause.unwrap());
        *times.entry(key).or_default() += number_of(&point["asInt"]);
    }
    times
}

/// The share that causes have of the time in states.
fn share(times: &HashMap<(String, String), i64>, states: &[&str], causes: &[&str]) -> f64 {
    let of_states = |causes: &dyn Fn(&str) -> bool| -> i64 {
        let found = times
            .iter()
            .filter(|((state, cause), _)| states.contains(&state.as_str()) && causes(cause));
        found.map(|(_, time)| time).sum()
    };
    of_states(&|cause| causes.contains(&cause)) as f64 / of_states(&|_| true) as f64
}

fn watch(shop: &Service) -> Agent {
    Agent::run(&["--pid", &shop.pid().to_string(), "--metric-interval", "1s"], 1)
}

/// Six goroutines compute on the only P there is: the others wait for it, and for nothing else.
fn spin(shop: &Service) -> HashMap<(String, String), i64> {
    let agent = watch(shop);
    for _ in 0..4 {
        shop.get("/spin?ms=40&n=6");
    }
    let output = agent.stop();
    let times = times(&output, "main.spin.func");
    println!("{times:?}");
    times
}

/// Runs on the first core only, and what it starts as well.
fn pin() {
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(None, &first).unwrap();
}

#[test]
fn goroutines_wait_for_a_p_and_it_is_said() {
    if !privileged() {
        return;
    }
    let times = spin(&shop(None, &[("GOMAXPROCS", "1")]));
    let no_processor = share(&times, &["runnable"], &["no_processor"]);
    assert!(no_processor > 0.6, "{no_processor}: {times:?}");
}

/// A process that computes all the time beside the service, on the same core: half of the time is its.
#[test]
fn a_hog_on_the_same_core_is_told_from_a_missing_p() {
    if !privileged() {
        return;
    }
    // Of this thread, which starts both.
    let (alone, beside) = thread::spawn(|| {
        pin();
        let shop = shop(None, &[("GOMAXPROCS", "1")]);
        let alone = spin(&shop);
        let mut hog = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let beside = spin(&shop);
        hog.kill().unwrap();
        hog.wait().unwrap();
        (alone, beside)
    })
    .join()
    .unwrap();
    for states in [&["running"][..], &["runnable"], &["running", "runnable"]] {
        let (before, with) = (
            share(&alone, states, &["run_queue"]),
            share(&beside, states, &["run_queue"]),
        );
        println!("{states:?}: run queue {before:.3}, with the hog {with:.3}");
        assert!(with > 0.25 && with > 2.0 * before, "{states:?}: {before} → {with}");
    }
}

/// A cgroup that may use a fifth of a core, and a process in it.
struct Quota {
    folder: PathBuf,
    unified: bool,
}

impl Quota {
    fn of(pid: u32) -> Self {
        let name = format!("whywait-test-{pid}");
        let first = PathBuf::from("/sys/fs/cgroup/cpu");
        let unified = !first.exists();
        let folder = if unified {
            PathBuf::from("/sys/fs/cgroup")
        } else {
            first
        }
        .join(name);
        if unified {
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu");
        }
        fs::create_dir(&folder).unwrap();
        let quota = Self { folder, unified };
        if unified {
            quota.write("cpu.max", "20000 100000");
        } else {
            quota.write("cpu.cfs_period_us", "100000");
            quota.write("cpu.cfs_quota_us", "20000");
        }
        quota.write("cgroup.procs", &pid.to_string());
        quota
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.join(file), text).unwrap();
    }

    /// How often the kernel throttled it.
    fn throttled(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join("cpu.stat")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.unwrap().parse().unwrap()
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let parent = self.folder.parent().unwrap().join("cgroup.procs");
        for pid in fs::read_to_string(self.folder.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            let _ = fs::write(&parent, pid);
        }
        if fs::remove_dir(&self.folder).is_err() {
            eprintln!("{} is left (unified: {})", self.folder.display(), self.unified);
        }
    }
}

#[test]
fn a_cgroups_quota_is_told_from_a_busy_core() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GOMAXPROCS", "1")]);
    let quota = Quota::of(shop.pid());
    let times = spin(&shop);
    assert!(
        quota.throttled() > 3,
        "the kernel throttled it {} times",
        quota.throttled()
    );
    let all = ["running", "runnable"];
    let (throttled, run_queue) = (share(&times, &all, &["throttled"]), share(&times, &all, &["run_queue"]));
    // It computes for 20 ms of every 100.
    assert!(
        throttled > 0.5 && run_queue < throttled / 2.0,
        "{throttled} {run_queue}: {times:?}"
    );
}

/// A handler waits 30 ms for a mutex that a goroutine of its own holds: what for, how long, and who let it go.
#[test]
fn a_wait_for_a_mutex_names_who_held_it() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[]);
    let agent = watch(&shop);
    let mut planted = Vec::new();
    for _ in 0..3 {
        planted.push(serde_json::from_str::<Value>(&shop.get("/slow-lock?ms=30")).unwrap());
    }
    thread::sleep(Duration::from_millis(200));
    let (mono, wall) = clocks();
    let output = agent.stop();
    let spans = output.spans("go-shop");
    let waits: Vec<&Value> = spans
        .iter()
        .filter(|span| attribute(span, "go.goroutine.wait_reason") == Some("sync.Mutex.Lock".into()))
        .collect();
    assert_eq!(waits.len(), planted.len(), "{spans:#?}");
    for (wait, planted) in waits.iter().zip(&planted) {
        let time = |key: &str| to_mono(&wait[key], mono, wall);
        let (begin, end) = (number_of(&planted["begin_ns"]), number_of(&planted["end_ns"]));
        // Within what the handler measured, and all but a little of it.
        assert!(
            time("startTimeUnixNano") >= begin - 1_000_000 && time("endTimeUnixNano") <= end + 1_000_000,
            "{wait} {planted}"
        );
        assert!(
            time("endTimeUnixNano") - time("startTimeUnixNano") > number_of(&planted["wait_ns"]) - 2_000_000,
            "{wait} {planted}"
        );
        let waker = attribute(wait, "go.goroutine.waker.function").unwrap();
        assert!(waker.as_str().unwrap().starts_with("main.slowLock"), "{waker}");
        // Its two parts are the whole.
        let mut parts: Vec<&Value> = spans
            .iter()
            .filter(|span| span["parentSpanId"] == wait["spanId"])
            .collect();
        parts.sort_by_key(|part| number_of(&part["startTimeUnixNano"]));
        let [waited, runnable] = parts[..] else {
            panic!("{parts:?}");
        };
        assert_eq!(waited["name"], "sync.Mutex.Lock");
        assert_eq!(waited["startTimeUnixNano"], wait["startTimeUnixNano"]);
        assert_eq!(waited["endTimeUnixNano"], runnable["startTimeUnixNano"]);
        assert_eq!(runnable["endTimeUnixNano"], wait["endTimeUnixNano"]);
    }
}
