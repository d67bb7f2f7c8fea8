//! `whywait doctor`: what this kernel permits, who can be watched, what would be off and why. Attaches nothing for good.

use std::time::Duration;

use anyhow::Context as _;

use super::findings;
use crate::{
    attach::kernel::{self, ALL},
    cli::DoctorArgs,
    deadline,
    discover::{Process, objects},
    exit::{Exit, Fatal, of_process},
    inspect::{InspectError, SiteCost},
    intake::kernel_log::KernelLog,
    limits::Limits,
    overhead::calibrate,
    pipeline, realtime, say,
    signal::{self, Coverage, SignalState},
    signals::{self, State},
};

/// Prints the findings; ends with the code that a run on these targets would.
pub fn run(args: &DoctorArgs) -> anyhow::Result<Exit> {
    let hooks: Vec<SignalState>;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    say!("kernel {}", release.trim());
    let without_uprobes = match pipeline::load(1 << 16, KernelLog::Off, &[], &[]) {
        Ok((mut object, found)) => {
            match &object.refused {
                None => say!("  {:<18} {}", "uprobes by", object.way()),
                Some(reason) => match object.without_uprobes() {
                    Some(reason) => say!("  {:<18} off: {reason}", "uprobes"),
                    None => say!("  {:<18} {}, not uprobe_multi: {reason}", "uprobes by", object.way()),
                },
            }
            match calibrate::trap(&mut object) {
                Ok(Some(trap)) => say!("  {:<18} {trap:.0} ns, measured just now", "trap of a probe"),
                Ok(None) => say!(
                    "  {:<18} not measured: the machine is too busy just now",
                    "trap of a probe"
                ),
                Err(error) => say!("  {:<18} cannot be measured: {error:#}", "trap of a probe"),
            }
            for hook in &found {
                match hook.taken {
                    Some(taken) => say!("  {:<18} {taken}", hook.signal),
                    None => say!("  {:<18} off", hook.signal),
                }
                for (alternative, reason) in &hook.refused {
                    match alternative {
                        &ALL => say!("  {:<18} {reason}", ""),
                        _ => say!("  {:<18} refused {alternative}: {reason}", ""),
                    }
                }
            }
            hooks = kernel::states(&found).collect();
            object.without_uprobes().map(str::to_owned)
        }
        Err(error) => {
            say!("  {error:#}");
            return Err(error);
        }
    };
    let cgroup = Limits::of_cgroup();
    let (cpu, memory) = (
        cgroup.cpu.map_or_else(|| "all".to_owned(), |cpu| format!("{cpu:.2}")),
        cgroup
            .memory
            .map_or_else(|| "all".to_owned(), |bytes| format!("{} MiB", bytes >> 20)),
    );
    say!(
        "  {:<18} {cpu} cores, {memory} memory, of which --limit-cpu and --limit-memory are taken",
        "own cgroup"
    );
    realtime::wait();
    realtime::lower();
    match realtime::refused() {
        None => say!("  {:<18} at real-time priority", "looks at memory"),
        Some(error) => say!(
            "  {:<18} at ordinary priority: {error}: run as root, or with the capability SYS_NICE; go.wait may show up to a third too little \
             of the time that goroutines run",
            "looks at memory"
        ),
    }
    say!("signals: {}", signals::NAMES.join(", "));
    let selector = args.targets.selector();
    for pid in &selector.pids {
        Process::read(*pid).map_err(|error| Fatal::new(of_process(&error), error))?;
    }
    let (mut found, mut exit) = (0, Exit::Ok);
    for process in Process::all().context("cannot list processes")? {
        if !selector.matches(&process) {
            continue;
        }
        let named = selector.pids.contains(&process.pid);
        let look = if named { args.look } else { Duration::ZERO };
        exit = match report(
            &process,
            selector.is_explicit(),
            &hooks,
            without_uprobes.as_deref(),
            look,
        ) {
            Exit::Ok => {
                found += 1;
                exit
            }
            Exit::Partial => {
                found += 1;
                // A process that happens to run beside the others is no failure.
                if exit == Exit::Ok && selector.is_explicit() {
                    Exit::Partial
                } else {
                    exit
                }
            }
            // Of the two the one that ends a run.
            other if named && matches!(exit, Exit::Ok | Exit::Partial) => other,
            _ => exit,
        };
    }
    say!("{found} processes can be watched");
    Ok(exit)
}

/// Prints what is to say of a process, and gives the code of a run on it alone; [`Exit::Partial`] where not all is to be had. `hooks` are
/// the kernel's; it is looked at for findings for the time of `look`.
fn report(
    process: &Process,
    explicit: bool,
    hooks: &[SignalState],
    without_uprobes: Option<&str>,
    look: Duration,
) -> Exit {
    let head = format!("pid {} {}", process.pid, process.exe.display());
    let asked = process.clone();
    let inspected = deadline::FILES.within(process.pid, deadline::LONG, move || asked.inspect());
    let inspected = match inspected.unwrap_or_else(|late| Ok(Err(InspectError::NoAnswer(late.to_string())))) {
        Ok(inspected) => inspected,
        Err(error) => {
            if explicit {
                say!("{head}: {error}");
            }
            return of_process(&error);
        }
    };
    let image = match inspected {
        Ok(Some(image)) => image,
        Ok(None) | Err(InspectError::NotElf) => {
            if !explicit {
                return Exit::NotATarget;
            }
            let Some(error) = objects::answered_runtime_in(process) else {
                say!("{head}: neither Go nor tokio");
                return Exit::NotATarget;
            };
            say!("{head}: runtime not watched: {error}");
            findings::print(process, None, 0, look);
            return Exit::Partial;
        }
        Err(error) => {
            say!("{head}: runtime not watched: {error}");
            findings::print(process, None, 0, look);
            // Its sockets and threads are, where it is named by its pid.
            return if explicit { Exit::Partial } else { Exit::NotATarget };
        }
    };
    let unknown = if image.version().is_some() {
        ""
    } else {
        " of unknown version"
    };
    say!("{head}: {}{unknown}", image.name());
    if let Some(found_by) = image.found_by() {
        say!("  {:<18} {found_by}", "found by");
    }
    for gap in image.gaps() {
        say!("  {gap}");
    }
    let bias = match process.bias(image.elf()) {
        Ok(bias) => bias,
        Err(error) => {
            say!("  {error}");
            return of_process(&error);
        }
    };
    let mut plan = signals::plan::plan(&*image, bias, &[]);
    if let Err(reason) = signals::plan::open(&*image, process.pid, bias, &mut State::default()) {
        signals::plan::without_memory(&*image, &mut plan, &reason.to_string());
    }
    if let Some(reason) = without_uprobes {
        plan.without_probes(reason);
    }
    let own = plan.states.len();
    plan.states.extend(hooks.iter().cloned());
    plan.states.extend(signals::plan::of_process(process.pid, &[]));
    let states = signals::plan::states_now(&plan.states, []);
    for (at, state) in states.iter().enumerate() {
        match &state.coverage {
            Coverage::Full if at >= own => {}
            Coverage::Full => say!("  {:<18} full", state.signal),
            Coverage::Partial(reason) => say!("  {:<18} in part: {reason}", state.signal),
            Coverage::Off(reason) | Coverage::Lacking(reason) => say!("  {:<18} off: {reason}", state.signal),
        }
    }
    for probe in &plan.probes {
        let cost = match probe.site.cost {
            SiteCost::Emulated => "emulated",
            SiteCost::SingleStepped => "single-stepped",
        };
        say!(
            "    {:<18} {} at file offset {:#x}, {cost}",
            probe.program,
            probe.site.function,
            probe.site.file_offset
        );
    }
    findings::print(process, Some(image.into()), bias, look);
    if signal::is_dark(&states) {
        Exit::Partial
    } else {
        Exit::Ok
    }
}
