//! What signals have of each other. Whatever keeps one from being there (a flag, the kernel, the binary), those that use it say so.

use crate::{
    signal::{Coverage, LEFT_OUT, SignalState},
    signals::{Need, SIGNALS},
};

/// Says of each signal what it cannot tell since another is off. One that its runtime's version lacks could not be told in any case.
pub fn resolve(states: &mut [SignalState]) {
    let needs = SIGNALS
        .iter()
        .flat_map(|signal| signal.needs.iter().map(|need| (signal.name, need)));
    for (signal, Need { of, lost }) in needs {
        if off(states, of).is_none() {
            continue;
        }
        for state in states.iter_mut().filter(|state| state.signal == signal) {
            state.coverage.lessen(&format!("{lost}: {of} is off"));
        }
    }
    for signal in SIGNALS.iter().filter(|signal| signal.needs_any) {
        let off: Vec<&str> = signal.needs.iter().filter_map(|need| off(states, need.of)).collect();
        if off.len() < signal.needs.len() {
            continue;
        }
        let reason = if off.iter().all(|reason| *reason == LEFT_OUT) {
            LEFT_OUT.to_owned()
        } else {
            let names: Vec<&str> = signal.needs.iter().map(|need| need.of).collect();
            format!("{} are off", names.join(" and "))
        };
        for state in states.iter_mut().filter(|state| state.signal == signal.name) {
            state.coverage.end(&reason);
        }
    }
}

/// Why a signal is off, if it is.
fn off<'a>(states: &'a [SignalState], signal: &str) -> Option<&'a str> {
    states.iter().find_map(|state| match &state.coverage {
        Coverage::Off(reason) if state.signal == signal => Some(reason.as_str()),
        _ => None,
    })
}
