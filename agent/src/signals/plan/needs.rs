//! What signals have of each other. Whatever keeps one from being there (a flag, the kernel, the binary), those that use it say so.

use crate::{
    signal::{Coverage, SignalState},
    signals::{Need, SIGNALS},
};

/// Says of each signal what it cannot tell since another is off. One that its runtime's version lacks could not be told in any case.
pub fn resolve(states: &mut [SignalState]) {
    let needs = SIGNALS
        .iter()
        .flat_map(|signal| signal.needs.iter().map(|need| (signal.name, need)));
    for (signal, Need { of, lost }) in needs {
        let is_off = |state: &SignalState| state.signal == *of && matches!(state.coverage, Coverage::Off(_));
        if !states.iter().any(is_off) {
            continue;
        }
        for state in states.iter_mut().filter(|state| state.signal == signal) {
            state.coverage.lessen(&format!("{lost}: {of} is off"));
        }
    }
}
