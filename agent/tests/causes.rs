//! Planted causes: where a goroutine's time goes, and who is to blame, is told apart.

mod common;

use std::{collections::HashMap, process::Command, thread, time::Duration};

use common::{
    Agent, Output, Service, attribute, clocks, is_slow, number_of, privileged,
    quota::{Account, Of, Quota, pin},
    shop, to_mono,
};
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
fn compute(shop: &Service) {
    for _ in 0..4 {
        shop.get("/spin?ms=40&n=6");
    }
}

fn spin(shop: &Service) -> HashMap<(String, String), i64> {
    let agent = watch(shop);
    compute(shop);
    let times = times(&agent.stop(), "main.spin.func");
    println!("{times:?}");
    times
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

/// The kernel's own accounts of the cgroups: all that is seen became of them between the agent's first look, which lies between
/// the first two, and its last one, which lies between the last two.
fn check_accounts(output: &Output, accounts: &[Vec<Account>; 4]) {
    let of_all = |name: &str| output.points("go-shop", name);
    let mut throttled = Vec::new();
    for (at, account) in accounts[0].iter().enumerate() {
        let found = |name: &str| {
            let mut points = of_all(name).into_iter();
            let of = points.find(|point| attribute(point, "whywait.cgroup.path") == Some(account.path.clone().into()));
            of.unwrap_or_else(|| panic!("no {name} of {}", account.path))
        };
        assert_eq!(found("whywait.cgroup.cpu.quota")["asDouble"], account.quota);
        let count = |name: &str| number_of(&found(name)["asInt"]) as u64;
        let time = found("whywait.cgroup.cpu.throttled.time")["asDouble"].as_f64().unwrap() * 1e9;
        let seen = [
            count("whywait.cgroup.cpu.periods"),
            count("whywait.cgroup.cpu.throttled.periods"),
            time.round() as u64,
        ];
        let [began, watched, ending, ended] = accounts.each_ref().map(|accounts| accounts[at].stat);
        let bounds = [0, 1, 2].map(|what| (ending[what] - watched[what], ended[what] - began[what]));
        println!("{}: cpu.stat {bounds:?}, seen {seen:?}", account.path);
        for (seen, (least, most)) in seen.into_iter().zip(bounds) {
            assert!((least..=most).contains(&seen), "{seen} {least} {most}");
        }
        throttled.push(bounds[1].0);
    }
    // One that is not used up may be reached a few times where the machine keeps the service from its core.
    let is_used_up = throttled[0] > 3 && throttled[1..].iter().all(|others| 4 * others < throttled[0]);
    assert!(is_used_up, "the kernel throttled them {throttled:?} times");
    let quotas = of_all("whywait.cgroup.cpu.quota");
    assert_eq!(quotas.len(), accounts[0].len(), "{quotas:?}");
}

/// Whatever was throttled, and nothing else, names the cgroup that did it.
fn check_throttled_are_named(output: &Output, path: &str) {
    let (mut points, mut spans) = (0, 0);
    for point in output.points("go-shop", "go.goroutine.time") {
        let throttled = attribute(&point, "go.goroutine.cause") == Some("throttled".into());
        points += usize::from(throttled);
        let expected = throttled.then(|| path.into());
        assert_eq!(attribute(&point, "whywait.cgroup.path"), expected, "{point}");
    }
    for span in output.spans("go-shop") {
        let Some(time) = attribute(&span, "go.goroutine.runnable.throttled_ns") else {
            continue;
        };
        let throttled = number_of(&time) > 0;
        spans += usize::from(throttled);
        let expected = throttled.then(|| path.into());
        assert_eq!(attribute(&span, "whywait.cgroup.path"), expected, "{span}");
    }
    println!("throttled: {points} points, {spans} spans, all by {path}");
    assert!(points > 0 && spans > 0, "{points} points, {spans} spans");
}

fn check_quota(of: Of) {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[("GOMAXPROCS", "1")]);
    let Some(quota) = Quota::new(shop.pid(), of) else {
        return;
    };
    let began = quota.accounts();
    let agent = watch(&shop);
    let watched = quota.accounts();
    compute(&shop);
    let ending = quota.accounts();
    let output = agent.stop();
    let ended = quota.accounts();
    let times = times(&output, "main.spin.func");
    println!("{times:?}");
    check_accounts(&output, &[began, watched, ending, ended]);
    check_throttled_are_named(&output, &quota.path());
    let all = ["running", "runnable"];
    let (throttled, run_queue) = (share(&times, &all, &["throttled"]), share(&times, &all, &["run_queue"]));
    println!("throttled {throttled:.3}, run queue {run_queue:.3}");
    // It computes for 20 ms of every 100; those that share its quota share the cores as well.
    let most = if of == Of::Shared { throttled } else { throttled / 2.0 };
    // An emulated machine shares its cores with others: more of the time is theirs.
    let least = if is_slow() { 0.35 } else { 0.5 };
    assert!(
        throttled > least && run_queue < most,
        "{throttled} {run_queue}: {times:?}"
    );
}

#[test]
fn a_cgroups_quota_is_told_from_a_busy_core() {
    check_quota(Of::Own);
}

#[test]
fn a_quota_of_the_cgroup_above_is_told_as_its() {
    check_quota(Of::Above);
}

#[test]
fn of_two_quotas_the_one_that_is_used_up_is_told() {
    check_quota(Of::Shared);
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
        assert_eq!(waker, "main.holdInventory");
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
