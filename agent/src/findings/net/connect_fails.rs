//! Connects that fail.

use agent_common::hits::Plane;

use crate::{
    findings::{Change, Figure, Finding, Rule, Verdict, facts::Peer, short},
    signals::net::connect,
};

pub const RULE: Rule = Rule {
    name: "net.connect_fails",
    says: "Connects to a server fail: it refuses them, or does not answer.",
    evidence: "connects that failed, and connects that did not, per server",
    advice: "see whether anything listens there, its backlog, and firewalls; a retry without a pause makes it worse",
    threshold: "5 in a minute and a fifth of the connects to that server: one that restarts, or an address that is tried first, fails a few",
    instead_of: &[],
    instead_of_note: None,
    at_once: false,
    judge,
};

const LEAST: u64 = 5;
const SHARE: f64 = 0.2;

fn judge(change: &Change<'_>) -> Verdict {
    let sureness = change.seen(connect::NAME, Plane::Sockets)?;
    let mut most: Option<(u64, u64, &Peer)> = None;
    for (id, peer) in &change.now().peers {
        let more = |of: fn(&Peer) -> u64| of(peer).saturating_sub(change.first().peer(*id).map_or(0, of));
        let (failed, made) = (more(|peer| peer.connects_failed), more(|peer| peer.connects));
        let share = failed as f64 / (failed + made).max(1) as f64;
        if failed >= LEAST && change.is_over(share, SHARE) && most.is_none_or(|(before, ..)| failed > before) {
            most = Some((failed, made, peer));
        }
    }
    let Some((failed, made, peer)) = most else {
        return Ok(None);
    };
    let rate = failed as f64 / change.seconds();
    Ok(Some(Finding {
        sentence: format!("connects to {} fail: {} of {}", peer.name, failed, failed + made),
        evidence: vec![
            Figure::new("failed", rate, "per s"),
            Figure::new("established", made as f64 / change.seconds(), "per s"),
        ],
        advice: format!(
            "see whether anything listens at {}, whether its backlog is full, and what firewalls do; {} tries per second need a pause between them",
            peer.name,
            short(rate)
        ),
        sureness,
        explained: 0.0,
        subject: peer.name.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::findings::tests::{check, check_not};

    #[test]
    fn a_server_that_refuses_is_found() {
        check(
            &RULE,
            |facts, s| facts.peers.get_mut(&2).unwrap().connects_failed = (2.0 * s) as u64,
            "connects to 10.0.0.2:80 fail: 120 of 123",
            0.0,
        );
    }

    #[test]
    fn a_restart_is_not() {
        check_not(&RULE, |facts, _| facts.peers.get_mut(&2).unwrap().connects_failed = 500);
        check_not(&RULE, |facts, s| {
            facts.peers.get_mut(&2).unwrap().connects_failed = u64::from(s > 30.0) * 4;
        });
        check_not(&RULE, |facts, s| {
            let peer = facts.peers.get_mut(&2).unwrap();
            (peer.connects_failed, peer.connects) = (s as u64, 10 * s as u64);
        });
    }
}
