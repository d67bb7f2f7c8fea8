//! `whywait doctor`: what this kernel permits, who can be watched, what would be off and why. Attaches nothing for good.

use anyhow::Context as _;

use crate::{
    attach::kernel::{self, ALL},
    budget::calibrate,
    cli::TargetArgs,
    deadline,
    discover::{Process, objects},
    exit::{Exit, Fatal, of_process},
    inspect::{self, GlobalsSource, GoImage, Image, OffsetsSource, SiteCost},
    limits::Limits,
    pipeline,
    runtime::go::{GoRuntime, ProofError},
    say,
    signal::{self, Coverage, SignalState},
    signals::{self, process::quota},
};

/// Prints the findings; ends with the code that a run on these targets would.
pub fn run(args: &TargetArgs) -> anyhow::Result<Exit> {
    let hooks: Vec<SignalState>;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    say!("kernel {}", release.trim());
    let without_uprobes = match pipeline::load(1 << 16, &[], &[]) {
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
    say!("signals: {}", signals::NAMES.join(", "));
    let selector = args.selector();
    for pid in &selector.pids {
        Process::read(*pid).map_err(|error| Fatal::new(of_process(&error), error))?;
    }
    let (mut found, mut exit) = (0, Exit::Ok);
    for process in Process::all().context("cannot list processes")? {
        if !selector.matches(&process) {
            continue;
        }
        let named = selector.pids.contains(&process.pid);
        exit = match report(&process, selector.is_explicit(), &hooks, without_uprobes.as_deref()) {
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
/// the kernel's.
fn report(process: &Process, explicit: bool, hooks: &[SignalState], without_uprobes: Option<&str>) -> Exit {
    let head = format!("pid {} {}", process.pid, process.exe.display());
    let asked = process.clone();
    let inspected = deadline::FILES.within(process.pid, deadline::LONG, move || asked.inspect());
    let inspected = match inspected.unwrap_or_else(|late| Ok(Err(inspect::InspectError::NoAnswer(late.to_string())))) {
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
        Ok(None) | Err(inspect::InspectError::NotElf) => {
            if !explicit {
                return Exit::NotATarget;
            }
            let Some(error) = objects::answered_runtime_in(process) else {
                say!("{head}: neither Go nor tokio");
                return Exit::NotATarget;
            };
            say!("{head}: runtime not watched: {error}");
            return Exit::Partial;
        }
        Err(error) => {
            say!("{head}: runtime not watched: {error}");
            // Its sockets and threads are, where it is named by its pid.
            return if explicit { Exit::Partial } else { Exit::NotATarget };
        }
    };
    let elf = match &image {
        Image::Go(image) => {
            say!("{head}: {}", image.version.raw);
            say!("  {:<18} {}", "found by", found_by(image));
            if let Err(error) = &image.tls_g {
                say!("  goroutines of sockets are not told: {error}");
            }
            &image.elf
        }
        Image::Tokio(image) => {
            say!(
                "{head}: tokio {}",
                image.version.as_deref().unwrap_or("of unknown version")
            );
            &image.elf
        }
    };
    let bias = match process.bias(elf) {
        Ok(bias) => bias,
        Err(error) => {
            say!("  {error}");
            return of_process(&error);
        }
    };
    let mut plan = signals::plan::plan(&image, bias, &[]);
    if let Err(reason) = prove(process, &image, bias) {
        signals::plan::without_go(&mut plan, &reason.to_string());
    }
    if let Some(reason) = without_uprobes {
        plan.without_probes(reason);
    }
    let own = plan.states.len();
    plan.states.extend(hooks.iter().cloned());
    plan.states.push(quota::state(process.pid, &[]));
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
    if signal::is_dark(&states) {
        Exit::Partial
    } else {
        Exit::Ok
    }
}

/// Holds what was found of a Go runtime against the process; others have nothing to prove.
fn prove(process: &Process, image: &Image, bias: u64) -> Result<(), ProofError> {
    let Image::Go(image) = image else { return Ok(()) };
    GoRuntime::of(process.pid, image, bias).map(drop)
}

/// Where what is known of a Go executable comes from.
fn found_by(image: &GoImage) -> String {
    let offsets = match image.offsets_source {
        OffsetsSource::Dwarf => "fields by its DWARF",
        OffsetsSource::Table => "fields by the table of its version",
    };
    let globals = match image.globals_source {
        GlobalsSource::Symbols => "variables by its symbols",
        GlobalsSource::Code => "variables by its instructions",
    };
    format!("{offsets}, {globals}; proved in each process before use")
}
