//! The mirror rule: a signal has the same path in agent-common, agent-ebpf, agent/src/signals and agent/src/telemetry.

use std::collections::BTreeSet;

const AGENT: &str = "agent/src/signals/";
const COMMON: &str = "agent-common/src/";
const KERNEL: &str = "agent-ebpf/src/";
const TELEMETRY: &str = "agent/src/telemetry/";

/// Signals read from outside the kernel, which have no kernel part, and why.
const WITHOUT_KERNEL_PART: &[(&str, &str)] = &[
    (
        "go/runtime.rs",
        "plane 0: the Go runtime's own histograms, read from its memory",
    ),
    (
        "go/goroutines.rs",
        "plane 0: goroutines alive, read from the runtime's memory",
    ),
    (
        "go/wait.rs",
        "plane 0: looks at some goroutines, read from the runtime's memory",
    ),
    (
        "thread/totals.rs",
        "plane 0: the kernel's own account of threads, read from /proc",
    ),
    (
        "process/quota.rs",
        "plane 0: the cgroup's own account, read from its files",
    ),
];

/// Signals that export nothing under a name of their own, and why.
const WITHOUT_TELEMETRY: &[(&str, &str)] = &[("process/exec.rs", "the agent's own: it finds new processes")];

/// Files of `agent/src/telemetry` that are of no signal, and why.
const OF_NO_SIGNAL: &[(&str, &str)] = &[
    ("agent.rs", "what the agent says of itself"),
    ("docs.rs", "makes docs/telemetry.md"),
    ("findings.rs", "what is found in the figures of all signals"),
];

/// Files of the mirrored crates that are no signal, and why.
const NO_SIGNAL: &[(&str, &str)] = &[
    ("lib.rs", "declares the modules"),
    ("main.rs", "declares the programs"),
    ("event.rs", "the header that all events share"),
    ("kernel.rs", "offsets of the kernel's structs"),
    ("loss.rs", "causes of loss, of all signals"),
    ("record.rs", "how all programs count values and write events"),
    ("histogram.rs", "the shape that all histograms share"),
    ("hits.rs", "how often each kind of probe was hit, of all signals"),
    ("calibrate.rs", "programs that are there to be timed"),
    ("arch.rs", "registers, by machine"),
    ("maps.rs", "maps that several signals share"),
    ("table.rs", "tables of what programs look for at every hit"),
    ("held.rs", "what a target holds of them"),
    ("actor.rs", "who runs on a thread, for several signals"),
    ("clock.rs", "the clock of all events"),
    ("log.rs", "messages of all programs"),
    ("kernel_log.rs", "how many messages of all programs there may be"),
    ("read.rs", "the one module that reads kernel and target memory"),
    ("target.rs", "which processes are targets"),
    (
        "thread/off_cpu.rs",
        "a part of thread/run_queue.rs: what is known of a thread",
    ),
    ("net/closed.rs", "a part of net/request.rs: the connection ends"),
    ("net/role.rs", "a part of net/request.rs: who connected"),
    ("net/sequence.rs", "a part of net/request.rs: in which order bytes went"),
    ("go/goroutine.rs", "a part of go/sched.rs: what is known of a goroutine"),
    ("tokio/busy.rs", "a part of tokio/poll.rs: how long workers are busy"),
    (
        "go/lists.rs",
        "a part of go/sched.rs: goroutines that become runnable in lists",
    ),
    ("go/ready.rs", "a part of go/sched.rs: it becomes runnable"),
    ("go/run.rs", "a part of go/sched.rs: a goroutine starts to run"),
];

/// What stands beside the agent's signals and is none, and why; a folder by its trailing slash.
const BESIDE: &[(&str, &str)] = &[
    ("docs.rs", "the page of all signals"),
    ("events.rs", "what the events of all signals become"),
    ("plan/", "composes the plans of all signals"),
    ("points.rs", "what metrics and spans of all signals are made with"),
    ("runtimes.rs", "which runtime's signals are an executable's"),
    ("state.rs", "what the signals of one target keep between events"),
    ("summary.rs", "what the terminal shows of all signals"),
    ("go/layout.rs", "where the kernel programs find the runtime's facts"),
    (
        "go/origins.rs",
        "a part of go/sched.rs: goroutines' time by what they were started with",
    ),
    (
        "go/looks.rs",
        "a part of go/goroutines.rs: what goroutines did, over all walks",
    ),
    ("go/reasons.rs", "a part of go/sched.rs: which waits are reported"),
    (
        "go/stops.rs",
        "a part of go/stw.rs: the GC's stops until their cycle is seen",
    ),
    (
        "go/waits.rs",
        "a part of go/sched.rs and go/latency.rs: who waited, and waits that later ones link to",
    ),
];

/// Where signals have files.
struct Tree {
    root: &'static str,
    /// Files here that are no signal.
    beside: &'static [(&'static str, &'static str)],
    /// Signals without a file here.
    excused: &'static [(&'static str, &'static str)],
}

const TREES: [Tree; 4] = [
    Tree {
        root: AGENT,
        beside: BESIDE,
        excused: &[],
    },
    Tree {
        root: COMMON,
        beside: NO_SIGNAL,
        excused: WITHOUT_KERNEL_PART,
    },
    Tree {
        root: KERNEL,
        beside: NO_SIGNAL,
        excused: WITHOUT_KERNEL_PART,
    },
    Tree {
        root: TELEMETRY,
        beside: OF_NO_SIGNAL,
        excused: WITHOUT_TELEMETRY,
    },
];

pub(super) fn check<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let paths: Vec<&str> = paths.collect();
    let trees = TREES.map(|tree| (signals(&paths, &tree), tree));
    let mut complaints = Vec::new();
    for (signals, Tree { root, .. }) in &trees {
        for signal in signals {
            for (others, other) in &trees {
                if mirrored(root, other.root) && !others.contains(signal) && !listed(other.excused, signal) {
                    complaints.push(format!(
                        "{root}{signal} has no {}{signal} (the mirror rule, CONTRIBUTING.md)",
                        other.root
                    ));
                }
            }
        }
    }
    complaints
}

/// Whether one tree has the files of another: telemetry has those of the agent's signals only, so that a missing one is named once.
fn mirrored(one: &str, other: &str) -> bool {
    let of = |root: &str| one == root || other == root;
    one != other && (!of(TELEMETRY) || of(AGENT))
}

fn signals<'a>(paths: &[&'a str], tree: &Tree) -> BTreeSet<&'a str> {
    let root = tree.root;
    let inside = paths.iter().filter_map(|path| path.strip_prefix(root));
    inside
        .filter(|path| path.ends_with(".rs") && !path.ends_with("mod.rs"))
        .filter(|path| !listed(tree.beside, path))
        // `go.rs` beside a folder `go/` declares its modules, as `go/mod.rs` would.
        .filter(|path| {
            let folder = format!("{root}{}/", path.trim_end_matches(".rs"));
            !paths.iter().any(|other| other.starts_with(&folder))
        })
        .collect()
}

/// Whether a table names a path, or a folder of it.
fn listed(table: &[(&str, &str)], path: &str) -> bool {
    let is_it = |(listed, _): &(&str, &str)| *listed == path || listed.ends_with('/') && path.starts_with(listed);
    table.iter().any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_paths(paths: &[&str], expected: &[&str]) {
        let complaints = check(paths.iter().copied());
        let short: Vec<&str> = complaints.iter().filter_map(|text| text.split(" (").next()).collect();
        assert_eq!(short, expected);
    }

    #[test]
    fn a_whole_signal() {
        check_paths(
            &[
                "agent/src/signals/mod.rs",
                "agent/src/signals/go.rs",
                "agent/src/signals/go/sched.rs",
                "agent/src/telemetry/agent.rs",
                "agent/src/telemetry/go/mod.rs",
                "agent/src/telemetry/go/sched.rs",
                "agent-common/src/lib.rs",
                "agent-common/src/go/sched.rs",
                "agent-ebpf/src/main.rs",
                "agent-ebpf/src/go/mod.rs",
                "agent-ebpf/src/go/sched.rs",
            ],
            &[],
        );
    }

    #[test]
    fn each_missing_part_is_named() {
        check_paths(
            &["agent/src/signals/go/sched.rs", "agent-common/src/go/sched.rs"],
            &[
                "agent/src/signals/go/sched.rs has no agent-ebpf/src/go/sched.rs",
                "agent/src/signals/go/sched.rs has no agent/src/telemetry/go/sched.rs",
                "agent-common/src/go/sched.rs has no agent-ebpf/src/go/sched.rs",
            ],
        );
        check_paths(
            &["agent-ebpf/src/net.rs"],
            &[
                "agent-ebpf/src/net.rs has no agent/src/signals/net.rs",
                "agent-ebpf/src/net.rs has no agent-common/src/net.rs",
            ],
        );
    }

    #[test]
    fn plane_0_needs_no_kernel_part() {
        check_paths(
            &["agent/src/signals/go/runtime.rs", "agent/src/telemetry/go/runtime.rs"],
            &[],
        );
    }

    #[test]
    fn telemetry_stands_where_its_signal_does() {
        check_paths(
            &["agent/src/signals/go/runtime.rs", "agent/src/telemetry/runtime.rs"],
            &[
                "agent/src/signals/go/runtime.rs has no agent/src/telemetry/go/runtime.rs",
                "agent/src/telemetry/runtime.rs has no agent/src/signals/runtime.rs",
            ],
        );
        // The agent's own has a signal's file, and exports nothing.
        check_paths(
            &[
                "agent/src/signals/process/exec.rs",
                "agent-common/src/process/exec.rs",
                "agent-ebpf/src/process/exec.rs",
            ],
            &[],
        );
    }

    #[test]
    fn what_stands_beside_the_signals_has_no_mirror() {
        check_paths(
            &[
                "agent/src/signals/points.rs",
                "agent/src/signals/plan/needs.rs",
                "agent/src/signals/plan.rs",
                "agent-common/src/points.rs",
            ],
            &[
                "agent-common/src/points.rs has no agent/src/signals/points.rs",
                "agent-common/src/points.rs has no agent-ebpf/src/points.rs",
            ],
        );
    }

    #[test]
    fn a_listed_name_is_no_excuse_among_the_agents_signals() {
        check_paths(
            &["agent/src/signals/target.rs"],
            &[
                "agent/src/signals/target.rs has no agent-common/src/target.rs",
                "agent/src/signals/target.rs has no agent-ebpf/src/target.rs",
                "agent/src/signals/target.rs has no agent/src/telemetry/target.rs",
            ],
        );
    }
}
