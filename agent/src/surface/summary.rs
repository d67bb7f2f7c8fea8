//! What people see in the terminal: a table a target, refreshed in place on a terminal, a line a target elsewhere.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use agent_common::loss::Loss;
use crossterm::{
    cursor::{MoveToColumn, MoveUp},
    queue,
    terminal::{Clear, ClearType},
};

use crate::{
    aggregate::store::Reading,
    aside::{Aside, Failure},
    export::ExportStats,
    findings::{self, Finding, Rule},
    limits::Shed,
    signal::Coverage,
    signals::{self, summary::Row},
    watch::{Bound, PlaneState, Watched},
};

use super::output::{Picture, Shown};

/// Bytes of pictures that may wait for who reads them.
const ROOM: usize = 64 << 10;
/// How long ago the last window of a plane must be for the summary to report it, s.
const LONG_UNSEEN: u64 = 5;

/// Where the summary goes, and what is there now. Nothing waits for who reads it.
pub struct Screen {
    in_place: bool,
    /// Lines of the last picture.
    drawn: u16,
    out: Aside,
    /// Pictures that found no room.
    pub left_out: u64,
}

impl Screen {
    /// A screen on standard output.
    pub fn new(plain: bool) -> io::Result<Self> {
        Ok(Self {
            in_place: !plain && io::stdout().is_terminal(),
            drawn: 0,
            out: Aside::begin("screen", io::stdout(), ROOM, Failure::Passes)?,
            left_out: 0,
        })
    }

    /// Whether pictures replace each other.
    pub fn is_live(&self) -> bool {
        self.in_place
    }

    /// Draws a picture over the last one, or after it.
    pub fn draw(&mut self, picture: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut drawn = self.drawn;
        if self.in_place {
            let (width, height) = crossterm::terminal::size().unwrap_or((120, 40));
            if drawn > 0 {
                queue!(bytes, MoveToColumn(0), MoveUp(drawn), Clear(ClearType::FromCursorDown))?;
            }
            let lines: Vec<String> = picture
                .lines()
                .take(usize::from(height.saturating_sub(1)))
                .map(|line| line.chars().take(usize::from(width.saturating_sub(1))).collect())
                .collect();
            drawn = lines.len() as u16;
            for line in lines {
                writeln!(bytes, "{line}")?;
            }
        } else {
            bytes.extend_from_slice(picture.as_bytes());
        }
        if self.out.offer(bytes) {
            self.drawn = drawn;
        } else {
            self.left_out += 1;
        }
        Ok(())
    }

    /// What is on the screen stays there.
    pub fn keep(&mut self) {
        self.drawn = 0;
    }

    /// A line after all pictures.
    pub fn say(&self, parts: std::fmt::Arguments<'_>) {
        let mut line = Picture::default();
        line.line(parts);
        self.out.force(line.text.into_bytes());
    }

    /// How many pictures and lines could not be written since the last call, and why the last one could not.
    pub fn failed(&self) -> Option<(u64, io::Error)> {
        self.out.failed()
    }

    /// Waits no longer than `most` until all is written.
    pub fn finish(&self, most: Duration) {
        self.out.finish(most);
    }
}

/// Everything a picture is made of.
pub struct View<'a> {
    pub targets: Vec<&'a Watched>,
    pub reading: &'a Reading,
    pub export: &'a ExportStats,
    pub received: u64,
    pub rejected: u64,
    /// Events whose spans were more than the limit.
    pub over_limit: u64,
    /// Runs of the kernel side's programs that the kernel skipped.
    pub skipped: u64,
    /// What the agent gives up to stay within its own limits.
    pub shed: Shed,
    pub ran: Duration,
    /// Spans made, by name of the kind.
    pub spans: u64,
    /// Targets that ended.
    pub ended: usize,
}

/// A line of a picture.
macro_rules! line {
    ($picture:expr, $($part:tt)*) => { $picture.line(format_args!($($part)*)) };
}

/// The picture, many lines.
pub fn render(view: &View<'_>) -> String {
    let mut text = Picture::default();
    line!(
        text,
        "whywait  {}  {} targets  {} spans  {} events",
        humantime::format_duration(Duration::from_secs(view.ran.as_secs())),
        view.targets.len(),
        view.spans,
        view.received
    );
    for watched in &view.targets {
        render_target(&mut text, watched, view.reading);
    }
    if view.targets.is_empty() {
        let said = match view.ended {
            0 => "no Go or tokio process yet; new ones are found as they start",
            _ => "every process that was watched has ended; new ones are found as they start",
        };
        line!(text, "{said}");
    }
    let mut lost: Vec<String> = Loss::ALL
        .iter()
        .map(|(cause, name)| (name, view.reading.loss[*cause as usize]))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if view.over_limit > 0 {
        lost.push(format!("spans of {} events (--max-spans)", view.over_limit));
    }
    if view.skipped > 0 {
        lost.push(format!(
            "{} runs of programs that the kernel skipped (recursion)",
            view.skipped
        ));
    }
    if view.shed > Shed::Nothing {
        lost.push(format!("within the agent's own limits: {}", view.shed.text()));
    }
    let lost = if lost.is_empty() {
        "nothing".to_owned()
    } else {
        lost.join(", ")
    };
    let export = view.export;
    line!(
        text,
        "lost: {lost}; undecodable {}; exported {} of {} spans and points{}, dropped {}",
        view.rejected,
        export.total_sent(),
        export.total_produced(),
        if export.is_down() {
            " (endpoint does not answer)"
        } else {
            ""
        },
        export.dropped_text()
    );
    text.text
}

/// What there is to say of a target.
pub fn of_target(watched: &Watched, reading: &Reading) -> String {
    let mut text = Picture::default();
    render_target(&mut text, watched, reading);
    text.text
}

fn render_target(text: &mut Picture, watched: &Watched, reading: &Reading) {
    let name = watched.target.resource.get("service.name").unwrap_or_default();
    let kind = match watched.target.image.as_deref() {
        Some(image) => image.name(),
        None => "runtime not watched".to_owned(),
    };
    line!(text, "");
    line!(text, "{name}  pid {}  {}", watched.target.process.pid, kind);
    let raised = watched.findings.raised();
    for (rule, raised) in &raised {
        render_finding(text, rule, &raised.now);
    }
    let is_whole = |signal: &str| is_whole(watched, reading, signal);
    let summary = signals::summary(&watched.target, &watched.state, reading, is_whole);
    for fact in &summary.facts {
        line!(text, "  {fact}");
    }
    if let Some(share) = watched.overhead.share() {
        let mut costs = format!(
            "  watching costs {:.2} % of a core, {:.1} % of its own CPU",
            100.0 * watched.overhead.of_a_core(watched.target.since),
            100.0 * share
        );
        for (plane_state, what) in [
            (&watched.sockets, "sockets"),
            (&watched.sample, "the sample of scheduling latency"),
            (&watched.threads, "threads"),
            (&watched.probes, "goroutines or tasks"),
        ] {
            if plane_state.extrapolated {
                let share = 100.0 * plane_state.coverage(reading.time);
                let _ = write!(costs, "; {what} seen {share:.1} % of the time");
                let unseen = Duration::from_nanos(plane_state.unseen(reading.time)).as_secs();
                if unseen >= LONG_UNSEEN {
                    let _ = write!(costs, ", last {unseen} s ago");
                }
                if plane_state.is_outdated() {
                    let _ = costs.write_str(" under less load (–)");
                }
                let _ = match plane_state.bound() {
                    Bound::Budget => Ok(()),
                    Bound::Shortest => costs.write_str(" (the shortest window costs more than --budget)"),
                    Bound::Tail => costs.write_str(" (more would make requests slower: --budget-p99)"),
                    Bound::Neighbour(pid) => write!(costs, " (process {pid} pays for it too)"),
                };
            }
        }
        line!(text, "{costs}");
        if let Some((cores, share)) = watched.full_cost() {
            line!(
                text,
                "  to see everything all the time: {:.2} % of a core, --budget {}%",
                100.0 * cores,
                (110.0 * share).ceil()
            );
        }
    }
    line!(
        text,
        "  {:<58}{:>10}{:>10}{:>10}{:>10}",
        "",
        "count",
        "p50",
        "p90",
        "p99"
    );
    for Row {
        signal,
        label,
        histogram,
        ..
    } in summary.whole.iter().chain(&summary.split)
    {
        // Not the old figures, where they are not those of now.
        let is_outdated = watched.plane_of(signal).is_some_and(PlaneState::is_outdated);
        let known = |text: String| if is_outdated { "–".to_owned() } else { text };
        let quantile = |q| known(histogram.quantile(q).map_or_else(String::new, duration));
        let label: String = Shown(label).to_string().chars().take(57).collect();
        line!(
            text,
            "  {label:<58}{:>10}{:>10}{:>10}{:>10}",
            known(histogram.count().to_string()),
            quantile(0.5),
            quantile(0.9),
            quantile(0.99)
        );
    }
    let is_told = |about: &str| raised.iter().any(|(rule, _)| rule.instead_of_note == Some(about));
    for note in summary.notes.iter().filter(|note| !is_told(note.about)) {
        line!(text, "  {}", note.text);
    }
    for state in &watched.state.states {
        match &state.coverage {
            Coverage::Full => {}
            Coverage::Partial(reason) => {
                line!(text, "  {}: in part: {reason}", state.signal);
            }
            Coverage::Off(reason) | Coverage::Lacking(reason) => {
                line!(text, "  {}: off: {reason}", state.signal);
            }
        }
    }
}

/// A finding: what was found, why that is so, and what to do.
pub fn render_finding(text: &mut Picture, rule: &Rule, finding: &Finding) {
    let evidence: Vec<String> = finding.evidence.iter().map(ToString::to_string).collect();
    line!(text, "  * {}", finding.sentence);
    line!(
        text,
        "      {}: explains {} s/s, sureness {}; {}",
        rule.name,
        findings::short(finding.explained),
        finding.sureness.name(),
        evidence.join(", ")
    );
    line!(text, "      do: {}", finding.advice);
}

/// Whether a signal is complete, and its plane's windows were always open.
fn is_whole(watched: &Watched, reading: &Reading, signal: &str) -> bool {
    let mut states = watched.state.states.iter();
    let is_full = states.any(|state| state.signal == signal && state.coverage == Coverage::Full);
    let plane_state = watched.plane_of(signal);
    is_full && plane_state.is_none_or(|plane_state| plane_state.coverage(reading.time) >= 1.0)
}

/// Three significant digits and a unit.
fn duration(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (nanos as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let decimals = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
#[path = "tests/summary.rs"]
mod tests;
