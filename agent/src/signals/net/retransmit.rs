//! Segments of a target's TCP connections that the kernel sent again.

use std::collections::BTreeMap;

use agent_common::{histogram::Series, hits::HitKind, net::retransmit::state_name};

use super::{connect, points_by_peer, request};
use crate::{
    aggregate::store::Reading,
    model::{Attribute, Metric},
    signal::{Alternative, Hook, Point},
    signals::points::metric,
    signals::summary::Summary,
    signals::{Need, Signal, State},
    target::Target,
    telemetry::net::retransmit::{DEFS, NETWORK_CONNECTION_STATE, RETRANSMITS},
};

pub const NAME: &str = "net.retransmit";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::NetRetransmit],
    series: &[Series::Retransmit],
    hook: Some(HOOK),
    needs_any: true,
    needs: &[
        Need {
            of: request::NAME,
            lost: "retransmissions on established connections are not counted",
        },
        Need {
            of: connect::NAME,
            lost: "retransmissions of SYNs are not counted",
        },
    ],
    summary: Some(|target, _, reading| Summary::default().note(0, sent_again(target, reading))),
    ..Signal::new(NAME, &DEFS, metrics)
};

const HOOK: Hook = Hook {
    signal: NAME,
    alternatives: &[
        // The verifier refuses it where the tracepoint lacks that argument.
        Alternative {
            name: "tp_btf/tcp_retransmit_skb with err",
            programs: &[("net_retransmit_error", Point::TpBtf("tcp_retransmit_skb"))],
            without_ipv6: None,
        },
        Alternative {
            name: "tp_btf/tcp_retransmit_skb",
            programs: &[("net_retransmit", Point::TpBtf("tcp_retransmit_skb"))],
            without_ipv6: None,
        },
    ],
    windowed: false,
    asked: None,
};

/// Retransmissions per peer and state of the connection.
pub fn metrics(target: &Target, _: &State, reading: &Reading) -> Vec<Metric> {
    let sums = reading.sums(target.id, Series::Retransmit);
    let counts = sums.map(|(id, state, bucket)| (id, state, bucket.count));
    let state = |state| Some(Attribute::new(NETWORK_CONNECTION_STATE, named(state)));
    metric(&RETRANSMITS, points_by_peer(target, reading, counts, state))
}

/// Retransmissions by state, as people read it; None when there were none.
fn sent_again(target: &Target, reading: &Reading) -> Option<String> {
    let mut counts: BTreeMap<u8, u64> = BTreeMap::new();
    for (_, state, bucket) in reading.sums(target.id, Series::Retransmit) {
        *counts.entry(state).or_default() += bucket.count;
    }
    let mut counts: Vec<(String, u64)> = counts.into_iter().map(|(state, count)| (named(state), count)).collect();
    counts.retain(|(_, count)| *count > 0);
    // Those of connects first; the others by number, which is about the order in which a connection has them.
    counts.sort_by_key(|(state, _)| !state.starts_with("syn_"));
    let counts: Vec<String> = counts
        .into_iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    (!counts.is_empty()).then(|| format!("segments sent again: {}", counts.join(", ")))
}

/// The name of a state, or its number where a newer kernel has another.
fn named(state: u8) -> String {
    state_name(state).map_or_else(|| state.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agent_common::{histogram::Bucket, net::Peer};

    use super::*;
    use crate::{discover::Process, model::MonoNs};

    #[test]
    fn states_have_their_names_and_peers_without_an_id_are_one() {
        let process = Process::read(std::process::id()).unwrap();
        let target = Target::new(process, 1, Arc::default(), MonoNs(0));
        let mut reading = Reading::default();
        reading.peers.insert(5, Peer::default());
        for (id, state, count) in [(5, 1, 3), (5, 2, 1), (6, 1, 10), (7, 1, 20), (6, 99, 2)] {
            let key = (1, Series::Retransmit as u16, id, state);
            reading.sums.insert(key, Bucket { count, sum: count });
        }
        let found = metrics(&target, &State::default(), &reading);
        let described: Vec<String> = found[0]
            .points
            .iter()
            .map(|point| {
                let state = point.attributes.iter().find(|of| of.key == NETWORK_CONNECTION_STATE);
                format!("{:?} {:?}", state.unwrap().value, point.data)
            })
            .collect();
        assert_eq!(found[0].points.len(), 4);
        for (at, (state, count)) in [("established", 30), ("99", 2), ("established", 3), ("syn_sent", 1)]
            .into_iter()
            .enumerate()
        {
            let text = &described[at];
            assert!(text.contains(state) && text.contains(&count.to_string()), "{text}");
        }
    }
}
