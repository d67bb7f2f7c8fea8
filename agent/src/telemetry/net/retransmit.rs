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
    unit: "{retransmission}",
    instrument: Counter,
    description: "TCP retransmissions, each of one segment or of several that are sent as one: after a timeout, after acknowledgements that show a loss, or as a tail-loss probe. By the state of the connection: a lost SYN (`syn_sent`) delays a connect by 1 s. Without SYN-ACKs; of MPTCP only SYNs. Under a budget a lower bound: only connections on which a window saw bytes are known.",
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
