//! A recording replayed without the target, and without privilege, gives the spans that were made live.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use common::{Agent, Output, attribute, clocks, load, number_of, privileged, shop, stock};
use serde_json::Value;

/// What a span says, but for ids, which are random, and when it began, which goes by the wall clock.
fn said(span: &Value) -> String {
    let [start, end] = ["startTimeUnixNano", "endTimeUnixNano"].map(|key| number_of(&span[key]));
    let root = span.get("parentSpanId").is_none_or(|parent| parent == "");
    format!(
        "{} {} {} root {root} {}",
        span["name"],
        span["kind"],
        end - start,
        span["attributes"]
    )
}

fn spans(output: &Output, service: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for span in output.spans(service) {
        *counts.entry(said(&span)).or_default() += 1;
    }
    counts
}

/// Says no more than what differs.
#[track_caller]
fn check_same(service: &str, ours: &BTreeMap<String, usize>, theirs: &BTreeMap<String, usize>) {
    let spans: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let differ = spans.into_iter().filter(|span| ours.get(*span) != theirs.get(*span));
    let said: Vec<String> = differ
        .map(|span| format!("{:?} live, {:?} replayed: {span}", ours.get(span), theirs.get(span)))
        .collect();
    let first = said.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(said.is_empty(), "{service}: {} spans differ\n{first}", said.len());
}

#[test]
fn a_replay_gives_the_spans_of_the_run() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("case.rec");
    let stock = stock(false);
    let shop = shop(Some(&stock), &[]);
    let pids = format!("{},{}", shop.pid(), stock.pid());
    // Everything is a span.
    let zero = [
        "--slow-wait",
        "0s",
        "--slow-poll",
        "0s",
        "--slow-request",
        "0s",
        "--max-spans",
        "100000",
    ];
    let args = [&["--pid", &pids], &zero[..]].concat();
    let before = clocks();
    let agent = Agent::record(&file, &args, 2);
    load(
        &[shop.url("/item?id={n}"), shop.url("/gc"), stock.url("/block")],
        50,
        3,
        2,
    );
    let live = agent.stop();
    let after = clocks();
    assert!(live.status.success(), "{}", live.said);
    let replayed = Agent::replay(&file);
    assert!(replayed.status.success(), "{}", replayed.said);
    for (service, wanted) in [
        ("go-shop", &["runnable ", "go.gc.cycle", "serve :", "request "][..]),
        ("rust-stock", &["poll ", "serve :"]),
    ] {
        let (ours, theirs) = (spans(&live, service), spans(&replayed, service));
        println!("{service}: {} different spans", ours.len());
        for name in wanted {
            assert!(
                ours.keys().any(|span| span.starts_with(&format!("\"{name}"))),
                "{service}: no {name}"
            );
        }
        check_same(service, &ours, &theirs);
    }
    // The wall time of the first span is what it was.
    let begin = |output: &Output| {
        output
            .spans("go-shop")
            .iter()
            .map(|span| number_of(&span["startTimeUnixNano"]))
            .min()
    };
    let apart = (begin(&live).unwrap() - begin(&replayed).unwrap()).abs();
    // A run follows the wall clock; a recording has what that was when it began.
    let set = ((after.1 - after.0) - (before.1 - before.0)).abs();
    assert!(
        apart < 1_000_000 + set,
        "{apart} ns apart, the wall clock was set by {set} ns"
    );
    let resource = |output: &Output| {
        let resource = &output.traces[0]["resourceSpans"][0]["resource"];
        ["service.name", "process.pid", "process.runtime.name"].map(|key| attribute(resource, key))
    };
    assert!(
        resource(&replayed).iter().all(Option::is_some),
        "{:?}",
        resource(&replayed)
    );
    check_damaged(&file, &folder.path().join("cut.rec"));
}

/// What is there of a recording that was cut off is replayed, and the end is missed. Of two neighbouring places one at the most
/// is between records.
fn check_damaged(whole: &Path, cut: &Path) {
    let bytes = fs::read(whole).unwrap();
    let within = |end: &usize| {
        fs::write(cut, &bytes[..*end]).unwrap();
        let output = Agent::replay(cut);
        assert!(!output.spans("go-shop").is_empty());
        let within = output.said.contains("within a record");
        assert!(
            within || output.said.contains("was not closed normally"),
            "{}",
            output.said
        );
        assert_eq!(
            output.status.code(),
            Some(if within { 7 } else { 0 }),
            "{}",
            output.said
        );
        within
    };
    let half = bytes.len() / 2;
    assert!([half, half + 1].iter().any(within));
    let other = Agent::replay(Path::new("/proc/self/exe"));
    assert_eq!(other.status.code(), Some(2), "{}", other.said);
    assert!(other.said.contains("is not a recording of whywait"), "{}", other.said);
}
