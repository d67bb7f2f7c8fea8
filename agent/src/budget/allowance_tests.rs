//! What a window may cost is kept by the programs themselves, on all CPUs together: hits on every CPU of this machine.

use std::thread;

use agent_common::{
    go::{Layout, handoff::IN_LINK_REGISTER},
    histogram::Series,
    hits::{HIT_BATCH, Plane},
    target::{PROBES_OPEN, Target},
};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::{
    aggregate::Store, attach::maps::TargetMaps, clock, intake::kernel_log::KernelLog, overhead::calibrate, pipeline,
    signals,
};

const ALLOWED: u64 = 10_000;

#[test]
fn an_allowance_is_one_for_all_cpus() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this test as root");
        return eprintln!("SKIPPED: needs root");
    }
    let (mut object, _hooks) =
        pipeline::load(1 << 16, KernelLog::Off, &signals::NAMES.map(str::to_owned), &[]).unwrap();
    let mut take = |name: &'static str| object.ebpf.take_map(name);
    let mut maps = TargetMaps::new(&mut take).unwrap();
    let store = Store::new(&mut take).unwrap();
    // A program that counts each hit that it is allowed, and reads no more than the address that it returns to.
    let known = Target {
        id: 1,
        index: 1,
        flags: PROBES_OPEN,
        probes_since: clock::now().0,
        allowance: [0, 0, 0, ALLOWED],
        go: Layout {
            handoff_return: if cfg!(target_arch = "aarch64") {
                IN_LINK_REGISTER
            } else {
                0
            },
            ..Layout::default()
        },
        ..Target::default()
    };
    maps.admit(std::process::id(), &known).unwrap();
    let probe = calibrate::attach(&mut object, "go_handoff").unwrap();
    let cpus = aya::util::online_cpus().unwrap();
    thread::scope(|scope| {
        for cpu in &cpus {
            scope.spawn(|| {
                let mut set = CpuSet::new();
                set.set(*cpu as usize);
                sched_setaffinity(None, &set).unwrap();
                for _ in 0..2 * ALLOWED {
                    calibrate::hit();
                }
            });
        }
    });
    drop(probe);
    let counted = store.read([1].into()).unwrap().counter(1, Series::GoHandoff);
    let cpus = cpus.len() as u64;
    println!(
        "{counted} of {} hits on {cpus} CPUs counted, {ALLOWED} were allowed",
        2 * ALLOWED * cpus
    );
    assert!(
        (ALLOWED..=ALLOWED + HIT_BATCH * cpus).contains(&counted),
        "{counted} hits on {cpus} CPUs"
    );
    assert!(maps.cut(&known, Plane::Probes).unwrap().is_some());
    assert!(maps.used(&known, Plane::Probes).unwrap() <= counted + HIT_BATCH * cpus);
}
