//! What to attach to a Go process.

use agent_common::{go, target::IS_GO};

use super::{Coverage, Plan, Probe, coverage, handoff, usable};
use crate::{
    attach::layout,
    inspect::{GoHook, GoImage, SiteCost},
    signals,
};

/// Go: hook, program, and whether the signal is nothing without it.
const GO_SCHED: [(GoHook, &str, bool); 8] = [
    (GoHook::Execute, "go_execute", true),
    (GoHook::RunqPut, "go_runqput", true),
    (GoHook::Gosched, "go_gosched", false),
    (GoHook::ExitSyscallNoP, "go_exitsyscall", false),
    (GoHook::NetpollReady, "go_netpoll", false),
    (GoHook::InjectGlist, "go_injectglist", false),
    // Without them a goroutine that waits, or is over, would be one that runs.
    (GoHook::Park, "go_park", true),
    (GoHook::Exit, "go_exit", true),
];

/// The plan of a Go process.
pub(super) fn plan(image: &GoImage, bias: u64) -> Plan {
    let mut plan = Plan {
        flags: IS_GO,
        ..Plan::default()
    };
    let layout = match (&image.offsets, &image.globals) {
        (Ok(offsets), Ok(globals)) => Ok(layout::of_go(image, offsets, globals, bias)),
        (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
    };
    match layout {
        Ok(layout) => {
            plan.go = layout;
            plan.set(signals::go::runtime::NAME, coverage(without_home(image)));
            plan.set(signals::go::goroutines::NAME, Coverage::Full);
            let cycle_end = usable(image.sites.get(&GoHook::GcCycleEnd), &[]);
            plan.set_one(signals::go::gc::NAME, "go_gc_cycle", cycle_end);
            plan_stw(image, &mut plan);
            plan_assist(image, &mut plan);
            plan_sched(image, &mut plan);
            handoff::plan(image, &mut plan);
        }
        Err(reason) => plan.without_go(&reason),
    }
    plan
}

/// Variables that this version has and that were not found in this binary: what stands in them is absent.
fn without_home(image: &GoImage) -> Vec<String> {
    let (Ok(offsets), Ok(globals)) = (&image.offsets, &image.globals) else {
        return Vec::new();
    };
    let homes = [
        ("runtime.gcCPULimiter", offsets.limiter.enabled, globals.limiter),
        ("runtime.mheap_", offsets.heap.pages_in_use, globals.heap),
        ("runtime.sweep", offsets.sweep.active_state, globals.sweep),
        ("runtime.scavenge", offsets.scavenge.gc_percent_goal, globals.scavenge),
        ("runtime.allm", offsets.m.alllink, globals.allm),
        ("runtime.ncgocall", offsets.m.ncgocall, globals.c_calls),
    ];
    let missing = homes
        .into_iter()
        .filter(|(_, field, home)| field.is_some() && home.is_none());
    missing
        .map(|(name, ..)| format!("{name} was not found in this binary"))
        .collect()
}

fn plan_stw(image: &GoImage, plan: &mut Plan) {
    let signal = signals::go::stw::NAME;
    let coverage = match usable(image.sites.get(&GoHook::StartWorld), &image.arch.go_arguments()) {
        _ if plan.go.world_stop == go::stw::NONE => {
            Coverage::Lacking("the runtime says why it stops the world from go1.22 on".to_owned())
        }
        Ok(site) => {
            plan.probes.push(Probe {
                signal,
                also: None,
                essential: true,
                program: "go_stw",
                site,
            });
            match (plan.go.world_stop, usable(image.sites.get(&GoHook::StopProcessor), &[])) {
                (go::stw::START, _) => Coverage::Partial("when all had stopped is kept from go1.23 on".to_owned()),
                (_, Ok(site)) => {
                    plan.probes.push(Probe {
                        signal,
                        also: None,
                        essential: false,
                        program: "go_stop",
                        site,
                    });
                    Coverage::Full
                }
                (_, Err(reason)) => Coverage::Partial(format!("who is late to stop is not seen: {reason}")),
            }
        }
        Err(reason) => Coverage::Off(reason),
    };
    plan.set(signal, coverage);
}

fn plan_assist(image: &GoImage, plan: &mut Plan) {
    let site = if plan.go.p_gc_assist_time == go::ABSENT {
        Err("where a P keeps the time of assists is not known".to_owned())
    } else {
        usable(image.sites.get(&GoHook::AssistEnd), &[])
    };
    plan.set_one(signals::go::assist::NAME, "go_assist", site);
}

fn plan_sched(image: &GoImage, plan: &mut Plan) {
    let signal = signals::go::sched::NAME;
    let (mut probes, mut missing) = (Vec::new(), Vec::new());
    for (hook, program, essential) in GO_SCHED {
        // A single step costs tens of times more than an emulated instruction: not in the scheduler's path.
        let arguments = &image.arch.go_arguments()[..hook.arguments()];
        let site = usable(image.sites.get(&hook), arguments).and_then(|site| match site.cost {
            SiteCost::Emulated => Ok(site),
            SiteCost::SingleStepped => Err(format!("{}: no instruction that the kernel emulates", site.function)),
        });
        match site {
            Ok(site) => probes.push(Probe {
                signal,
                also: None,
                essential,
                program,
                site,
            }),
            Err(reason) if essential => return plan.set(signal, Coverage::Off(reason)),
            Err(reason) => missing.push(reason),
        }
    }
    plan.probes.extend(probes);
    plan.set(signal, coverage(missing));
}
