//! `whywait profile`: where the goroutines of a process spend wall time, by stack. Looks at a random part of them many times a second,
//! out of the process' memory, and writes a pprof file and a flame graph.

mod flame;
mod pprof;
mod sum;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::mpsc::SyncSender,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use self::sum::{Key, Sums};
use super::{
    goroutines::{is_own, start, state_of},
    stacks::{self, GoProcess},
};
use crate::{
    cli::ProfileArgs,
    exit::{Exit, Fatal},
    inspect::Frame,
    looks::cpu_time,
    runtime::go::{Category, Goroutine, LookSize, Places, State},
    say,
};
use anyhow::Context as _;

/// Looks a second below which a look sees fewer goroutines instead.
const SLOWEST: f64 = 20.0;
/// Rows of the table.
const ROWS: usize = 20;

/// What was seen, and what it took.
struct Seen {
    sums: Sums,
    looks: u64,
    goroutines: u64,
    entries: u64,
    elapsed: Duration,
    cpu: Duration,
    /// Why it ended early.
    error: Option<std::io::Error>,
    reasons: Vec<String>,
    places: Places,
    started: SystemTime,
    exe: PathBuf,
}

enum Found {
    Look,
    End(Box<Seen>),
}

/// Looks, writes both files, and prints the largest shares.
pub fn run(args: &ProfileArgs) -> anyhow::Result<Exit> {
    let flame_path = beside(&args.out);
    // A file that cannot be written is reported now, not in half a minute.
    for path in [&args.out, &flame_path] {
        fs::File::create(path)
            .map_err(|error| Fatal::new(Exit::Undelivered, format!("cannot write {}: {error}", path.display())))?;
    }
    let process = GoProcess::open(args.pid)?;
    let limits = Limits {
        time: Duration::from_secs(args.seconds),
        rate: f64::from(args.rate),
        cpu: args.limit_cpu.0.unwrap_or(1.0),
        system: args.system,
    };
    let findings = stacks::begin(args.pid, move |send: &SyncSender<Found>| {
        let seen = look(process, &limits, send);
        let _ = send.send(Found::End(Box::new(seen)));
    })?;
    let seen = loop {
        match findings.next(Duration::from_secs(2))? {
            Some(Found::Look) => {}
            Some(Found::End(seen)) => break *seen,
            None => {
                return Err(Fatal::new(
                    Exit::Failed,
                    "the thread that reads stacks ended early: please report it",
                )
                .into());
            }
        }
    };
    finish(seen, args, &flame_path)
}

/// What a profile may take.
struct Limits {
    time: Duration,
    /// Looks a second, at most.
    rate: f64,
    /// Share of a core.
    cpu: f64,
    system: bool,
}

fn look(process: GoProcess, limits: &Limits, send: &SyncSender<Found>) -> Seen {
    let GoProcess {
        runtime,
        mut unwinder,
        mut places,
        process,
        ..
    } = process;
    let mut random = fastrand::Rng::new();
    let (mut sums, mut size) = (Sums::default(), LookSize::default());
    let (mut looks, mut goroutines, mut entries, mut error) = (0, 0, 0, None);
    let (begin, cpu_before, started) = (Instant::now(), cpu_time(), SystemTime::now());
    let mut last = begin;
    let mut own = HashMap::new();
    while begin.elapsed() < limits.time {
        // At random times: a service does things at regular ones.
        let period = Duration::from_secs_f64(1.0 / limits.rate).mul_f64(0.5 + random.f64());
        let used = cpu_time().saturating_sub(cpu_before);
        let debt = used.div_f64(limits.cpu).saturating_sub(begin.elapsed());
        let end = limits.time.saturating_sub(begin.elapsed());
        thread::sleep(period.max(debt).min(end));
        let before = cpu_time();
        let mut seen = Vec::new();
        let looked = runtime.some_stacks(size.entries(), &mut random, &mut unwinder, |goroutine| {
            seen.push(goroutine)
        });
        let looked = match looked {
            Ok(looked) if looked.looked_at > looked.unread => looked,
            Ok(_) => continue,
            Err(failed) => {
                error = Some(failed);
                break;
            }
        };
        // In as much time as one may take at the slowest rate.
        let most = Duration::from_secs_f64(limits.cpu / SLOWEST);
        size.note(&looked, seen.len(), cpu_time().saturating_sub(before), most);
        let now = Instant::now();
        let span = now.duration_since(last).as_nanos() as f64;
        last = now;
        goroutines += seen.len() as u64;
        entries = looked.entries;
        seen.retain(|goroutine| {
            let is_own = *own
                .entry(goroutine.seen.startpc)
                .or_insert_with(|| is_own(goroutine, &mut places));
            limits.system || !is_own
        });
        // What one entry stands for.
        let weight = looked.entries as f64 / (looked.looked_at - looked.unread) as f64;
        sums.note(
            seen.into_iter().map(|goroutine| keys(goroutine, &places)),
            weight * span,
            span,
        );
        looks += 1;
        if send.send(Found::Look).is_err() {
            break;
        }
    }
    Seen {
        sums,
        looks,
        goroutines,
        entries,
        elapsed: last.duration_since(begin),
        cpu: cpu_time().saturating_sub(cpu_before),
        error,
        reasons: runtime.wait_reasons.clone(),
        places,
        started,
        exe: process.exe,
    }
}

fn keys(goroutine: Goroutine, places: &Places) -> (Category, Key, bool) {
    let seen = goroutine.seen;
    let (state, reason) = (seen.state, seen.reason);
    let has_stack = goroutine.stack.is_ok();
    let stack = goroutine.stack.unwrap_or_else(|_| start(seen.startpc, places));
    let category = Category {
        startpc: seen.startpc,
        state,
        reason,
    };
    (category, Key { stack, state, reason }, has_stack)
}

/// Where the flame graph goes: wait.svg beside wait.pb.gz.
fn beside(out: &Path) -> PathBuf {
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let stem = [".pb.gz", ".pprof.gz", ".gz", ".pb", ".pprof", ".prof"]
        .iter()
        .find_map(|end| name.strip_suffix(end).filter(|stem| !stem.is_empty()));
    out.with_file_name(format!("{}.svg", stem.unwrap_or(&name)))
}

fn finish(mut seen: Seen, args: &ProfileArgs, flame_path: &Path) -> anyhow::Result<Exit> {
    if seen.looks == 0 {
        let reason = seen
            .error
            .map_or_else(|| "there was no time for a look".to_owned(), |error| error.to_string());
        return Err(Fatal::new(
            Exit::TargetEnded,
            format!("pid {}: nothing was seen: {reason}", args.pid),
        )
        .into());
    }
    let wall = seen.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let samples: Vec<Sample> = samples(&mut seen);
    let head = pprof::Head {
        exe: seen.exe.to_string_lossy().into_owned(),
        started: wall.as_nanos() as i64,
        duration: seen.elapsed.as_nanos() as i64,
        bias: seen.places.bias,
    };
    let profile = pprof::encode(&samples, &head).context("cannot compress the profile")?;
    let title = format!(
        "{}: wall time of {:.0} goroutines over {:.0} s",
        seen.exe.display(),
        seen.sums.mean(),
        seen.elapsed.as_secs_f64()
    );
    let picture = flame::draw(&samples, &title);
    for (path, bytes) in [(&*args.out, profile.as_slice()), (flame_path, picture.as_bytes())] {
        fs::write(path, bytes)
            .map_err(|error| Fatal::new(Exit::Undelivered, format!("cannot write {}: {error}", path.display())))?;
    }
    print(&mut seen, args);
    say!(
        "written: {} (go tool pprof), {}",
        args.out.display(),
        flame_path.display()
    );
    Ok(Exit::Ok)
}

/// One stack in one state, as it goes into the files.
struct Sample {
    stack: Vec<Frames>,
    state: &'static str,
    reason: Option<String>,
    /// Mean number of goroutines.
    goroutines: f64,
    /// Their wall time, ns.
    wall: f64,
}

/// What is at one PC: functions that are inlined there, and the one that has the code.
struct Frames {
    vaddr: u64,
    functions: Vec<Frame>,
}

fn samples(seen: &mut Seen) -> Vec<Sample> {
    let whole = seen.sums.time();
    let mut samples: Vec<Sample> = Vec::new();
    for (key, time) in seen.sums.stacks() {
        let mut stack = Vec::new();
        for pc in &key.stack.pcs {
            let functions = seen.places.functions(*pc);
            let shown = functions.iter().filter(|function| !function.is_wrapper);
            let functions: Vec<_> = shown.map(|function| function.frame.clone()).collect();
            // As runtime/pprof leaves it out.
            let is_end = functions
                .first()
                .is_some_and(|frame| frame.function == "runtime.goexit");
            if !functions.is_empty() && !is_end {
                let vaddr = pc.place();
                stack.push(Frames { vaddr, functions });
            }
        }
        let reason = seen
            .reasons
            .get(key.reason as usize)
            .filter(|reason| !reason.is_empty());
        samples.push(Sample {
            stack,
            state: key.state.name(),
            reason: reason.filter(|_| key.state == State::Waiting).cloned(),
            goroutines: time / whole,
            wall: time,
        });
    }
    samples.sort_unstable_by(|a, b| b.wall.total_cmp(&a.wall));
    samples
}

fn print(seen: &mut Seen, args: &ProfileArgs) {
    let seconds = seen.elapsed.as_secs_f64();
    say!(
        "{} looks in {seconds:.1} s, {:.1} a second, at {:.0} goroutines each of {:.0} ({} entries in the runtime's table)",
        seen.looks,
        seen.looks as f64 / seconds,
        seen.goroutines as f64 / seen.looks as f64,
        seen.sums.mean(),
        seen.entries
    );
    let limit = args
        .limit_cpu
        .0
        .map_or_else(|| "off".to_owned(), |limit| format!("{} %", 100.0 * limit));
    say!(
        "own CPU time: {:.2} % of a core; limit: {limit}",
        100.0 * seen.cpu.as_secs_f64() / seconds
    );
    if let Some(error) = &seen.error {
        say!("ended early: {error}");
    }
    let without = seen.sums.without_stack();
    if without > 0.0 {
        say!(
            "{:.2} % of the wall time is of goroutines that ran or moved while they were read: only the function that they were started with is known of it",
            100.0 * without
        );
    }
    if seen.sums.not_kept() > 0.0 {
        say!(
            "{:.2} % of the wall time is of stacks beyond those that are kept apart",
            100.0 * seen.sums.not_kept()
        );
    }
    say!(
        "{:>8} {:>8} {:>10}  {:<24} started with",
        "share",
        "± error",
        "goroutines",
        "state"
    );
    let shares = seen.sums.shares();
    for share in shares.iter().take(ROWS) {
        let category = &share.category;
        let function = seen.places.started_with(category.startpc);
        say!(
            "{:>6.2} % {:>6.2} % {:>10.1}  {:<24} {}",
            100.0 * share.share,
            100.0 * share.error,
            share.share * seen.sums.mean(),
            state_of(category.state, category.reason, &seen.reasons),
            function.as_deref().unwrap_or("unknown")
        );
    }
    if shares.len() > ROWS {
        let rest: f64 = shares[ROWS..].iter().map(|share| share.share).sum();
        say!(
            "{:>6.2} % {:>8} {:>10}  {} more",
            100.0 * rest,
            "",
            "",
            shares.len() - ROWS
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flame_graph_lies_beside_the_profile() {
        for (out, expected) in [
            ("wait.pb.gz", "wait.svg"),
            ("/tmp/a.b/wait.prof", "/tmp/a.b/wait.svg"),
            ("wait", "wait.svg"),
            (".gz", ".gz.svg"),
        ] {
            assert_eq!(beside(Path::new(out)), Path::new(expected));
        }
    }
}
