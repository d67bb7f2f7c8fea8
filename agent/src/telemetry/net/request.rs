//! Requests on TCP connections.

use crate::telemetry::{
    Defs,
    Instrument::{Counter, ExponentialHistogram},
    MetricDef, SpanDef,
    go::GOROUTINE_ID,
    net::{
        CLIENT_ADDRESS, CLIENT_PEER, CLIENT_SPAN, NETWORK_PEER_ADDRESS, NETWORK_TRANSPORT, NETWORK_TYPE, SERVER_PEER,
        SERVER_PORT,
    },
    thread::THREAD_ID,
    tokio::{TOKIO_TASK_FUTURE, TOKIO_TASK_ID},
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

pub static DEFS: Defs = Defs {
    metrics: &[
        &SERVER_REQUEST_DURATION,
        &CLIENT_REQUEST_DURATION,
        &SERVER_REQUEST_UNANSWERED,
        &CLIENT_REQUEST_UNANSWERED,
    ],
    spans: &[
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
            attributes: CLIENT_SPAN,
        },
    ],
    attributes: &[],
};
