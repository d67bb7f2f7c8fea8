//! Go's figures against the runtime's own account: runtime/metrics inside the process, and gctrace.

mod common;

use std::{collections::HashMap, process::Command};

use common::{Agent, Service, attribute, load, number_of, privileged, shop};
use serde_json::Value;

fn metric<'a>(account: &'a Value, name: &str) -> &'a Value {
    &account["metrics"][name]
}

fn counts(histogram: &Value) -> Vec<i64> {
    common::list(&histogram["counts"]).map(number_of).collect()
}

/// Each of our counts lies between the oracle's two readings, and the finite bounds are the runtime's.
fn check_histogram(point: &Value, before: &Value, after: &Value, what: &str) {
    let ours: Vec<i64> = common::list(&point["bucketCounts"]).map(number_of).collect();
    let (before_counts, after_counts) = (counts(before), counts(after));
    assert_eq!(ours.len(), before_counts.len(), "{what}: number of buckets");
    for (index, count) in ours.iter().enumerate() {
        let range = before_counts[index]..=after_counts[index];
        assert!(
            range.contains(count),
            "{what}: bucket {index} has {count}, the runtime {range:?}"
        );
    }
    let bounds: Vec<f64> = common::list(&point["explicitBounds"])
        .filter_map(Value::as_f64)
        .collect();
    let theirs: Vec<f64> = common::list(&before["buckets"]).filter_map(Value::as_f64).collect();
    assert_eq!(bounds.len(), theirs.len(), "{what}: number of finite bounds");
    for (ours, theirs) in bounds.iter().zip(&theirs) {
        assert!(
            (ours - theirs).abs() <= theirs.abs() * 1e-12,
            "{what}: bound {ours}, the runtime's {theirs}"
        );
    }
}

fn histogram_point(points: &[Value], attributes: &[(&str, &str)]) -> Value {
    let matches = |point: &&Value| {
        attributes
            .iter()
            .all(|(key, value)| attribute(point, key) == Some(Value::from(*value)))
    };
    points
        .iter()
        .find(matches)
        .cloned()
        .unwrap_or_else(|| panic!("no point with {attributes:?}"))
}

#[test]
fn the_runtimes_histograms_come_out_bucket_for_bucket() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[]);
    load(&[shop.url("/item?id={n}"), shop.url("/gc")], 200, 2, 4);
    let before = shop.oracle();
    let output = Agent::run(&["--pid", &shop.pid().to_string(), "--metric-interval", "1s"], 1).stop();
    let after = shop.oracle();
    assert!(output.status.success(), "{}", output.said);
    let latencies = "/sched/latencies:seconds";
    let points = output.points("go-shop", "go.schedule.duration");
    check_histogram(
        &points[0],
        metric(&before, latencies),
        metric(&after, latencies),
        latencies,
    );
    let pauses = output.points("go-shop", "go.memory.gc.pause.duration");
    for (name, phase, kind) in [
        ("/sched/pauses/total/gc:seconds", "total", "gc"),
        ("/sched/pauses/stopping/gc:seconds", "stopping", "gc"),
        ("/sched/pauses/total/other:seconds", "total", "other"),
        ("/sched/pauses/stopping/other:seconds", "stopping", "other"),
    ] {
        let point = histogram_point(&pauses, &[("go.gc.pause.phase", phase), ("go.gc.pause.kind", kind)]);
        check_histogram(&point, metric(&before, name), metric(&after, name), name);
    }
    for (name, theirs) in [
        ("go.processor.limit", "/sched/gomaxprocs:threads"),
        ("go.config.gogc", "/gc/gogc:percent"),
    ] {
        let ours = number_of(&output.points("go-shop", name)[0]["asInt"]);
        assert_eq!(ours, number_of(metric(&after, theirs)), "{name}");
    }
    for (name, theirs) in [
        ("go.memory.allocated", "/gc/heap/allocs:bytes"),
        ("go.memory.allocations", "/gc/heap/allocs:objects"),
        ("go.goroutine.created", "/sched/goroutines-created:goroutines"),
    ] {
        let ours = number_of(&output.points("go-shop", name)[0]["asInt"]);
        let range = number_of(metric(&before, theirs))..=number_of(metric(&after, theirs));
        assert!(range.contains(&ours), "{name} is {ours}, the runtime's {range:?}");
    }
    // The scavenger works on its own; not much of an idle service's heap changes hands meanwhile.
    let released = number_of(&output.points("go-shop", "go.memory.released")[0]["asInt"]);
    let theirs = [&before, &after].map(|account| number_of(metric(account, "/memory/classes/heap/released:bytes")));
    let near = |ours: i64| theirs.iter().any(|theirs| (ours - theirs).abs() < 1 << 20);
    assert!(
        released > 0 && near(released),
        "{released} released, the runtime's {theirs:?}"
    );
    let times = output.points("go-shop", "go.cpu.time");
    assert_eq!(times.len(), 8);
    for point in times {
        let class = attribute(&point, "go.cpu.detailed_state").unwrap();
        let theirs = format!("/cpu/classes/{}:cpu-seconds", class.as_str().unwrap());
        let [before, ours, after] = [metric(&before, &theirs), &point["asDouble"], metric(&after, &theirs)]
            .map(|seconds| seconds.as_f64().unwrap());
        assert!(
            (before..=after).contains(&ours),
            "{class} is {ours}, the runtime's {before} to {after}"
        );
    }
}

#[test]
fn every_gc_cycle_is_a_trace_and_none_twice() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[]);
    shop.get("/gc");
    // Of that many a second only some would be traced by default.
    let pid = shop.pid().to_string();
    let agent = Agent::run(&["--pid", &pid, "--max-spans", "100000"], 1);
    let before = shop.oracle();
    let first = number_of(metric(&before, "/gc/cycles/total:gc-cycles"));
    // A minute in a run before a release; CI has less time.
    let seconds = std::env::var("WHYWAIT_TEST_GC_SECONDS").map_or(8, |seconds| seconds.parse().unwrap());
    load(
        &[
            format!("8:{}", shop.url("/item?id={n}")),
            format!("1:{}", shop.url("/gc")),
        ],
        300,
        seconds,
        4,
    );
    shop.get("/alloc?mb=64");
    let after = shop.oracle();
    let last = number_of(metric(&after, "/gc/cycles/total:gc-cycles"));
    let output = agent.stop();
    let spans = output.spans("go-shop");
    let cycles: Vec<&Value> = spans.iter().filter(|span| span["name"] == "go.gc.cycle").collect();
    let number = |span: &Value| {
        attribute(span, "go.gc.cycle.number")
            .and_then(|number| number.as_i64())
            .unwrap()
    };
    let mut numbers: Vec<i64> = cycles
        .iter()
        .map(|span| number(span))
        .filter(|n| (first + 1..=last).contains(n))
        .collect();
    numbers.sort_unstable();
    let expected: Vec<i64> = (first + 1..=last).collect();
    assert!(expected.len() > 50, "the load made {} cycles", expected.len());
    assert_eq!(numbers, expected, "cycles traced and cycles of the runtime");
    println!("{} cycles in {seconds} s, all traced", numbers.len());
    check_pauses(&spans, first + 1..=last, &before, &after);
    let mut children: HashMap<String, Vec<&Value>> = HashMap::new();
    for span in &spans {
        if let Some(parent) = span["parentSpanId"].as_str().filter(|parent| !parent.is_empty()) {
            children.entry(parent.to_owned()).or_default().push(span);
        }
    }
    let time = |span: &Value, key: &str| number_of(&span[key]);
    let mut forced = 0;
    for cycle in &cycles {
        let parts = &children[cycle["spanId"].as_str().unwrap()];
        let names: Vec<&str> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "go.gc.stw.sweep_termination",
                "go.gc.mark",
                "go.gc.stw.mark_termination"
            ]
        );
        assert_eq!(time(parts[0], "startTimeUnixNano"), time(cycle, "startTimeUnixNano"));
        assert_eq!(time(parts[0], "endTimeUnixNano"), time(parts[1], "startTimeUnixNano"));
        assert_eq!(time(parts[1], "endTimeUnixNano"), time(parts[2], "startTimeUnixNano"));
        assert_eq!(time(parts[2], "endTimeUnixNano"), time(cycle, "endTimeUnixNano"));
        forced += i64::from(attribute(cycle, "go.gc.forced") == Some(true.into()));
    }
    assert!(
        forced > 0 && (forced as usize) < cycles.len(),
        "{forced} of {} cycles forced",
        cycles.len()
    );
}

/// Each stopped phase of `cycles` lies in the bucket in which the runtime counted it. The runtime's pause begins a moment
/// later than the phase: the phase's time is taken, then the world is told to stop (go1.26, runtime/mgc.go, gcStart and
/// gcMarkDone: tSweepTerm and tMarkTerm before stopTheWorldWithSema, whose startedStopping begins the pause).
fn check_pauses(spans: &[Value], cycles: std::ops::RangeInclusive<i64>, before: &Value, after: &Value) {
    // An emulated machine takes longer for it.
    let moment = if common::is_slow() { 200_000 } else { 20_000 };
    let pauses = "/sched/pauses/total/gc:seconds";
    let bounds: Vec<f64> = common::list(&metric(after, pauses)["buckets"])
        .filter_map(Value::as_f64)
        .collect();
    let between = counts(metric(after, pauses))
        .into_iter()
        .zip(counts(metric(before, pauses)));
    let mut theirs: Vec<usize> = between
        .enumerate()
        .flat_map(|(bucket, (after, before))| vec![bucket; (after - before) as usize])
        .collect();
    theirs.sort_unstable();
    let of_cycles = |span: &&Value| {
        let number = attribute(span, "go.gc.cycle.number").and_then(|number| number.as_i64());
        span["name"].as_str().unwrap().starts_with("go.gc.stw.")
            && number.is_some_and(|number| cycles.contains(&number))
    };
    let mut ours: Vec<i64> = spans
        .iter()
        .filter(of_cycles)
        .map(|span| number_of(&span["endTimeUnixNano"]) - number_of(&span["startTimeUnixNano"]))
        .collect();
    ours.sort_unstable();
    // Mark termination that finds more to mark starts the world again, and stops it once more: a pause without a phase.
    let again = theirs.len() - ours.len();
    println!("{} stopped phases, {again} pauses besides", ours.len());
    assert!(
        again * 50 <= ours.len(),
        "{} phases, {} pauses",
        ours.len(),
        theirs.len()
    );
    let bucket = |nanos: i64| bounds.partition_point(|bound| *bound <= nanos as f64 / 1e9);
    let mut exact = 0;
    for (index, nanos) in ours.iter().enumerate() {
        // In order of length ours is theirs, or as many places before as there are pauses besides.
        let candidates = &theirs[index..=index + again];
        exact += usize::from(candidates.contains(&bucket(*nanos)));
        let (low, high) = (bucket(nanos - moment), bucket(*nanos));
        assert!(
            candidates.iter().any(|their| (low..=high).contains(their)),
            "a phase of {nanos} ns is none of the pauses in buckets {candidates:?}, {low}..={high} wanted"
        );
    }
    println!(
        "{exact} of {} in the very bucket, the others {moment} ns away from it at most",
        ours.len()
    );
    assert!(exact * 4 >= ours.len() * 3, "{exact} of {}", ours.len());
}

#[test]
fn cycles_are_gctraces_to_its_precision() {
    if !privileged() {
        return;
    }
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(common::demo("go-shop"));
    command.args(["-listen", "127.0.0.1:0"]).env("GODEBUG", "gctrace=1");
    let shop = Service::of(command.stderr(trace.reopen().unwrap()));
    let agent = Agent::run(&["--pid", &shop.pid().to_string()], 1);
    load(&[shop.url("/item?id={n}"), shop.url("/gc")], 200, 3, 4);
    let output = agent.stop();
    let text = std::fs::read_to_string(trace.path()).unwrap();
    let spans = output.spans("go-shop");
    let mut compared = 0;
    for line in text.lines() {
        let Some(theirs) = Gctrace::parse(line) else { continue };
        let of_cycle = |name: &str| {
            spans.iter().find(|span| {
                span["name"] == name && attribute(span, "go.gc.cycle.number") == Some(theirs.number.into())
            })
        };
        let Some(cycle) = of_cycle("go.gc.cycle") else { continue };
        let phases = [
            "go.gc.stw.sweep_termination",
            "go.gc.mark",
            "go.gc.stw.mark_termination",
        ];
        for (name, printed) in phases.into_iter().zip(&theirs.clock_ms) {
            let span = of_cycle(name).unwrap();
            let ours = (number_of(&span["endTimeUnixNano"]) - number_of(&span["startTimeUnixNano"])) as f64 / 1e6;
            // gctrace prints two significant digits but none below a microsecond, whole milliseconds from 10 ms on, and cuts off the rest.
            let precision = if ours >= 10.0 {
                1.0
            } else {
                10f64.powf(ours.max(1e-6).log10().floor() - 1.0).max(0.001)
            };
            assert!(
                (ours - printed).abs() <= precision * 1.01,
                "{name} is {ours} ms; {line}"
            );
        }
        let heap = [
            "go.gc.heap.before_bytes",
            "go.gc.heap.after_bytes",
            "go.gc.heap.live_bytes",
            "go.gc.heap.goal_bytes",
        ];
        let ours = heap.map(|key| attribute(cycle, key).unwrap().as_i64().unwrap() >> 20);
        assert_eq!(ours, theirs.heap_mb, "{line}");
        assert_eq!(
            attribute(cycle, "go.gc.forced"),
            Some(line.ends_with("(forced)").into()),
            "{line}"
        );
        compared += 1;
    }
    assert!(compared > 20, "{compared} cycles compared with gctrace");
}

/// A line such as `gc 12 @1.2s 3%: 0.02+0.4+0.03 ms clock, … ms cpu, 4->4->1 MB, 4 MB goal, …`.
struct Gctrace {
    number: i64,
    clock_ms: Vec<f64>,
    heap_mb: [i64; 4],
}

impl Gctrace {
    fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("gc ")?;
        let number = rest.split(' ').next()?.parse().ok()?;
        let clock = rest.split(": ").nth(1)?.split(" ms clock").next()?;
        let clock_ms = clock
            .split('+')
            .map(|part| part.parse().ok())
            .collect::<Option<Vec<f64>>>()?;
        let heap = rest.split(" ms cpu, ").nth(1)?.split(" MB").next()?;
        let heap: Vec<i64> = heap.split("->").map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let goal = rest.split(" MB, ").nth(1)?.split(' ').next()?.parse().ok()?;
        Some(Self {
            number,
            clock_ms,
            heap_mb: [*heap.first()?, *heap.get(1)?, *heap.get(2)?, goal],
        })
    }
}
