//! Findings: metrics, and events when one begins or ends.

use super::{AttributeDef, Defs, EventDef, Instrument::Gauge, MetricDef};

pub const NAME: &str = "whywait.finding.name";
pub const SENTENCE: &str = "whywait.finding.sentence";
pub const SURENESS: &str = "whywait.finding.sureness";
pub const EXPLAINED: &str = "whywait.finding.explained_time";
pub const EVIDENCE: &str = "whywait.finding.evidence";
pub const ADVICE: &str = "whywait.finding.advice";
pub const SINCE: &str = "whywait.finding.age";

pub const FINDING_BEGINS: &str = "whywait.finding.begin";
pub const FINDING_ENDS: &str = "whywait.finding.end";

const ALL: &[&str] = &[NAME, SENTENCE, SURENESS, EXPLAINED, EVIDENCE, ADVICE, SINCE];

pub static FINDING: MetricDef = MetricDef {
    name: "whywait.finding",
    unit: "1",
    instrument: Gauge,
    description: "1 for each finding of a target that holds (docs/findings.md); absent while there is none. The figures in its attributes are those of when it was stated.",
    source: "agent",
    attributes: &[NAME, SENTENCE, SURENESS, EXPLAINED],
};
pub static FINDING_EXPLAINED: MetricDef = MetricDef {
    name: "whywait.finding.explained",
    unit: "s/s",
    instrument: Gauge,
    description: "Time that a finding explains now, in seconds per second, averaged over the last minute.",
    source: "agent",
    attributes: &[NAME],
};

pub static DEFS: Defs = Defs {
    metrics: &[&FINDING, &FINDING_EXPLAINED],
    spans: &[],
    attributes: &[
        AttributeDef {
            key: NAME,
            kind: "string",
            description: "The rule, as in docs/findings.md.",
        },
        AttributeDef {
            key: SENTENCE,
            kind: "string",
            description: "What was found.",
        },
        AttributeDef {
            key: SURENESS,
            kind: "string",
            description: "How sure it is: `high`, `medium` or `low`.",
        },
        AttributeDef {
            key: EXPLAINED,
            kind: "double",
            description: "Time that it explains, seconds per second, when it was stated.",
        },
        AttributeDef {
            key: EVIDENCE,
            kind: "string[]",
            description: "Its figures.",
        },
        AttributeDef {
            key: ADVICE,
            kind: "string",
            description: "What to look at or change.",
        },
        AttributeDef {
            key: SINCE,
            kind: "double",
            description: "For how long its rule has held, s.",
        },
    ],
};

pub static EVENTS: &[EventDef] = &[
    EventDef {
        name: FINDING_BEGINS,
        description: "A finding begins. The body is its sentence; severity WARN.",
        source: "agent",
        attributes: ALL,
    },
    EventDef {
        name: FINDING_ENDS,
        description: "A finding ends: its rule has not held for 15 s, or the target ended. With the last figures; severity INFO.",
        source: "agent",
        attributes: ALL,
    },
];
