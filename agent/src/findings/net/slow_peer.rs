//! A server that is slower than the others of its kind.

use agent_common::hits::Plane;

use crate::{
    findings::{Change, Figure, Finding, Rule, Sureness, Verdict, facts::Peer, short},
    signals::net::request,
};

pub const RULE: Rule = Rule {
    name: "net.slow_peer",
    says: "One server answers slower than its siblings: those at the same port of other addresses in its network (/24, or /64 of IPv6), which are alike, as replicas are.",
    evidence: "median latency of its answers and of its siblings'; requests per second to it",
    advice: "if they are replicas, look at that server, its host and the network to it, and take it out of the rotation until then",
    threshold: "three times the median of its siblings and 5 ms more, 50 requests to each of at least two siblings, none of which takes twice as long as another: replicas differ by less under one load, and different services by more",
    instead_of: &[],
    instead_of_note: None,
    at_once: false,
    judge,
};

/// Requests in the time that is looked at, of each.
const LEAST: u64 = 50;
const SIBLINGS: usize = 2;
const TIMES: f64 = 3.0;
/// The slowest of the siblings to the fastest.
const ALIKE: f64 = 2.0;
/// ns.
const MORE: f64 = 5e6;

struct Latency<'a> {
    peer: &'a Peer,
    count: u64,
    /// ns.
    median: f64,
    mean: f64,
}

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.seen(request::NAME, Plane::Sockets)?;
    let known = change.now().peers.iter().filter_map(|(id, peer)| {
        let new = match change.first().peer(*id) {
            // It was not among those whose latency is kept.
            Some(before) if before.requests > before.latency.count() => return None,
            Some(before) => peer.latency.since(&before.latency),
            None => peer.latency.clone(),
        };
        let median = new.quantile(0.5)?;
        (new.count() >= LEAST).then(|| Latency {
            peer,
            count: new.count(),
            median: median as f64,
            mean: new.sum() as f64 / new.count() as f64,
        })
    });
    let known: Vec<Latency<'_>> = known.collect();
    let found = known.iter().filter_map(|one| finding(one, &known, change));
    // That they are replicas is a guess.
    let sureness = sureness.min(Sureness::Medium);
    let found = found.map(|found| Finding { sureness, ..found });
    Ok(found.max_by(|one, other| one.explained.total_cmp(&other.explained)))
}

fn finding(one: &Latency<'_>, all: &[Latency<'_>], change: &Change<'_>) -> Option<Finding> {
    let is_sibling = |other: &&Latency<'_>| {
        let (one, other) = (one.peer, other.peer);
        (one.port, one.network) == (other.port, other.network) && one.name != other.name
    };
    let mut siblings: Vec<&Latency<'_>> = all.iter().filter(is_sibling).collect();
    siblings.sort_by(|one, other| one.median.total_cmp(&other.median));
    let middle = siblings.get(siblings.len() / 2)?;
    let is_slow = change.is_over(one.median, TIMES * middle.median) && change.is_over(one.median - middle.median, MORE);
    let is_alike = siblings[siblings.len() - 1].median <= ALIKE * siblings[0].median;
    if siblings.len() < SIBLINGS || !is_alike || !is_slow {
        return None;
    }
    let rate = one.count as f64 / change.seconds();
    let ms = |ns: f64| short((ns / 1e4).round() / 100.0);
    Some(Finding {
        sentence: format!(
            "{} answers slower than its {} siblings: {} ms at the median, they take {} ms",
            one.peer.name,
            siblings.len(),
            ms(one.median),
            ms(middle.median)
        ),
        evidence: vec![
            Figure::new("median", one.median / 1e6, "ms"),
            Figure::new("siblings' median", middle.median / 1e6, "ms"),
            Figure::new("requests", rate, "per s"),
        ],
        advice: format!(
            "if they are replicas, look at {} (its load, its host, the network to it), and take it out of the rotation until then",
            one.peer.name
        ),
        sureness: Sureness::Medium,
        explained: rate * (one.mean - middle.mean).max(0.0) / 1e9,
        subject: one.peer.name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::{
        Facts,
        tests::{check, check_not, latency},
    };

    fn answers(facts: &mut Facts, id: u32, s: f64, ms: u64) {
        let count = 100 * s as u64;
        let peer = facts.peers.get_mut(&id).unwrap();
        (peer.latency, peer.requests) = (latency(count, ms * 1_000_000), count);
    }

    #[test]
    fn the_slow_one_of_three_is_found() {
        check(
            &RULE,
            |facts, s| answers(facts, 2, s, 22),
            "10.0.0.2:80 answers slower than its 2 siblings: 22 ms at the median, they take 2 ms",
            2.0,
        );
    }

    #[test]
    fn differences_between_replicas_are_not() {
        check_not(&RULE, |facts, s| answers(facts, 2, s, 5));
        // All are slow.
        check_not(&RULE, |facts, s| (1..=3).for_each(|id| answers(facts, id, s, 50)));
        // It was slow before.
        check_not(&RULE, |facts, s| {
            let more = latency(10_000, 50_000_000);
            answers(facts, 2, s, 2);
            facts.peers.get_mut(&2).unwrap().latency.merge(&more);
        });
        // Another service.
        check_not(&RULE, |facts, s| {
            answers(facts, 2, s, 50);
            facts.peers.get_mut(&2).unwrap().port = 81;
        });
        // Services that differ from each other.
        check_not(&RULE, |facts, s| {
            answers(facts, 2, s, 50);
            answers(facts, 3, s, 9);
        });
        check_not(&RULE, |facts, s| {
            answers(facts, 2, s, 50);
            facts.peers.get_mut(&2).unwrap().network[14] = 9;
        });
        // One sibling alone may be the odd one as well.
        check_not(&RULE, |facts, s| {
            answers(facts, 2, s, 50);
            facts.peers.remove(&3);
        });
    }
}
