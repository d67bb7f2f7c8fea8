//! What is measured: loads, and the ways the agent is run beside them.

use anyhow::{Result, bail};

/// A load.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The service that carries it.
    pub(super) service: Service,
    pub(super) path: &'static str,
    pub(super) connections: u32,
}

#[derive(Clone, Copy)]
pub(super) enum Service {
    Shop,
    Stock,
}

/// What runs beside the services.
#[derive(Clone, Copy)]
pub(super) enum Watcher {
    /// The agent with these arguments.
    Agent(&'static [&'static str]),
    /// Empty programs where the agent has its probes: what any observer by uprobes costs at least.
    Traps,
    /// The control: nothing, so that its intervals are the machine's own noise.
    Nobody,
}

/// A way to be watched.
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) watcher: Watcher,
    /// Whether the bars are meant for it.
    pub(super) barred: bool,
}

const ITEM: Case = Case {
    name: "go-shop",
    service: Service::Shop,
    path: "/item?id={n}",
    connections: 4,
};

pub(super) const CASES: [Case; 4] = [
    ITEM,
    Case {
        name: "rust-stock",
        service: Service::Stock,
        path: "/stock/{n}",
        ..ITEM
    },
    // Two goroutines that do nothing but switch: 5000 round trips a request.
    Case {
        name: "go-shop, ping-pong",
        path: "/chan?n=5000",
        connections: 1,
        ..ITEM
    },
    // Some thousand GC cycles a second.
    Case {
        name: "go-shop, allocations",
        path: "/alloc?mb=1",
        ..ITEM
    },
];

/// How much a case is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Of its capacity, %; the whole is a closed loop.
    Share(u32),
    /// Requests a second.
    Rate(u32),
}

pub(super) const LEVELS: [Level; 3] = [Level::Share(30), Level::Share(70), Level::Share(100)];

impl Level {
    /// Requests a second, 0 for a closed loop; `capacity` is what that carries.
    pub(super) fn rate(self, capacity: f64) -> f64 {
        match self {
            Self::Share(100) => 0.0,
            Self::Share(percent) => (capacity * f64::from(percent) / 100.0).round().max(1.0),
            Self::Rate(rate) => rate.into(),
        }
    }
}

pub(super) const SETS: [Set; 7] = [
    Set {
        name: "plane 0 alone",
        watcher: Watcher::Agent(&[
            "--without",
            "go.gc,go.stw,go.sched,go.latency,go.assist,go.handoff,tokio.poll,tokio.wake,net.connect,net.request,net.retransmit,thread.run_queue",
        ]),
        barred: false,
    },
    Set {
        name: "planes 0 and 1, without a budget",
        watcher: Watcher::Agent(&[
            "--budget",
            "off",
            "--without",
            "go.gc,go.stw,go.sched,go.latency,go.assist,go.handoff,tokio.poll,tokio.wake",
        ]),
        barred: false,
    },
    Set {
        name: "the runtime's sample of starts, without a budget",
        watcher: Watcher::Agent(&[
            "--budget",
            "off",
            "--without",
            "go.gc,go.stw,go.sched,go.assist,go.handoff,tokio.poll,tokio.wake,net.connect,net.request,net.retransmit,thread.run_queue",
        ]),
        barred: false,
    },
    Set {
        name: "all, under the budget",
        watcher: Watcher::Agent(&[]),
        barred: true,
    },
    Set {
        name: "all, without a budget",
        watcher: Watcher::Agent(UNLIMITED),
        barred: false,
    },
    Set {
        name: "traps alone: an empty program at every place of a probe",
        watcher: Watcher::Traps,
        barred: false,
    },
    Set {
        name: "control: nobody in both windows",
        watcher: Watcher::Nobody,
        barred: false,
    },
];
pub(super) const UNLIMITED: &[&str] = &["--budget", "off"];

/// A case at a level: what `--case` chooses from.
pub(super) fn name(case: &Case, level: Level) -> String {
    match level {
        Level::Share(percent) => format!("{}, {percent} %", case.name),
        Level::Rate(rate) => format!("{}, {rate}/s", case.name),
    }
}

/// Every case at every level.
pub(super) fn all(levels: &[Level]) -> Vec<(&'static Case, Level)> {
    let of_case = |case| levels.iter().map(move |level| (case, *level));
    CASES.iter().flat_map(of_case).collect()
}

/// Indices of the names that hold one of `parts`, in their own order; a part that none holds is an error.
pub(super) fn choose(option: &str, parts: &[String], names: &[String]) -> Result<Vec<usize>> {
    if let Some(unknown) = parts.iter().find(|part| !names.iter().any(|name| name.contains(*part))) {
        bail!(
            "{option} {unknown:?} is in no name; there are:\n  {}",
            names.join("\n  ")
        );
    }
    let wanted = |name: &String| parts.iter().any(|part| name.contains(part));
    Ok((0..names.len()).filter(|at| wanted(&names[*at])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = [
        "all, under the budget",
        "all, without a budget",
        "traps alone",
        "control",
    ];

    #[track_caller]
    fn check(parts: &[&str], expected: Option<&[&str]>) {
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        let indices = choose("--set", &parts, &NAMES.map(str::to_owned)).ok();
        let chosen = indices.map(|indices| indices.into_iter().map(|at| NAMES[at]).collect::<Vec<_>>());
        assert_eq!(chosen.as_deref(), expected, "{parts:?}");
    }

    #[test]
    fn parts_of_names_choose() {
        let [under, without, traps, control] = NAMES;
        check(&["under"], Some(&[under]));
        check(&["alone", "without"], Some(&[without, traps]));
        check(&["all", "all, under"], Some(&[under, without]));
        check(&[""], Some(&[under, without, traps, control]));
        check(&["under", "over"], None);
    }

    #[test]
    fn an_unknown_part_lists_the_names() {
        let names = SETS.map(|set| set.name.to_owned());
        let why = choose("--set", &["over".to_owned()], &names).unwrap_err().to_string();
        assert!(
            why.contains("\"over\"") && names.iter().all(|name| why.contains(name)),
            "{why}"
        );
    }
}
