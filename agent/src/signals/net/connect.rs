//! TCP connects of a target: SYN sent → established.

use agent_common::{histogram::Series, hits::HitKind, net::connect::Connect};

use super::{actor_attributes, address, by_peer, exemplars_of, peer_attributes, peer_label, remote};
use crate::{
    aggregate::store::Reading,
    model::{Attribute, Metric, MonoNs, Span, SpanKind},
    signal::{Alternative, Hook, Point},
    signals::events::{EventKind, SignalEvent},
    signals::points::{count, slow_span},
    signals::summary::{Summary, largest},
    signals::{Signal, State},
    target::Target,
    telemetry::{
        net::connect::{CONNECT_DURATION, CONNECT_FAILED, DEFS},
        thread::THREAD_ID,
    },
};

pub const NAME: &str = "net.connect";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::NetState],
    series: &[Series::Connect, Series::ConnectFailed],
    hook: Some(HOOK),
    events: &[EventKind::of::<Connect>()],
    summary: Some(|target, _, reading| {
        let connects = largest(reading, target.id, Series::Connect);
        Summary::default().split(1, connects, |id| format!("connect {}", peer_label(reading, id, remote)))
    }),
    ..Signal::new(NAME, &DEFS, metrics)
};

const HOOK: Hook = Hook {
    signal: NAME,
    alternatives: &[Alternative {
        name: "tp_btf/inet_sock_set_state",
        programs: &[("net_set_state", Point::TpBtf("inet_sock_set_state"))],
        without_ipv6: None,
    }],
    windowed: false,
    asked: None,
};

impl SignalEvent for Connect {
    fn add_spans(&self, target: &Target, state: &mut State, spans: &mut Vec<Span>) {
        spans.push(span(self, target, state));
    }
}

/// A slow connect.
pub fn span(connect: &Connect, target: &Target, state: &mut State) -> Span {
    let mut attributes = peer_attributes(Some(&connect.peer));
    attributes.extend(actor_attributes(&connect.actor, target));
    attributes.push(Attribute::new(THREAD_ID, i64::from(connect.header.tid)));
    let name = format!("connect {}:{}", address(&connect.peer), connect.peer.port);
    let times = (MonoNs(connect.since), MonoNs(connect.header.time));
    let series = (Series::Connect, exemplars_of(&connect.peer));
    slow_span(state, series, name, SpanKind::Client, times, attributes)
}

/// Connect latency per peer, and connects that failed.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let mut metrics = by_peer(&CONNECT_DURATION, target, state, Series::Connect, reading);
    metrics.extend(count(&CONNECT_FAILED, target, Series::ConnectFailed, reading));
    metrics
}
