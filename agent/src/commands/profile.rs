//! `whywait profile`: where the goroutines of a process spend wall time, by stack. Looks at a random part of them many times a second,
//! out of the process' memory, and writes a pprof file and a flame graph.

mod cpu;
mod flame;
mod otlp;
mod pprof;
mod print;
mod samples;
mod sum;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::mpsc::SyncSender,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use self::{
    cpu::OnCpu,
    print::print,
    samples::{Sample, samples},
    sum::{Key, Sums},
};
use super::{
    goroutines::{is_own, start},
    stacks::{self, GoProcess},
};
use crate::{
    cli::ProfileArgs,
    exit::{Exit, Fatal},
    export::{self, config::Endpoint},
    looks::cpu_time,
    perf::Refused,
    realtime,
    runtime::go::{Category, Goroutine, LookSize, Places},
    say,
};
use anyhow::Context as _;

/// Looks in a row that may fail while the process lives.
const FAILURES: u32 = 50;
/// Looks a second below which a look sees fewer goroutines instead.
const SLOWEST: f64 = 20.0;
/// Samples of code on CPU are taken out at least this often.
const DRAINED: Duration = Duration::from_millis(200);

/// What was seen, and what it took.
struct Seen {
    sums: Sums,
    looks: u64,
    /// Looks that may have come late: not with real-time priority, or longer than it lasts.
    late: u64,
    goroutines: u64,
    entries: u64,
    elapsed: Duration,
    cpu: Duration,
    /// Why it ended early.
    error: Option<std::io::Error>,
    reasons: Vec<String>,
    places: Places,
    /// Code on CPU, where it was asked for and the kernel permits it; or why not.
    on_cpu: Result<Option<OnCpu>, Refused>,
    started: SystemTime,
    exe: PathBuf,
}

enum Found {
    Look,
    End(Box<Seen>),
}

/// Looks, writes both files, and prints the largest shares.
pub async fn run(args: &ProfileArgs) -> anyhow::Result<Exit> {
    let flame_path = beside(&args.out);
    // A file that cannot be written is reported now, not in half a minute.
    for path in [&args.out, &flame_path] {
        fs::File::create(path)
            .map_err(|error| Fatal::new(Exit::Undelivered, format!("cannot write {}: {error}", path.display())))?;
    }
    // A wrong endpoint likewise.
    let endpoint = args.otlp.as_deref().map(profiles_endpoint).transpose()?;
    let process = GoProcess::open(args.pid)?;
    let resource = process.resource.clone();
    let limits = Limits {
        time: Duration::from_secs(args.seconds),
        rate: f64::from(args.rate),
        cpu: args.limit_cpu.0.unwrap_or(1.0),
        system: args.system,
        cpu_rate: args.cpu_rate,
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
    let (samples, head) = finish(seen, args, &flame_path)?;
    if let Some(endpoint) = endpoint {
        let (profiles, dictionary) = otlp::encode(&samples, &head);
        let count = profiles.len();
        let sent = export::send_profiles(&endpoint, &resource, profiles, dictionary).await;
        sent.map_err(|error| Fatal::new(Exit::Undelivered, format!("{}: {error}", endpoint.url)))?;
        say!("sent: {count} profiles to {}", endpoint.url);
    }
    Ok(Exit::Ok)
}

/// Where profiles go: the flag, with the standard variables for all besides.
fn profiles_endpoint(url: &str) -> anyhow::Result<Endpoint> {
    let env = std::env::vars().collect();
    let endpoint = export::config::profiles_endpoint(url, &env).map_err(|error| Fatal::new(Exit::Usage, error))?;
    Ok(endpoint)
}

/// What a profile may take.
struct Limits {
    time: Duration,
    /// Looks a second, at most.
    rate: f64,
    /// Share of a core.
    cpu: f64,
    system: bool,
    /// Samples of code on CPU, a second of each core; 0 for none.
    cpu_rate: u32,
}

fn look(process: GoProcess, limits: &Limits, send: &SyncSender<Found>) -> Seen {
    let GoProcess {
        runtime,
        mut unwinder,
        mut places,
        process,
        arch,
        ..
    } = process;
    let wanted = (limits.cpu_rate > 0).then(|| OnCpu::begin(process.pid, arch, limits.cpu_rate));
    let mut on_cpu = wanted.transpose();
    let mut random = fastrand::Rng::new();
    let (mut sums, mut size) = (Sums::default(), LookSize::default());
    let (mut looks, mut late, mut goroutines, mut entries, mut error) = (0, 0, 0, 0, None);
    let (begin, cpu_before, started) = (Instant::now(), cpu_time(), SystemTime::now());
    let mut last = begin;
    let mut own = HashMap::new();
    let mut failures = 0;
    while begin.elapsed() < limits.time {
        // At random times: a service does things at regular ones.
        let period = Duration::from_secs_f64(1.0 / limits.rate).mul_f64(0.5 + random.f64());
        let used = cpu_time().saturating_sub(cpu_before);
        let debt = used.div_f64(limits.cpu).saturating_sub(begin.elapsed());
        let end = limits.time.saturating_sub(begin.elapsed());
        let next = Instant::now() + period.max(debt).min(end);
        loop {
            if let Ok(Some(on_cpu)) = &mut on_cpu {
                on_cpu.drain(&mut unwinder);
            }
            let left = next.saturating_duration_since(Instant::now());
            if left <= DRAINED {
                realtime::wait();
                thread::sleep(left);
                break;
            }
            thread::sleep(DRAINED);
        }
        realtime::begin();
        let (now, before) = (Instant::now(), cpu_time());
        let mut seen = Vec::new();
        let looked = runtime.some_stacks(size.entries(), &mut random, &mut unwinder, |goroutine| {
            seen.push(goroutine)
        });
        realtime::lower();
        let looked = match looked {
            Ok(looked) if looked.looked_at > looked.unread => looked,
            Ok(_) => continue,
            // The runtime may free what is being read: the next look finds what has taken its place.
            Err(_) if failures < FAILURES && process.is_alive() => {
                failures += 1;
                continue;
            }
            Err(failed) => {
                error = Some(failed);
                break;
            }
        };
        failures = 0;
        // In as much time as one may take at the slowest rate.
        let most = Duration::from_secs_f64(limits.cpu / SLOWEST);
        size.note(&looked, seen.len(), cpu_time().saturating_sub(before), most);
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
        late += u64::from(!looked.is_prompt);
        if send.send(Found::Look).is_err() {
            break;
        }
    }
    if let Ok(Some(on_cpu)) = &mut on_cpu {
        on_cpu.end(&mut unwinder);
    }
    Seen {
        sums,
        looks,
        late,
        goroutines,
        entries,
        elapsed: last.duration_since(begin),
        cpu: cpu_time().saturating_sub(cpu_before),
        error,
        reasons: runtime.wait_reasons.clone(),
        places,
        on_cpu,
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

fn finish(mut seen: Seen, args: &ProfileArgs, flame_path: &Path) -> anyhow::Result<(Vec<Sample>, pprof::Head)> {
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
    let cpu_period = match &seen.on_cpu {
        Ok(Some(on_cpu)) => Some(on_cpu.period.as_nanos() as i64),
        _ => None,
    };
    let head = pprof::Head {
        exe: seen.exe.to_string_lossy().into_owned(),
        started: wall.as_nanos() as i64,
        duration: seen.elapsed.as_nanos() as i64,
        bias: seen.places.bias,
        cpu_period,
    };
    let profile = pprof::encode(&samples, &head).context("cannot compress the profile")?;
    let cpu: f64 = samples.iter().map(|sample| sample.cpu).sum();
    let title = format!(
        "{}: wall time of {:.0} goroutines over {:.0} s{}",
        seen.exe.display(),
        seen.sums.mean(),
        seen.elapsed.as_secs_f64(),
        if cpu_period.is_some() {
            format!(", and {:.1} s on CPU", cpu / 1e9)
        } else {
            String::new()
        }
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
    Ok((samples, head))
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
