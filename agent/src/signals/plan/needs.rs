//! What signals have of each other. Whatever keeps one from being there (a flag, the kernel, the binary), those that use it say so.

use crate::{
    signal::{Coverage, SignalState},
    signals::{go, process, thread},
};

/// A signal that is less than it could be without another.
struct Need {
    signal: &'static str,
    of: &'static str,
    /// What it does not tell then.
    lost: &'static str,
}

const NEEDS: [Need; 6] = [
    Need {
        signal: go::sched::NAME,
        of: thread::run_queue::NAME,
        lost: "what threads spent off their cores is not told apart",
    },
    Need {
        signal: go::sched::NAME,
        of: process::quota::NAME,
        lost: "which quota throttles is not told",
    },
    Need {
        signal: go::stw::NAME,
        of: thread::run_queue::NAME,
        lost: "whether threads that were late waited for a core is not told",
    },
    // The GC's stops are part of its cycles' traces.
    Need {
        signal: go::stw::NAME,
        of: go::gc::NAME,
        lost: "the GC's stops have no spans",
    },
    Need {
        signal: go::gc::NAME,
        of: go::stw::NAME,
        lost: "why cycles begin, and who is late to stop for them, is not told",
    },
    Need {
        signal: go::gc::NAME,
        of: go::assist::NAME,
        lost: "who pays a cycle's assists is not told",
    },
];

/// Says of each signal what it cannot tell since another is off. One that its runtime's version lacks could not be told in any case.
pub fn resolve(states: &mut [SignalState]) {
    for Need { signal, of, lost } in NEEDS {
        let is_off = |state: &SignalState| state.signal == of && matches!(state.coverage, Coverage::Off(_));
        if !states.iter().any(is_off) {
            continue;
        }
        for state in states.iter_mut().filter(|state| state.signal == signal) {
            state.coverage.lessen(&format!("{lost}: {of} is off"));
        }
    }
}
