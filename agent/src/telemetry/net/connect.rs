//! TCP connects.

use crate::telemetry::{
    Defs,
    Instrument::{Counter, ExponentialHistogram},
    MetricDef, SpanDef,
    net::{CLIENT_PEER, CLIENT_SPAN},
};

pub static CONNECT_DURATION: MetricDef = MetricDef {
    name: "whywait.tcp.connect.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Duration of TCP connects of the service, from SYN sent to established.",
    source: "tp_btf: inet_sock_set_state",
    attributes: CLIENT_PEER,
};
pub static CONNECT_FAILED: MetricDef = MetricDef {
    name: "whywait.tcp.connect.failed",
    unit: "{connect}",
    instrument: Counter,
    description: "TCP connects that failed.",
    source: "tp_btf: inet_sock_set_state",
    attributes: &[],
};

pub static DEFS: Defs = Defs {
    metrics: &[&CONNECT_DURATION, &CONNECT_FAILED],
    spans: &[SpanDef {
        name: "connect {address}:{port}",
        description: "A TCP connect that took longer than --slow-request.",
        source: "as whywait.tcp.connect.duration",
        attributes: CLIENT_SPAN,
    }],
    attributes: &[],
};
