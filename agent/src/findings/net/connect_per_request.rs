//! Connections that are made anew for every request.

use agent_common::hits::Plane;

use crate::{
    findings::{Change, Figure, Finding, Rule, Verdict, facts::Peer, short},
    signals::net::{connect, request},
};

pub const RULE: Rule = Rule {
    name: "net.connect_per_request",
    says: "Connections to a server are made anew for (nearly) every request.",
    evidence: "connects and requests per second to that server; the mean duration of a connect",
    advice: "reuse connections: read answers to their end and close their bodies, one client for all requests, MaxIdleConnsPerHost above the number of requests at once (Go's default is 2)",
    threshold: "30 connects and 1 per second, at least half as many as requests: a pool makes a connection for hundreds of requests. With TLS a connection counts one or two requests for its handshake",
    instead_of: &[],
    instead_of_note: None,
    at_once: false,
    judge,
};

const LEAST: u64 = 30;
/// Per second.
const RATE: f64 = 1.0;
const PER_REQUEST: f64 = 0.5;

fn judge(change: &Change<'_>) -> Verdict {
    let connects = change.seen(connect::NAME, Plane::Sockets)?;
    let requests = change.seen(request::NAME, Plane::Sockets)?;
    let mut most: Option<(f64, Finding)> = None;
    for (id, peer) in &change.now().peers {
        let more = |of: fn(&Peer) -> u64| of(peer).saturating_sub(change.first().peer(*id).map_or(0, of));
        let (made, asked) = (more(|peer| peer.connects), more(|peer| peer.requests));
        let rate = made as f64 / change.seconds();
        let is_over = change.is_over(made as f64 / asked.max(1) as f64, PER_REQUEST) && change.is_over(rate, RATE);
        // Without requests it is no client that asks: a health check, or a protocol in which the server talks first.
        if made < LEAST || asked == 0 || !is_over {
            continue;
        }
        let time = more(|peer| peer.connect_time) as f64 / 1e9;
        if most.as_ref().is_some_and(|(before, _)| *before >= rate) {
            continue;
        }
        let finding = Finding {
            sentence: format!(
                "connections to {} are made anew for every request: {} connects for {} requests",
                peer.name, made, asked
            ),
            evidence: vec![
                Figure::new("connects", rate, "per s"),
                Figure::new("requests", asked as f64 / change.seconds(), "per s"),
                Figure::new("mean connect", 1e3 * time / made as f64, "ms"),
            ],
            advice: format!(
                "reuse connections to {}: read answers to their end and close their bodies, use one client for all requests, and keep as many idle connections as there are requests at once (Go: http.Transport.MaxIdleConnsPerHost, 2 by default); that saves {} connects per second, and their TLS handshakes",
                peer.name,
                short(rate.round())
            ),
            sureness: connects.min(requests),
            explained: time / change.seconds(),
            subject: peer.name.clone(),
        };
        most = Some((rate, finding));
    }
    Ok(most.map(|(_, finding)| finding))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::tests::{check, check_not};

    #[test]
    fn a_connection_for_each_request_is_found() {
        check(
            &RULE,
            |facts, s| {
                let peer = facts.peers.get_mut(&1).unwrap();
                (peer.connects, peer.connect_time) = ((100.0 * s) as u64, (100.0 * s * 3e5) as u64);
            },
            "connections to 10.0.0.1:80 are made anew for every request: 6000 connects for 6000 requests",
            0.03,
        );
    }

    #[test]
    fn a_pool_that_grows_is_not() {
        // All of its connections in the first seconds.
        check_not(&RULE, |facts, s| {
            facts.peers.get_mut(&1).unwrap().connects = if s > 0.0 { 200 } else { 0 };
        });
        // A health check each two seconds.
        check_not(&RULE, |facts, s| {
            let peer = facts.peers.get_mut(&1).unwrap();
            (peer.connects, peer.requests) = (s as u64 / 2, s as u64 / 2);
        });
        // One that only connects.
        check_not(&RULE, |facts, s| {
            let peer = facts.peers.get_mut(&1).unwrap();
            (peer.connects, peer.requests) = (10 * s as u64, 0);
        });
    }
}
