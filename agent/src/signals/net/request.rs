//! Requests on a target's connections: as a server, first byte read → first byte of the answer sent; as a client, first
//! byte sent → first byte of the answer read.

use agent_common::{
    histogram::Series,
    hits::HitKind,
    net::{Peer, ROLE_SERVER, request::Request},
};

use super::{actor_attributes, address, by_peer, counts_by_peer, exemplars_of, peer_attributes, peer_label, remote};
use crate::{
    aggregate::store::Reading,
    model::{Attribute, Metric, MonoNs, Span, SpanKind},
    signal::{Alternative, Hook, Point},
    signals::events::{EventKind, SignalEvent},
    signals::points::slow_span,
    signals::summary::{Summary, largest},
    signals::{Check, Signal, State},
    target::Target,
    telemetry::{
        net::request::{
            CLIENT_REQUEST_DURATION, CLIENT_REQUEST_UNANSWERED, DEFS, SERVER_REQUEST_DURATION,
            SERVER_REQUEST_UNANSWERED,
        },
        thread::THREAD_ID,
    },
};

pub const NAME: &str = "net.request";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::NetMoved],
    series: &[
        Series::ServerRequest,
        Series::ClientRequest,
        Series::ServerUnanswered,
        Series::ClientUnanswered,
        Series::RequestInside,
    ],
    hook: Some(HOOK),
    start: Some(|_, _, thresholds, kernel| kernel.slow_request = thresholds.request),
    events: &[EventKind::of::<Request>()],
    summary: Some(|target, _, reading| summary(target, reading)),
    check: Some(Check {
        what: "requests",
        count: |target, _, reading| {
            let both = [Series::ServerRequest, Series::ClientRequest];
            both.map(|series| reading.whole(target.id, series).count()).iter().sum()
        },
    }),
    ..Signal::new(NAME, &DEFS, metrics)
};

/// A socket's entry ends with it.
const CLOSED: (&str, Point) = ("net_closed", Point::TpBtf("inet_sock_set_state"));

const HOOK: Hook = Hook {
    signal: NAME,
    alternatives: &[
        // Since 6.3 (linux, include/trace/events/sock.h).
        Alternative {
            name: "tp_btf/sock_send_length,sock_recv_length",
            programs: &[
                ("net_send", Point::TpBtf("sock_send_length")),
                ("net_recv", Point::TpBtf("sock_recv_length")),
                CLOSED,
            ],
            without_ipv6: None,
        },
        Alternative {
            name: "fexit/inet_sendmsg,inet_recvmsg,inet6_sendmsg,inet6_recvmsg",
            programs: &[
                ("net_send_inet", Point::FExit("inet_sendmsg")),
                ("net_recv_inet", Point::FExit("inet_recvmsg")),
                ("net_send_inet6", Point::FExit("inet6_sendmsg")),
                ("net_recv_inet6", Point::FExit("inet6_recvmsg")),
                CLOSED,
            ],
            without_ipv6: None,
        },
        // A kernel without IPv6 lacks the last two.
        Alternative {
            name: "fexit/inet_sendmsg,inet_recvmsg",
            programs: &[
                ("net_send_inet", Point::FExit("inet_sendmsg")),
                ("net_recv_inet", Point::FExit("inet_recvmsg")),
                CLOSED,
            ],
            without_ipv6: Some(
                "requests over IPv6 are not observed: the kernel refused inet6_sendmsg and inet6_recvmsg",
            ),
        },
    ],
    windowed: true,
    asked: None,
};

impl SignalEvent for Request {
    fn add_spans(&self, target: &Target, state: &mut State, spans: &mut Vec<Span>) {
        spans.push(span(self, target, state));
    }
}

/// A slow request.
pub fn span(request: &Request, target: &Target, state: &mut State) -> Span {
    let (kind, series, verb) = if request.peer.role == ROLE_SERVER {
        (SpanKind::Server, Series::ServerRequest, "serve")
    } else {
        (SpanKind::Client, Series::ClientRequest, "request")
    };
    let mut attributes = peer_attributes(Some(&request.peer));
    attributes.extend(actor_attributes(&request.actor, target));
    if request.header.tid != 0 {
        attributes.push(Attribute::new(THREAD_ID, i64::from(request.header.tid)));
    }
    let name = if request.peer.role == ROLE_SERVER {
        format!("{verb} :{}", request.peer.port)
    } else {
        format!("{verb} {}:{}", address(&request.peer), request.peer.port)
    };
    let times = (MonoNs(request.since), MonoNs(request.header.time));
    let series = (series, exemplars_of(&request.peer));
    slow_span(state, series, name, kind, times, attributes)
}

/// Request latency on both sides, per peer, and requests that had no answer.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let durations = [
        (&SERVER_REQUEST_DURATION, Series::ServerRequest),
        (&CLIENT_REQUEST_DURATION, Series::ClientRequest),
    ];
    let unanswered = [
        (&SERVER_REQUEST_UNANSWERED, Series::ServerUnanswered),
        (&CLIENT_REQUEST_UNANSWERED, Series::ClientUnanswered),
    ];
    let durations = durations.map(|(def, series)| by_peer(def, target, state, series, reading));
    let unanswered = unanswered.map(|(def, series)| counts_by_peer(def, target, series, reading));
    durations.into_iter().chain(unanswered).flatten().collect()
}

/// Request latency on both sides, and how many requests had no answer.
fn summary(target: &Target, reading: &Reading) -> Summary {
    let [served, made] = [Series::ServerRequest, Series::ClientRequest].map(|of| largest(reading, target.id, of));
    let client = |peer: &Peer| format!(":{} from {}", peer.port, address(peer));
    let unanswered = [Series::ServerUnanswered, Series::ClientUnanswered];
    let unanswered = unanswered.map(|series| reading.counter(target.id, series));
    let note = |[served, made]: [u64; 2]| {
        format!("requests whose connection ended before an answer: {served} served, {made} made")
    };
    Summary::default()
        .split(0, served, |id| format!("serve {}", peer_label(reading, id, client)))
        .split(0, made, |id| format!("request {}", peer_label(reading, id, remote)))
        .note(0, (unanswered != [0, 0]).then(|| note(unanswered)))
}
