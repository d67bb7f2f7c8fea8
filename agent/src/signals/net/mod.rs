//! TCP connections.

pub mod connect;
pub mod request;
pub mod retransmit;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher as _},
    net::{IpAddr, Ipv6Addr},
};

use agent_common::{
    event::{ACTOR_GOROUTINE, ACTOR_TASK, Actor},
    histogram::Series,
    net::{Peer, ROLE_SERVER},
};

use crate::{
    aggregate::store::Reading,
    model::{Attribute, Metric, Point},
    signals::State,
    signals::points::{distribution_with, metric},
    target::Target,
    telemetry::{
        MetricDef, OVERFLOW,
        go::GOROUTINE_ID,
        net::{
            CLIENT_ADDRESS, NETWORK_PEER_ADDRESS, NETWORK_PEER_PORT, NETWORK_TRANSPORT, NETWORK_TYPE, SERVER_ADDRESS,
            SERVER_PORT,
        },
        tokio::{TOKIO_TASK_FUTURE, TOKIO_TASK_ID},
    },
};

/// A peer as people write it.
pub fn address(peer: &Peer) -> IpAddr {
    Ipv6Addr::from(peer.address).to_canonical()
}

/// Who is at the other end. The port is the server's; a client's own is of no use in a series.
pub fn peer_attributes(peer: Option<&Peer>) -> Vec<Attribute> {
    let Some(peer) = peer else {
        // The kernel's map of peers was full when these came.
        return vec![Attribute::new(OVERFLOW, true)];
    };
    let address = address(peer);
    let kind = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let mut attributes = vec![
        Attribute::new(NETWORK_TRANSPORT, "tcp"),
        Attribute::new(NETWORK_TYPE, kind),
        Attribute::new(NETWORK_PEER_ADDRESS, address.to_string()),
        Attribute::new(SERVER_PORT, i64::from(peer.port)),
    ];
    if peer.role == ROLE_SERVER {
        attributes.push(Attribute::new(CLIENT_ADDRESS, address.to_string()));
    } else {
        attributes.push(Attribute::new(NETWORK_PEER_PORT, i64::from(peer.port)));
        attributes.push(Attribute::new(SERVER_ADDRESS, address.to_string()));
    }
    attributes
}

/// A distribution per peer, with the exemplars of each.
fn by_peer(def: &'static MetricDef, target: &Target, state: &State, series: Series, reading: &Reading) -> Vec<Metric> {
    let peer = |id| reading.peers.get(&id);
    distribution_with(
        def,
        target,
        state,
        series,
        reading,
        |id| peer_attributes(peer(id)),
        |id| peer(id).map_or(0, exemplars_of),
    )
}

/// A counter per peer.
fn counts_by_peer(def: &'static MetricDef, target: &Target, series: Series, reading: &Reading) -> Vec<Metric> {
    let counts = reading.counts(target.id, series).map(|(id, count)| (id, (), count));
    metric(def, points_by_peer(target, reading, counts, |()| None))
}

/// Counts per peer, by its id, and per key; `attribute` tells keys apart. Peers without an id are one.
fn points_by_peer<K: Ord>(
    target: &Target,
    reading: &Reading,
    counts: impl Iterator<Item = (u32, K, u64)>,
    attribute: impl Fn(K) -> Option<Attribute>,
) -> Vec<Point> {
    let mut sums: BTreeMap<(Option<u32>, K), u64> = BTreeMap::new();
    for (id, key, count) in counts {
        let id = reading.peers.contains_key(&id).then_some(id);
        *sums.entry((id, key)).or_default() += count;
    }
    let points = sums.into_iter().map(|((id, key), count)| {
        let mut attributes = peer_attributes(id.and_then(|id| reading.peers.get(&id)));
        attributes.extend(attribute(key));
        target.sum(count, reading.time, attributes)
    });
    points.collect()
}

/// What the summary calls a peer, by its id.
fn peer_label(reading: &Reading, id: u32, label: impl Fn(&Peer) -> String) -> String {
    // The kernel's map of peers was full when these came.
    let others = || "others".to_owned();
    reading.peers.get(&id).map_or_else(others, label)
}

/// A server as people write it.
pub fn remote(peer: &Peer) -> String {
    format!("{}:{}", address(peer), peer.port)
}

/// What a peer's exemplars are kept under: an event has the peer, and not the id under which the kernel side counts it.
fn exemplars_of(peer: &Peer) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytemuck::bytes_of(peer));
    hasher.finish() as u32
}

/// The goroutine or task that did it.
pub fn actor_attributes(actor: &Actor, target: &Target) -> Vec<Attribute> {
    match actor.kind {
        ACTOR_GOROUTINE => vec![Attribute::new(GOROUTINE_ID, actor.id as i64)],
        ACTOR_TASK => vec![
            Attribute::new(TOKIO_TASK_ID, actor.id as i64),
            Attribute::new(TOKIO_TASK_FUTURE, target.future(actor.future).to_owned()),
        ],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agent_common::{
        event::Header,
        histogram::{Bucket, bucket_of},
        net::request::Request,
    };

    use super::*;
    use crate::{aggregate::histogram::Histogram, discover::Process, model::MonoNs};

    #[test]
    fn an_exemplar_goes_with_its_peer() {
        let process = Process::read(std::process::id()).unwrap();
        let target = Target::new(process, 1, Arc::default(), MonoNs(0));
        let mut state = State::default();
        let peer = |last: u8| Peer {
            address: std::net::Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped().octets(),
            port: 80,
            role: ROLE_SERVER,
            target_id: 1,
            ..Peer::default()
        };
        let request = Request {
            header: Header {
                time: 2_000_000_000,
                ..Header::default()
            },
            since: 1_000_000_000,
            peer: peer(2),
            ..Request::default()
        };
        let span = request::span(&request, &target, &mut state);
        let mut reading = Reading::default();
        for id in [1, 2] {
            reading.peers.insert(id, peer(id as u8));
            let histogram: &mut Histogram = reading
                .histograms
                .entry((1, Series::ServerRequest as u16, id))
                .or_default();
            let sum = 1_000_000_000;
            histogram.add(bucket_of(sum), Bucket { count: 1, sum });
        }
        let metrics = request::metrics(&target, &state, &reading);
        let [one, two] = metrics[0].points.as_slice() else {
            panic!("{metrics:?}");
        };
        assert!(one.exemplars.is_empty());
        assert_eq!(two.exemplars[0].span_id, span.span_id);
    }
}
