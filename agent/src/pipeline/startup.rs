//! What a run starts from: the loaded object, the user's choices, the ways out.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use log::{debug, warn};

use crate::{
    attach::{
        kernel::{self, LoadError},
        uprobe::Object,
    },
    budget,
    cli::{ExportArgs, RunArgs},
    discover::{namespace, process::PROC},
    exit::{Exit, Fatal},
    export::{self, FilesConfig},
    heap,
    intake::kernel_log::KernelLog,
    kernel::{self as running, LayoutError},
    limits::{self, Limits},
    looks::Looks,
    signals::{self, Thresholds},
    watch::Options,
};

/// Loads the object and attaches what needs no target; every failure says what is missing.
pub fn load(
    ring: u32,
    messages: KernelLog,
    without: &[String],
    with: &[String],
) -> anyhow::Result<(Object, Vec<kernel::HookState>)> {
    namespace::check(Path::new(PROC), std::process::id()).map_err(|error| Fatal::new(Exit::PidNamespace, error))?;
    let (layout, preemption) = running::read().map_err(|error| match error {
        LayoutError::NoBtf(_) | LayoutError::Missing(_) => Fatal::new(Exit::UnsupportedKernel, error),
    })?;
    let fatal = |error: LoadError| match &error {
        LoadError::NoPrivilege(_) => Fatal::new(Exit::NoPrivilege, error),
        LoadError::Object(_) | LoadError::Btf(_) => Fatal::new(Exit::UnsupportedKernel, error),
    };
    // The kernel's types are read three times, by three who need them: one after the other, not all at once.
    heap::give_back();
    let mut ebpf = kernel::load(&layout, ring, messages).map_err(fatal)?;
    heap::give_back();
    let hooks = kernel::attach(&mut ebpf, signals::hooks(), without, with).map_err(fatal)?;
    let optional = signals::optional();
    let left_out = |name: &str| {
        let asked = !optional.contains(&name) || with.iter().any(|with| with == name);
        without.iter().any(|without| without == name) || !asked
    };
    for hook in hooks
        .iter()
        .filter(|hook| hook.taken.is_none() && !left_out(hook.signal))
    {
        for (alternative, reason) in &hook.refused {
            warn!("{} is off: this kernel refused {alternative}: {reason}", hook.signal);
        }
    }
    let object = Object::new(ebpf, &preemption).map_err(|(program, reason)| {
        Fatal::new(
            Exit::UnsupportedKernel,
            format!("the kernel refused the program {program}: {reason}"),
        )
    })?;
    if let Some(reason) = object.without_uprobes() {
        warn!("no uprobe is used: {reason}");
    } else if let Some(reason) = &object.refused {
        debug!("uprobes use perf events, because uprobe_multi is not available: {reason}");
    }
    Ok((object, hooks))
}

pub(super) fn options(args: &RunArgs) -> anyhow::Result<Options> {
    for (flag, given, known) in [
        ("--without", &args.without, &signals::NAMES[..]),
        ("--with", &args.with, &signals::optional()[..]),
    ] {
        if let Some(unknown) = given.iter().find(|name| !known.contains(&name.as_str())) {
            let names = known.join(", ");
            return Err(Fatal::new(
                Exit::Usage,
                format!("{flag} {unknown}: no such signal; there are {names}"),
            )
            .into());
        }
    }
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Ok(Options {
        selector: args.targets.selector(),
        without: args.without.clone(),
        thresholds: Thresholds {
            wait: nanos(args.slow_wait),
            poll: nanos(args.slow_poll),
            request: nanos(args.slow_request),
        },
        limits: args.budget.0.map(|share| budget::Limits {
            share,
            floor: args.budget_floor.0.unwrap_or_default(),
            tail: args.budget_p99.0,
        }),
        host: args.budget_host.0.map(|share| share * cores()),
        looks: Looks::new(limits::for_looks(own_limits(args).cpu, 0.0)),
    })
}

/// What the agent may use for itself.
pub(super) fn own_limits(args: &RunArgs) -> Limits {
    let asked = Limits {
        cpu: args.limit_cpu.0,
        memory: Some(args.limit_memory),
    };
    asked.within(Limits::of_cgroup())
}

/// Cores that are online.
fn cores() -> f64 {
    aya::util::online_cpus().map_or(1.0, |cpus| cpus.len() as f64)
}

/// The ways out, by the flags and the environment.
pub fn export_config(args: &ExportArgs) -> anyhow::Result<export::Config> {
    let env: HashMap<String, String> = std::env::vars().collect();
    let otlp = export::config::from_flag_and_env(args.otlp.as_deref(), &env)
        .map_err(|error| Fatal::new(Exit::Usage, error))?;
    // Without an endpoint, and without being told otherwise, files are the way out.
    let directory = args
        .out
        .clone()
        .or_else(|| otlp.is_none().then(|| PathBuf::from("whywait-out")));
    let files = directory.map(|directory| FilesConfig {
        directory,
        rotate: args.out_rotate,
    });
    Ok(export::Config { otlp, files })
}
