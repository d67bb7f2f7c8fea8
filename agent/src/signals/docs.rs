//! docs/signals.md, made from the table of signals.

use std::{collections::BTreeSet, fmt::Write as _};

use agent_common::hits::{HitKind, Plane, When};

use super::{Need, SIGNALS, Signal};

const HEAD: &str = "# Signals
The table of signals (`SIGNALS` in `agent/src/signals/mod.rs`), written by its test. Names are those of `--without` and `--with`. Plane 0 reads memory and files and costs the target
nothing, plane 1 is the kernel's tracepoints (1a on sockets, 1b on threads). Plane 2 is uprobes; 2s is one that is hit once for each value of a sample that the runtime takes itself. A signal whose need is off reports less, and says so.

| signal | plane | kernel programs | needs | metrics | spans |
|---|---|---|---|---|---|
";

/// The whole page.
pub fn render() -> String {
    let mut page = String::from(HEAD);
    for signal in &SIGNALS {
        let needs = signal
            .needs
            .iter()
            .map(|Need { of, lost }| format!("`{of}` (without it {lost})"));
        let metrics = signal.telemetry.metrics.iter().map(|def| code(def.name));
        let spans = signal.telemetry.spans.iter().map(|def| code(def.name));
        let cells = [
            code(signal.name),
            plane(signal).to_owned(),
            join(programs(signal).into_iter().map(code)),
            join(needs),
            join(metrics),
            join(spans),
        ];
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
    page
}

fn plane(signal: &Signal) -> &'static str {
    let is_always = |kind: &HitKind| kind.when() == When::Always;
    match (&signal.hook, signal.probes) {
        (_, []) => "0",
        (_, probes) if probes.iter().all(is_always) => "2, always",
        (Some(hook), _) if hook.asked.is_some() => "1b, with `--with`",
        (_, [first, ..]) => match first.plane() {
            Plane::Sockets => "1a, within the budget",
            Plane::Sample => "2s, within the budget",
            Plane::Threads => "1b, within the budget",
            Plane::Probes => "2, within the budget",
        },
    }
}

/// Its programs.
fn programs(signal: &Signal) -> BTreeSet<&'static str> {
    let Some(hook) = &signal.hook else {
        let counted = signal.probes.iter().flat_map(|kind| HitKind::ALL[*kind as usize].1);
        return counted.copied().collect();
    };
    let programs = hook.alternatives.iter().flat_map(|alternative| alternative.programs);
    programs.map(|(name, _)| *name).collect()
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use agent_common::histogram::Series;

    use super::*;
    use crate::telemetry::docs::check_page;

    #[test]
    fn the_page_is_what_the_table_says() {
        check_page("signals.md", &render());
    }

    /// How many signals have it.
    fn owners<T: PartialEq + 'static>(of: &T, has: impl Fn(&Signal) -> &'static [T]) -> usize {
        SIGNALS.iter().filter(|signal| has(signal).contains(of)).count()
    }

    #[test]
    fn what_programs_count_belongs_to_one_signal() {
        for series in Series::ALL {
            assert_eq!(owners(series, |signal| signal.series), 1, "{series:?}");
        }
        for (kind, _) in HitKind::ALL {
            // The agent's own: threads that end, hooks that do not count, pauses before hits.
            let own = matches!(kind, HitKind::ThreadExit | HitKind::HookIdle) || kind.is_cold();
            assert_eq!(owners(&kind, |signal| signal.probes), usize::from(!own), "{kind:?}");
        }
    }

    #[test]
    fn what_is_always_attached_is_counted_outside_windows_too() {
        for signal in &SIGNALS {
            let always = |kind: &HitKind| kind.when() == When::Always;
            let name = signal.name;
            assert!(signal.probes.iter().all(|kind| always(kind) == signal.always), "{name}");
            let of_windows = |series: &Series| series.plane().is_some();
            assert!(
                signal.series.iter().all(|series| of_windows(series) != signal.always),
                "{name}"
            );
        }
    }

    #[test]
    fn each_program_of_a_hook_is_paid_for() {
        let counted: BTreeSet<&str> = HitKind::ALL
            .iter()
            .flat_map(|(_, programs)| *programs)
            .copied()
            .collect();
        for signal in &SIGNALS {
            let missing: Vec<_> = programs(signal)
                .into_iter()
                .filter(|name| !counted.contains(name))
                .collect();
            assert!(missing.is_empty(), "{}: {missing:?} in no row of probes!", signal.name);
        }
    }
}
