//! TCP segments that were sent again.

use crate::telemetry::{
    AttributeDef, Defs,
    Instrument::Counter,
    MetricDef, OVERFLOW,
    net::{
        CLIENT_ADDRESS, NETWORK_PEER_ADDRESS, NETWORK_PEER_PORT, NETWORK_TRANSPORT, NETWORK_TYPE, SERVER_ADDRESS,
        SERVER_PORT,
    },
};

pub const NETWORK_CONNECTION_STATE: &str = "network.connection.state";

pub static RETRANSMITS: MetricDef = MetricDef {
    name: "whywait.tcp.retransmits",
    unit: "{segment}",
    instrument: Counter,
    description: "TCP segments that the kernel sent again because no acknowledgement came in time, in the state that the connection was in. A lost SYN costs a connect 1 s, other lost segments cost at least 200 ms where nothing is sent after them. Not of MPTCP.",
    source: "tp_btf: tcp_retransmit_skb",
    attributes: &[
        NETWORK_TRANSPORT,
        NETWORK_TYPE,
        NETWORK_PEER_ADDRESS,
        NETWORK_PEER_PORT,
        CLIENT_ADDRESS,
        SERVER_ADDRESS,
        SERVER_PORT,
        NETWORK_CONNECTION_STATE,
        OVERFLOW,
    ],
};

pub static DEFS: Defs = Defs {
    metrics: &[&RETRANSMITS],
    spans: &[],
    attributes: &[AttributeDef {
        key: NETWORK_CONNECTION_STATE,
        kind: "string",
        description: "State of the TCP connection: `syn_sent` while it connects, `established`, `close_wait` and so on.",
    }],
};
