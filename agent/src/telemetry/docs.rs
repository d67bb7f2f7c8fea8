//! docs/telemetry.md, made from the table.

use std::fmt::Write as _;

use super::{Instrument, Table};

/// The whole page.
pub fn render(table: &Table) -> String {
    let mut page = String::from(HEAD);
    page.push_str("\n## Metrics\n\n| name | kind | unit | what | attributes | source |\n|---|---|---|---|---|---|\n");
    for def in &table.metrics {
        let kind = match def.instrument {
            Instrument::Counter => "counter",
            Instrument::Gauge => "gauge",
            Instrument::UpDownCounter => "updowncounter",
            Instrument::Histogram => "histogram, the runtime's bounds",
            Instrument::ExponentialHistogram => "exponential histogram",
        };
        row(
            &mut page,
            &[
                &code(def.name),
                kind,
                &code(def.unit),
                def.description,
                &codes(def.attributes),
                def.source,
            ],
        );
    }
    page.push_str("\n## Spans\n\n| name | what | attributes | source |\n|---|---|---|---|\n");
    for def in &table.spans {
        row(
            &mut page,
            &[&code(def.name), def.description, &codes(def.attributes), def.source],
        );
    }
    page.push_str("\n## Events\n\nOTLP log records with an event name.\n\n| name | what | attributes | source |\n|---|---|---|---|\n");
    for def in &table.events {
        row(
            &mut page,
            &[&code(def.name), def.description, &codes(def.attributes), def.source],
        );
    }
    page.push_str("\n## Attributes of metrics, spans and events\n\n| key | type | what |\n|---|---|---|\n");
    for def in &table.attributes {
        row(&mut page, &[&code(def.key), def.kind, def.description]);
    }
    page.push_str(TAIL);
    page
}

const HEAD: &str = "# Telemetry\n\nEverything that the agent exports. This page is generated from `agent/src/telemetry`, and a test compares them. Names follow the OpenTelemetry semantic conventions if these have one; other names begin with the runtime's name or `whywait.`. All sums and histograms are cumulative. Exponential histograms have scale 4 (buckets 4.4 % wide): counts and sums are exact, a value's bucket is within 3.1 % of it.\n";

const TAIL: &str = "\n## Resources\n\nEach watched process is its own resource. `service.name` is the first of: the process' own `OTEL_SERVICE_NAME`, \
`service.name` in its `OTEL_RESOURCE_ATTRIBUTES`, its executable's name. The other attributes of its \
`OTEL_RESOURCE_ATTRIBUTES` are copied. In addition: `service.instance.id` (the same for a process' whole life), `process.pid`, \
`process.executable.name`, `process.executable.path`, `process.runtime.name`, `process.runtime.version`, `host.name`, \
`host.id`, `host.arch`, `os.type`, `container.id`, `telemetry.sdk.name`, `telemetry.sdk.language`, `telemetry.sdk.version`, \
`telemetry.distro.name`, `telemetry.distro.version`. The command line is not exported: it may contain secrets.\n";

fn row(page: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn codes(keys: &[&str]) -> String {
    keys.iter().map(|key| code(key)).collect::<Vec<_>>().join(", ")
}

/// Checks a page of docs/ that is made from a table, or writes it where UPDATE_DOCS is set.
#[cfg(test)]
pub fn check_page(name: &str, page: &str) {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/{name} differs from the table: run the tests with UPDATE_DOCS=1"
    );
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::signals;

    #[test]
    fn the_page_is_what_the_table_says() {
        check_page("telemetry.md", &render(&signals::telemetry()));
    }

    #[test]
    fn every_attribute_is_described_once() {
        let Table {
            metrics,
            spans,
            events,
            attributes,
        } = signals::telemetry();
        let keys: Vec<&str> = attributes.iter().map(|def| def.key).collect();
        let known: HashSet<&str> = keys.iter().copied().collect();
        assert_eq!(keys.len(), known.len(), "an attribute is described twice");
        let used = metrics
            .iter()
            .flat_map(|def| def.attributes)
            .chain(spans.iter().flat_map(|def| def.attributes))
            .chain(events.iter().flat_map(|def| def.attributes));
        for key in used {
            assert!(known.contains(key), "{key} is not described");
        }
        let mut names = HashSet::new();
        assert!(
            metrics.iter().all(|def| names.insert(def.name)),
            "a metric is defined twice"
        );
    }
}
