//! `whywait goroutines` against what the runtime itself prints of the same goroutines, and `whywait profile` against a program with known
//! shares.

#[path = "common/go_build.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod go_build;
#[path = "common/go_profile.rs"]
mod go_profile;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use go_build::{build, go};
use go_profile::{Running, raw};

/// Goroutines by their ids: state, then functions, places and who made it.
type Goroutines = BTreeMap<u64, Vec<String>>;

/// As runtime.Stack prints them. Arguments are left out, as only the runtime prints them.
fn parsed(text: &str) -> Goroutines {
    let mut goroutines = Goroutines::new();
    for paragraph in text.trim().split("\n\n") {
        let mut lines = paragraph.lines();
        let Some(head) = lines.next().and_then(|head| head.strip_prefix("goroutine ")) else {
            continue;
        };
        let (id, state) = head.split_once(' ').expect("an id and a state");
        let lines = lines.filter(|line| !line.starts_with('#')).map(|line| {
            if line.starts_with('\t') || line.starts_with("created by ") {
                return line.to_owned();
            }
            // The last group of parentheses, which may hold others.
            let mut depth = 0;
            let begin = line.char_indices().rev().find(|(_, letter)| {
                depth += i32::from(*letter == ')') - i32::from(*letter == '(');
                depth == 0
            });
            let function = &line[..begin.map_or(line.len(), |(at, _)| at)];
            // As the runtime writes it.
            let function = if function == "panic" {
                "runtime.gopanic"
            } else {
                function
            };
            function.to_owned()
        });
        let id = id.parse().expect("a number");
        goroutines.insert(id, std::iter::once(state.to_owned()).chain(lines).collect());
    }
    goroutines
}

/// The functions of a parsed goroutine.
fn functions(lines: &[String]) -> Vec<String> {
    let functions = lines[1..].iter().take_while(|line| !line.starts_with("created by "));
    let functions = functions.filter(|line| !line.starts_with('\t') && *line != "runtime.goexit");
    functions.cloned().collect()
}

/// Frames that runtime/pprof keeps of a goroutine's stack: until go1.22 those of a runtime.StackRecord.
fn profiled(toolchain: &str) -> usize {
    let minor = toolchain.strip_prefix("go1.").and_then(|rest| rest.split('.').next());
    match minor.and_then(|minor| minor.parse::<u32>().ok()) {
        Some(..23) => 32,
        _ => 128,
    }
}

#[test]
fn stacks_are_those_that_the_runtime_prints() {
    // Others can be named by hand, such as every one from go1.18.10 on.
    let toolchains = std::env::var("WHYWAIT_TEST_TOOLCHAINS");
    let toolchains = toolchains.unwrap_or_else(|_| "go1.18.10 go1.27.4 local".to_owned());
    for toolchain in toolchains.split_whitespace() {
        for (kind, flags) in [("", &[][..]), ("-s", &["-ldflags=-s -w"])] {
            let path = build(
                &format!("stacks-{toolchain}{kind}"),
                toolchain,
                flags,
                &[("CGO_ENABLED", "0")],
            );
            let profile = path.with_file_name("profile.pb.gz");
            let running = Running::start(&path, &[&profile.display().to_string()]);
            let (mut told, mut ours) = (parsed(&running.text), parsed(&running.dump(&[])));
            // It ran while it printed.
            for all in [&mut told, &mut ours] {
                assert!(all.remove(&1).is_some());
            }
            assert!(told.len() > 20, "{told:?}");
            assert_eq!(ours, told, "{toolchain}{kind}");

            let whole = parsed(&running.dump(&["--system"]));
            let most = profiled(toolchain);
            let mut stacks: BTreeMap<Vec<String>, i64> = BTreeMap::new();
            for id in ours.keys() {
                let mut stack = functions(&whole[id]);
                stack.truncate(most);
                *stacks.entry(stack).or_default() += 1;
            }
            let mut told = raw(&profile);
            told.retain(|stack, _| !stack.iter().any(|function| function.starts_with("runtime/pprof.")));
            assert_eq!(stacks, told, "{toolchain}{kind}");
        }
    }
}

/// Goroutines that run and grow their stacks all the time: each stack that is shown is one that such a goroutine can have.
#[test]
fn stacks_of_goroutines_that_run_are_whole_or_left_out() {
    let path = build("stacks-busy", "local", &[], &[("CGO_ENABLED", "0")]);
    let mut running = Running::start(&path, &["/dev/null"]);
    running
        .child
        .stdin
        .as_mut()
        .expect("its input")
        .write_all(b"\n")
        .expect("written");
    running.until("busy");
    let (mut shown, mut without) = (0, 0);
    for _ in 0..50 {
        for (id, lines) in parsed(&running.dump(&["--system"])) {
            if !lines.iter().any(|line| line.starts_with("created by main.main ")) {
                continue;
            }
            let functions = functions(&lines);
            if functions.is_empty() {
                without += 1;
                continue;
            }
            shown += 1;
            assert_eq!(
                functions.last().map(String::as_str),
                Some("main.busy"),
                "{id}: {lines:#?}"
            );
            let mut own = functions.iter().rev().skip(1);
            let deep = own.by_ref().take_while(|function| *function == "main.grows").count();
            assert!(
                deep <= 40 && own.all(|function| !function.starts_with("main.")),
                "{id}: {lines:#?}"
            );
        }
    }
    println!("{shown} stacks, {without} without");
    assert!(shown > 1000, "{shown} {without}");
}

#[test]
fn a_hundred_thousand_goroutines_take_little_memory() {
    const MOST: u64 = 96 << 10;
    let path = build("stacks-many", "local", &[], &[("CGO_ENABLED", "0")]);
    let running = Running::start(&path, &["/dev/null", "100000"]);
    let pid = running.child.id().to_string();
    for args in [&[][..], &["--grouped"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whywait"));
        let command = command
            .args(["goroutines", "--pid", &pid])
            .args(args)
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("whywait");
        let status = format!("/proc/{}/status", child.id());
        let (mut peak, mut goroutines, mut last, mut most) = (0, 0, String::new(), String::new());
        for line in BufReader::new(child.stdout.take().expect("its output")).lines() {
            let line = line.expect("a line");
            if line.starts_with("goroutine ") {
                goroutines += 1;
            }
            if line.contains(" @ ") && most.is_empty() {
                most.clone_from(&line);
            }
            if goroutines % 1000 == 1 || line.starts_with('#') {
                let status = std::fs::read_to_string(&status).unwrap_or_default();
                let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                peak = peak.max(line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().expect("kB")));
            }
            last = line;
        }
        assert!(child.wait().expect("whywait").success());
        println!("{peak} kB: {last}");
        assert!(peak < MOST, "{peak} kB");
        assert!(last.contains("100024 goroutines, 100024 with their stacks"), "{last}");
        match args {
            [] => assert_eq!(goroutines, 100_024),
            _ => assert!(most.starts_with("100006 @ "), "{most}"),
        }
    }
}

#[test]
fn what_has_no_goroutines_is_told_with_the_way_out() {
    let mut sleep = Command::new("sleep").arg("60").spawn().expect("sleep");
    let output = Command::new(env!("CARGO_BIN_EXE_whywait"))
        .args(["goroutines", "--pid", &sleep.id().to_string()])
        .output()
        .expect("whywait");
    let _ = (sleep.kill(), sleep.wait());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{error}");
    assert!(
        error.contains("is no Go program") && error.contains("whywait doctor"),
        "{error}"
    );
}

/// Shares, in percent, as `whywait profile` prints them: by function and state.
fn shares(text: &str) -> BTreeMap<(String, String), (f64, f64)> {
    let lines = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [share, "%", error, "%", _, state @ .., function] = &words[..] else {
            return None;
        };
        let key = ((*function).to_owned(), state.join(" "));
        Some((key, (share.parse().ok()?, error.parse().ok()?)))
    });
    lines.collect()
}

#[test]
fn shares_are_those_that_were_planted() {
    let path = build("planted", "local", &[], &[("CGO_ENABLED", "0")]);
    // All are seen at each look; some of many; and a table that is mostly of dead ones.
    for (hundreds, dead, seconds) in [("1", "0", "3"), ("100", "0", "5"), ("5", "20000", "5")] {
        let running = Running::start(&path, &[hundreds, dead]);
        let out = path.with_file_name(format!("wait-{hundreds}.pb.gz"));
        let file = out.display().to_string();
        let output = running.whywait(&["profile", "--seconds", seconds, "--limit-cpu", "30%", "--out", &file]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{text}");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let shares = shares(&text);
        let planted: f64 = hundreds.parse::<f64>().expect("a number") * 100.0;
        let mutex = shares.keys().find(|(function, _)| function == "main.locks").cloned();
        let (_, mutex) = mutex.expect("goroutines that wait for the mutex");
        assert!(["sync.Mutex.Lock", "semacquire"].contains(&mutex.as_str()), "{mutex}");
        for (function, state, percent) in [
            ("main.receives", "chan receive", 60.0),
            ("main.locks", &mutex, 30.0),
            ("main.sleeps", "sleep", 10.0),
        ] {
            let expected = percent * planted / (planted + 1.0);
            let (share, error) = shares[&(function.to_owned(), state.to_owned())];
            assert!(
                (share - expected).abs() < 2.0,
                "{function}: {share} ± {error}, not {expected}"
            );
            assert!(
                error < 2.0 && (share - expected).abs() <= 4.0 * error + 0.01,
                "{function}: {share} ± {error}"
            );
        }
        let top = go("local")
            .args(["tool", "pprof", "-top", "-cum"])
            .arg(&out)
            .output()
            .expect("pprof");
        let top = String::from_utf8_lossy(&top.stdout).into_owned() + &String::from_utf8_lossy(&top.stderr);
        assert!(top.contains("main.receives") && top.contains("Type: wall"), "{top}");
        // Numbers of goroutines.
        let stacks = raw(&out);
        let receives = stacks
            .iter()
            .filter(|(stack, _)| stack.contains(&"main.receives".to_owned()));
        let receives: i64 = receives.map(|(_, count)| count).sum();
        assert!(
            (receives as f64 / (0.6 * planted) - 1.0).abs() < 0.05,
            "{receives} {stacks:?}"
        );
        let svg = std::fs::read_to_string(out.with_file_name(format!("wait-{hundreds}.svg"))).expect("a picture");
        assert!(svg.contains("<title>main.receives (") && svg.contains("<title>[chan receive] ("));
    }
}
