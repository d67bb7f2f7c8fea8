//! TCP connections.

use super::{
    AttributeDef,
    Instrument::{Counter, ExponentialHistogram},
    MetricDef, SpanDef,
    goroutine::GOROUTINE_ID,
    thread::THREAD_ID,
    tokio::{TOKIO_TASK_FUTURE, TOKIO_TASK_ID},
};

pub const NETWORK_TRANSPORT: &str = "network.transport";
pub const NETWORK_TYPE: &str = "network.type";
pub const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
pub const NETWORK_PEER_PORT: &str = "network.peer.port";
pub const SERVER_ADDRESS: &str = "server.address";
pub const SERVER_PORT: &str = "server.port";
pub const CLIENT_ADDRESS: &str = "client.address";
pub const NETWORK_CONNECTION_STATE: &str = "network.connection.state";
pub const OVERFLOW: &str = "otel.metric.overflow";

const SERVER_PEER: &[&str] = &[
    NETWORK_TRANSPORT,
    NETWORK_TYPE,
    NETWORK_PEER_ADDRESS,
    CLIENT_ADDRESS,
    SERVER_PORT,
    OVERFLOW,
];
const CLIENT_PEER: &[&str] = &[
    NETWORK_TRANSPORT,
    NETWORK_TYPE,
    NETWORK_PEER_ADDRESS,
    NETWORK_PEER_PORT,
    SERVER_ADDRESS,
    SERVER_PORT,
    OVERFLOW,
];

const ANY_PEER: &[&str] = &[
    NETWORK_TRANSPORT,
    NETWORK_TYPE,
    NETWORK_PEER_ADDRESS,
    NETWORK_PEER_PORT,
    CLIENT_ADDRESS,
    SERVER_ADDRESS,
    SERVER_PORT,
    NETWORK_CONNECTION_STATE,
    OVERFLOW,
];

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
pub static SERVER_REQUEST_DURATION: MetricDef = MetricDef {
    name: "whywait.server.request.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Duration of requests served, from the first byte read to the first byte of the answer sent. One request at a time per connection, as in HTTP/1.1.",
    source: "tp_btf: sock_recv_length, sock_send_length; before 6.3 fexit: inet_recvmsg, inet_sendmsg and their IPv6 variants",
    attributes: SERVER_PEER,
};
pub static CLIENT_REQUEST_DURATION: MetricDef = MetricDef {
    name: "whywait.client.request.duration",
    unit: "s",
    instrument: ExponentialHistogram,
    description: "Duration of requests made, from the first byte sent to the first byte of the answer read.",
    source: "as whywait.server.request.duration",
    attributes: CLIENT_PEER,
};
pub static SERVER_REQUEST_UNANSWERED: MetricDef = MetricDef {
    name: "whywait.server.request.unanswered",
    unit: "{request}",
    instrument: Counter,
    description: "Connections that ended after the service read a request, or other last bytes of the client such as TLS close_notify, and before any byte of an answer was acknowledged: the client gave up, or the service closed. No duration includes them.",
    source: "as whywait.server.request.duration, and tp_btf: inet_sock_set_state",
    attributes: SERVER_PEER,
};
pub static CLIENT_REQUEST_UNANSWERED: MetricDef = MetricDef {
    name: "whywait.client.request.unanswered",
    unit: "{request}",
    instrument: Counter,
    description: "Connections that ended after the service sent a request, or other last bytes such as TLS close_notify, and before any byte of an answer arrived: the service gave up, or its peer closed. No duration includes them.",
    source: "as whywait.server.request.unanswered",
    attributes: CLIENT_PEER,
};

pub static RETRANSMITS: MetricDef = MetricDef {
    name: "whywait.tcp.retransmits",
    unit: "{segment}",
    instrument: Counter,
    description: "TCP segments that the kernel sent again because no acknowledgement came in time, in the state that the connection was in. A lost SYN costs a connect 1 s, other lost segments cost at least 200 ms where nothing is sent after them. Not of MPTCP.",
    source: "tp_btf: tcp_retransmit_skb",
    attributes: ANY_PEER,
};

pub static METRICS: &[&MetricDef] = &[
    &CONNECT_DURATION,
    &CONNECT_FAILED,
    &SERVER_REQUEST_DURATION,
    &CLIENT_REQUEST_DURATION,
    &SERVER_REQUEST_UNANSWERED,
    &CLIENT_REQUEST_UNANSWERED,
    &RETRANSMITS,
];

pub static SPANS: &[SpanDef] = &[
    SpanDef {
        name: "connect {address}:{port}",
        description: "A TCP connect that took longer than --slow-request.",
        source: "as whywait.tcp.connect.duration",
        attributes: &[
            NETWORK_TRANSPORT,
            NETWORK_TYPE,
            NETWORK_PEER_ADDRESS,
            NETWORK_PEER_PORT,
            SERVER_ADDRESS,
            SERVER_PORT,
            GOROUTINE_ID,
            TOKIO_TASK_ID,
            TOKIO_TASK_FUTURE,
            THREAD_ID,
        ],
    },
    SpanDef {
        name: "serve :{port}",
        description: "A request served that took longer than --slow-request.",
        source: "as whywait.server.request.duration",
        attributes: &[
            NETWORK_TRANSPORT,
            NETWORK_TYPE,
            NETWORK_PEER_ADDRESS,
            CLIENT_ADDRESS,
            SERVER_PORT,
            GOROUTINE_ID,
            TOKIO_TASK_ID,
            TOKIO_TASK_FUTURE,
            THREAD_ID,
        ],
    },
    SpanDef {
        name: "request {address}:{port}",
        description: "A request made that took longer than --slow-request.",
        source: "as whywait.client.request.duration",
        attributes: &[
            NETWORK_TRANSPORT,
            NETWORK_TYPE,
            NETWORK_PEER_ADDRESS,
            NETWORK_PEER_PORT,
            SERVER_ADDRESS,
            SERVER_PORT,
            GOROUTINE_ID,
            TOKIO_TASK_ID,
            TOKIO_TASK_FUTURE,
            THREAD_ID,
        ],
    },
];

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: NETWORK_TRANSPORT,
        kind: "string",
        description: "`tcp`.",
    },
    AttributeDef {
        key: NETWORK_TYPE,
        kind: "string",
        description: "`ipv4` or `ipv6`; IPv4 on an IPv6 socket is `ipv4`.",
    },
    AttributeDef {
        key: NETWORK_PEER_ADDRESS,
        kind: "string",
        description: "Address at the other end.",
    },
    AttributeDef {
        key: NETWORK_PEER_PORT,
        kind: "int",
        description: "Port at the other end; absent for clients of the service.",
    },
    AttributeDef {
        key: SERVER_ADDRESS,
        kind: "string",
        description: "Address of the server that was called.",
    },
    AttributeDef {
        key: SERVER_PORT,
        kind: "int",
        description: "Port of the server: the service's own, or the one it called.",
    },
    AttributeDef {
        key: CLIENT_ADDRESS,
        kind: "string",
        description: "Address of the client.",
    },
    AttributeDef {
        key: NETWORK_CONNECTION_STATE,
        kind: "string",
        description: "State of the TCP connection: `syn_sent` while it connects, `established`, `close_wait` and so on.",
    },
    AttributeDef {
        key: OVERFLOW,
        kind: "bool",
        description: "Values of peers beyond the limit of 4096.",
    },
];
