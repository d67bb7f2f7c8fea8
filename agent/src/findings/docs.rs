//! docs/findings.md, made from the table of rules.

use std::fmt::Write as _;

use super::RULES;

const HEAD: &str = "# Findings
What the figures of a service mean, in a sentence, with its evidence and what to look at or change. Findings stand at the top of the summary of each service, in `whywait doctor --pid N`,
in the metric `whywait.finding`, and as log records when one begins and when it ends (docs/telemetry.md). This page is written from the table of rules (`RULES` in `agent/src/findings/mod.rs`) by its test.

- A rule compares the readings of the last minute. It is judged at each export of metrics (`--metric-interval`).
- A finding begins when its rule held at two readings that are 3 s apart or more, and ends when it has not held for 15 s; a rule that holds goes on to hold above 70 % of its threshold.
  The rules `go.goroutine.leak` and `go.threads.growing` compare many readings themselves, and need one judgement.
- Findings are in the order of the time that they explain, in seconds per second: time that threads, goroutines or callers would not have spent otherwise. 0 where nobody waits.
- Sureness is `high` for complete counts; `medium` where they come from windows, from a sample, or from a signal that is there in part; `low` where windows covered less than 5 % of the time.
  A rule whose signals are off, or saw nothing in the last minute, is not judged; `whywait doctor` prints which.
- `whywait doctor --pid N` attaches nothing. It judges by memory, /proc and cgroup files, for the time of `--look`.
- Metrics state a finding with the figures that it had when it began. They state it anew when it is about something else (another peer, another function), when its
  sureness changes, or when the time that it explains has doubled or halved: a series would end at each reading otherwise. `whywait.finding.explained` has the time of now.

| rule | what it says | evidence | what to look at or change | threshold, and why | instead of |
|---|---|---|---|---|---|
";

/// The whole page.
pub fn render() -> String {
    let mut page = String::from(HEAD);
    for rule in &RULES {
        let less: Vec<String> = rule.instead_of.iter().map(|name| format!("`{name}`")).collect();
        let cells = [rule.says, rule.evidence, rule.advice, rule.threshold, &less.join(", ")];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(page, "| `{}` | {} |", rule.name, cells.join(" | "));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::docs::check_page;

    #[test]
    fn the_page_is_what_the_table_says() {
        check_page("findings.md", &render());
    }
}
