//! Programs that are preempted: real-time services keep interrupting others while the kernel side's programs run for these, on the
//! same cores. Where two runs of a program share a stack (kernel/preemption.rs), the kernel follows what the other one left there.
//!
//! On the kernel that builds this project, which preempts nothing, it shows that nothing else breaks; the VMs of
//! `cargo xtask test` boot with preempt=full, and `cargo xtask test --preemption 30m` takes longer.

mod common;

use std::{
    num::NonZeroU32,
    path::Path,
    time::{Duration, Instant},
};

use agent::{
    attach::{kernel as programs, uprobe::Object},
    intake::kernel_log::KernelLog,
    kernel::{self, Kfuncs, Preemption},
};
use aya::util::KernelVersion;
use common::{Agent, Load, number_of, privileged, shop, stock};

/// What the kernel says of itself once a thread of it had to be killed (Linux, Documentation/admin-guide/tainted-kernels.rst, D).
const DIED: u64 = 1 << 7;
/// How long, s.
const SECONDS: &str = "WHYWAIT_PREEMPTION_SECONDS";

fn has_died() -> bool {
    let taint = std::fs::read_to_string("/proc/sys/kernel/tainted").unwrap();
    taint.trim().parse::<u64>().unwrap() & DIED != 0
}

/// Has every thread of a process preempt those of others.
fn real_time(pid: u32) {
    let priority = libc::sched_param { sched_priority: 50 };
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let tid: i32 = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
        // SAFETY: the parameters are read while the call lasts, and nothing else is touched.
        let outcome = unsafe { libc::sched_setscheduler(tid, libc::SCHED_FIFO, &priority) };
        assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
    }
}

/// How many values a histogram's points hold.
fn count(points: &[serde_json::Value]) -> i64 {
    points.iter().map(|point| number_of(&point["count"])).sum()
}

#[test]
fn the_kernel_outlives_programs_that_are_preempted_by_themselves() {
    if !privileged() {
        return;
    }
    let seconds = std::env::var(SECONDS).map_or(10, |text| text.parse::<u32>().unwrap());
    let before = has_died();
    let named = |name| [("OTEL_SERVICE_NAME", name)];
    let (busy, urgent) = (shop(None, &named("busy-go")), shop(None, &named("urgent-go")));
    let (busy_tokio, urgent_tokio) = (stock(false), stock(false));
    for service in [&urgent, &urgent_tokio] {
        real_time(service.pid());
    }
    let mut services = vec![&busy, &urgent];
    // tokio is not watched on arm64.
    let with_tokio = !cfg!(target_arch = "aarch64");
    if with_tokio {
        services.extend([&busy_tokio, &urgent_tokio]);
    }
    let pids: Vec<String> = services.iter().map(|service| service.pid().to_string()).collect();
    // What is written is read whole in the end, in a small machine's memory.
    let interval = format!("{}s", (seconds / 10).max(1));
    let mut args = vec![
        "--max-spans",
        "1",
        "--metric-interval",
        &interval,
        "--limit-memory",
        "512MiB",
    ];
    args.extend(pids.iter().flat_map(|pid| ["--pid", pid]));
    let agent = Agent::run(&args, services.len());
    // The busy ones take all there is. The urgent ones wake many times a second for next to nothing: each time they may find a busy one
    // in the midst of a program, and run the same.
    let loads = [
        Load::start(&[busy.url("/chan?n=2000")], 0, seconds + 600, 1),
        Load::start(&[busy_tokio.url("/stock/{n}")], 0, seconds + 600, 1),
    ];
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for (service, path) in [(&urgent, "/chan?n=1000&us=300"), (&urgent_tokio, "/sleep?ms=1&n=200")] {
            scope.spawn(move || {
                while begin.elapsed() < Duration::from_secs(seconds.into()) {
                    service.get(path);
                }
            });
        }
    });
    let output = agent.stop();
    for load in loads {
        load.stop();
    }
    assert_eq!(has_died(), before, "the kernel had to kill a thread of its own");
    assert!(output.status.success(), "{}", output.said);
    for service in ["busy-go", "urgent-go"] {
        let switches = count(&output.points(service, "go.goroutine.runnable.duration"));
        assert!(switches > 1000, "{service}: {switches} switches");
    }
    let polls = count(&output.points("rust-stock", "tokio.task.poll.duration"));
    assert!(polls > 1000 || !with_tokio, "{polls} polls");
}

/// No uprobe program is loaded, and none can be attached, on a kernel where `preemption` is so; it says why.
fn check_refused(preemption: &Preemption, reason: &str) {
    let (layout, _) = kernel::read().unwrap();
    let ebpf = programs::load(&layout, 1 << 16, KernelLog::Off).unwrap();
    let mut object = Object::new(ebpf, preemption).unwrap();
    let said = object
        .without_uprobes()
        .unwrap_or_else(|| panic!("{preemption:?}: uprobes by {}", object.way()));
    assert!(said.contains("crash the host") && said.contains(reason), "{said}");
    let own = NonZeroU32::new(std::process::id()).unwrap();
    let refused = object
        .attach("calibrate", Path::new("/proc/self/exe"), 0, own)
        .map(|_| ());
    assert!(refused.is_err_and(|error| error.contains(reason)));
    assert!(
        agent::attach::uprobe::programs()
            .iter()
            .all(|program| object.runs(program).is_none())
    );
}

#[test]
fn without_a_guard_no_program_is_loaded_that_needs_one() {
    if !privileged() {
        return;
    }
    let with = |kfuncs| Preemption {
        private_stacks: true,
        jit: true,
        kfuncs,
    };
    check_refused(&with(None), "lacks bpf_preempt_disable");
    // Type 1 is no function: the verifier refuses the call.
    check_refused(&with(Some(Kfuncs { disable: 1, enable: 1 })), "refused the programs");
}

/// The kernel follows each way through a program before it takes it, at most a million instructions of them: far from that they are
/// taken at once, by other kernels too.
#[test]
fn the_kernel_is_soon_done_with_every_probe() {
    if !privileged() {
        return;
    }
    // go_injectglist: 64 goroutines, each at one of 16 places or new, are 260,000. With messages there are several times as many ways: go_execute's are
    // 300,000 on Linux 6.18, 470,000 on 6.1.
    for (messages, most) in [
        (KernelLog::Off, 300_000),
        (KernelLog::Warn, 600_000),
        (KernelLog::Debug, 600_000),
    ] {
        followed_at_most(messages, most);
    }
}

fn followed_at_most(messages: KernelLog, most: u32) {
    let (layout, preemption) = kernel::read().unwrap();
    let ebpf = programs::load(&layout, 1 << 16, messages).unwrap();
    let object = Object::new(ebpf, &preemption).unwrap();
    let version = KernelVersion::current().unwrap();
    let names = agent::attach::uprobe::programs();
    let of_ours = aya::programs::loaded_programs().filter_map(|program| {
        let program = program.ok()?;
        let name = program.name_as_str()?.to_owned();
        // Linux tells since 5.16; of the name it keeps 15 bytes.
        let followed = program.verified_instruction_count()?;
        let is_ours = names.iter().any(|of| of[..of.len().min(15)] == name);
        is_ours.then_some((name, followed))
    });
    let mut followed: Vec<(String, u32)> = of_ours.collect();
    followed.sort_by_key(|(_, followed)| std::cmp::Reverse(*followed));
    println!("{followed:?}");
    // Where they could be preempted they are kept from it, whatever the kernel calls its types.
    assert!(
        version < KernelVersion::new(6, 13, 0) || object.way().contains("preemption off"),
        "{}",
        object.way()
    );
    let told = version >= KernelVersion::new(5, 16, 0) && object.without_uprobes().is_none();
    assert_eq!(followed.is_empty(), !told);
    drop(object);
    for (name, followed) in &followed {
        assert!(
            *followed < most,
            "{name}: {followed} instructions followed, {messages:?}"
        );
    }
}
