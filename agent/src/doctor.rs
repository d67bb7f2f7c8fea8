//! `whywait doctor`: what this kernel permits, who can be watched, what would be off and why. Attaches nothing for good.

use anyhow::Context as _;

use crate::{
    attach::plan::{self, Coverage},
    budget::calibrate,
    cli::TargetArgs,
    discover::Process,
    exit::Exit,
    golang::{GoRuntime, ProofError},
    inspect::{self, GlobalsSource, GoImage, Image, OffsetsSource, SiteCost},
    limits::Limits,
    memory::Memory,
    pipeline, signals,
};

/// Prints the findings; ends with the code of the first that keeps whywait from working at all.
pub fn run(args: &TargetArgs) -> anyhow::Result<Exit> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("kernel {}", release.trim());
    let without_uprobes = match pipeline::load(1 << 16, &[], &[]) {
        Ok((mut object, hooks)) => {
            match &object.refused {
                None => println!("  {:<18} {}", "uprobes by", object.way()),
                Some(reason) => match object.without_uprobes() {
                    Some(reason) => println!("  {:<18} off: {reason}", "uprobes"),
                    None => println!("  {:<18} {}, not uprobe_multi: {reason}", "uprobes by", object.way()),
                },
            }
            match calibrate::trap(&mut object) {
                Ok(Some(trap)) => println!("  {:<18} {trap:.0} ns, measured just now", "trap of a probe"),
                Ok(None) => println!(
                    "  {:<18} not measured: the machine is too busy just now",
                    "trap of a probe"
                ),
                Err(error) => println!("  {:<18} cannot be measured: {error:#}", "trap of a probe"),
            }
            for hook in &hooks {
                match hook.taken {
                    Some(taken) => println!("  {:<18} {taken}", hook.signal),
                    None => println!("  {:<18} off", hook.signal),
                }
                for (alternative, reason) in &hook.refused {
                    match alternative {
                        &"all" => println!("  {:<18} {reason}", ""),
                        _ => println!("  {:<18} refused {alternative}: {reason}", ""),
                    }
                }
            }
            object.without_uprobes().map(str::to_owned)
        }
        Err(error) => {
            println!("  {error:#}");
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
    println!(
        "  {:<18} {cpu} cores, {memory} memory, of which --limit-cpu and --limit-memory are taken",
        "own cgroup"
    );
    println!("signals: {}", signals::NAMES.join(", "));
    let selector = args.selector();
    for pid in &selector.pids {
        Process::read(*pid).map_err(|error| crate::exit::Fatal::new(Exit::NoSuchProcess, error))?;
    }
    let mut found = 0;
    for process in Process::all().context("cannot list processes")? {
        if selector.matches(&process) && report(&process, selector.is_explicit(), without_uprobes.as_deref()) {
            found += 1;
        }
    }
    println!("{found} processes can be watched");
    Ok(Exit::Ok)
}

/// Prints what is to say of a process; whether it can be watched.
fn report(process: &Process, explicit: bool, without_uprobes: Option<&str>) -> bool {
    let head = format!("pid {} {}", process.pid, process.exe.display());
    let inspected = match process.inspect() {
        Ok(inspected) => inspected,
        Err(error) => {
            if explicit {
                println!("{head}: {error}");
            }
            return false;
        }
    };
    let image = match inspected {
        Ok(Some(image)) => image,
        Ok(None) | Err(inspect::InspectError::NotElf) => {
            if explicit {
                println!("{head}: neither Go nor tokio");
            }
            return false;
        }
        Err(error) => {
            println!("{head}: runtime not watched: {error}");
            return explicit;
        }
    };
    let elf = match &image {
        Image::Go(image) => {
            println!("{head}: {}", image.version.raw);
            println!("  {:<18} {}", "found by", found_by(image));
            if let Err(error) = &image.tls_g {
                println!("  goroutines of sockets are not told: {error}");
            }
            &image.elf
        }
        Image::Tokio(image) => {
            println!(
                "{head}: tokio {}",
                image.version.as_deref().unwrap_or("of unknown version")
            );
            &image.elf
        }
    };
    let bias = process.bias(elf).unwrap_or_default();
    let mut plan = plan::plan(&image, bias, &[]);
    if let Err(reason) = prove(process, &image, bias) {
        plan.without_go(&reason.to_string());
    }
    if let Some(reason) = without_uprobes {
        plan.without_probes(reason);
    }
    for state in &plan.states {
        match &state.coverage {
            Coverage::Full => println!("  {:<18} full", state.signal),
            Coverage::Partial(reason) => println!("  {:<18} in part: {reason}", state.signal),
            Coverage::Off(reason) => println!("  {:<18} off: {reason}", state.signal),
        }
    }
    for probe in &plan.probes {
        let cost = match probe.site.cost {
            SiteCost::Emulated => "emulated",
            SiteCost::SingleStepped => "single-stepped",
        };
        println!(
            "    {:<18} {} at file offset {:#x}, {cost}",
            probe.program, probe.site.function, probe.site.file_offset
        );
    }
    true
}

/// Holds what was found of a Go runtime against the process; others have nothing to prove.
fn prove(process: &Process, image: &Image, bias: u64) -> Result<(), ProofError> {
    let Image::Go(image) = image else { return Ok(()) };
    let (Ok(globals), Ok(offsets)) = (&image.globals, &image.offsets) else {
        return Ok(());
    };
    let memory = Memory::open(process.pid)?;
    GoRuntime::new(memory, bias, globals.clone(), offsets.clone())?.prove(&image.version.raw)
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
