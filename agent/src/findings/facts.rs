//! What rules are judged by: what the signals of a target know at a reading. All figures are cumulative unless they say otherwise.

use std::{collections::BTreeMap, fs, net::Ipv6Addr, path::Path};

use agent_common::{histogram::Series, hits::Plane, net::ROLE_SERVER};
use rustix::{process::Pid, thread::sched_getaffinity};

use super::go::facts::GoFacts;
use crate::{
    aggregate::{Histogram, store::Reading},
    cgroup::Cgroup,
    discover::process::PROC,
    model::MonoNs,
    signals::{State, net, process::quota::Quotas},
    target::Target,
};

/// Peers that are kept apart: those with the most requests and connects.
const PEERS: usize = 64;
/// Of them, those whose latency is kept as a distribution.
const LATENCIES: usize = 16;

/// What is known of a target.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When the kernel's maps were read.
    pub time: MonoNs,
    /// In the order of [`Plane::ALL`].
    pub planes: [Open; Plane::COUNT],
    pub host: Option<Host>,
    /// Cores that it may run on, by its affinity; 0: not known. Of now.
    pub usable: usize,
    /// CPU time of the process, ns.
    pub cpu_time: Option<u64>,
    /// Time that its threads waited for a core, ns; throttled time is in it.
    pub run_queue: Option<u64>,
    /// Cgroups with a quota that it is in, innermost first.
    pub quotas: Vec<Cgroup>,
    /// By the id of the peer.
    pub peers: BTreeMap<u32, Peer>,
    pub go: Option<GoFacts>,
}

/// For how long windows of a plane were open, ns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open {
    pub open: f64,
    pub time: f64,
}

/// CPU time of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Host {
    /// Online now.
    pub cores: usize,
    /// s, summed over cores.
    pub busy: f64,
    pub idle: f64,
}

/// A server that the target calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peer {
    /// Address and port.
    pub name: String,
    pub port: u16,
    /// The first bytes of its address, zeros behind them: /24 of IPv4, /64 of IPv6.
    pub network: [u8; 16],
    /// Connects that were established, and the time that they took, ns.
    pub connects: u64,
    pub connect_time: u64,
    pub connects_failed: u64,
    /// Requests that were answered, and the time until then, ns.
    pub requests: u64,
    pub request_time: u64,
    pub latency: Histogram,
}

impl Facts {
    /// What is known at `reading`, and of windows until then.
    pub fn gather(target: &Target, state: &State, reading: &Reading, planes: [Open; Plane::COUNT]) -> Self {
        let pid = target.process.pid;
        Self {
            time: reading.time,
            planes,
            host: Host::read(),
            usable: usable(pid),
            cpu_time: target.process.cpu_time().ok(),
            run_queue: state.totals.as_ref().and_then(|totals| Some(totals.sum()?.run_queue)),
            quotas: state
                .quotas
                .as_ref()
                .map_or_else(Vec::new, |quotas| Quotas::cgroups(quotas).to_vec()),
            peers: peers(target, reading),
            go: GoFacts::gather(target, state, reading),
        }
    }

    /// Cores that it can use at once: of its affinity and its least quota.
    pub fn cores(&self) -> Option<f64> {
        let usable = (self.usable > 0).then_some(self.usable as f64);
        let least = self.least_quota().map(|cgroup| cgroup.usage.quota);
        match (usable, least) {
            (Some(usable), Some(quota)) => Some(usable.min(quota)),
            (usable, quota) => usable.or(quota),
        }
    }

    /// Of the cgroups that it is in, the one with the least quota.
    pub fn least_quota(&self) -> Option<&Cgroup> {
        let quotas = self.quotas.iter();
        quotas.min_by(|one, other| one.usage.quota.total_cmp(&other.usage.quota))
    }

    /// A peer, by its id.
    pub fn peer(&self, id: u32) -> Option<&Peer> {
        self.peers.get(&id)
    }
}

impl Host {
    /// By /proc/stat (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal, in ticks.
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string(Path::new(PROC).join("stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        const TICK: f64 = 0.01;
        let mut lines = text.lines();
        let all = lines.next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> = all.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [user, nice, system, idle, wait, irq, softirq, steal] = *ticks.first_chunk()?;
        Some(Self {
            cores: lines.take_while(|line| line.starts_with("cpu")).count(),
            busy: TICK * (user + nice + system + irq + softirq + steal),
            idle: TICK * (idle + wait),
        })
    }
}

fn usable(pid: u32) -> usize {
    let pid = Pid::from_raw(pid as i32);
    sched_getaffinity(pid).map_or(0, |set| set.count() as usize)
}

/// The part of an address, IPv4 as mapped into IPv6, that replicas of a service mostly share.
fn network(mut address: [u8; 16]) -> [u8; 16] {
    let kept = if Ipv6Addr::from(address).to_ipv4_mapped().is_some() {
        15
    } else {
        8
    };
    address[kept..].fill(0);
    address
}

fn peers(target: &Target, reading: &Reading) -> BTreeMap<u32, Peer> {
    let mut peers: BTreeMap<u32, Peer> = BTreeMap::new();
    let known = |id: u32| reading.peers.get(&id).filter(|peer| peer.role != ROLE_SERVER);
    let mut entry = |id: u32, add: &dyn Fn(&mut Peer)| {
        let Some(peer) = known(id) else { return };
        add(peers.entry(id).or_insert_with(|| Peer {
            name: net::remote(peer),
            port: peer.port,
            network: network(peer.address),
            ..Peer::default()
        }));
    };
    for (id, histogram) in reading.split(target.id, Series::Connect) {
        entry(id, &|peer| {
            (peer.connects, peer.connect_time) = (histogram.count(), histogram.sum())
        });
    }
    for (id, count) in reading.counts(target.id, Series::ConnectFailed) {
        entry(id, &|peer| peer.connects_failed = count);
    }
    for (id, histogram) in reading.split(target.id, Series::ClientRequest) {
        entry(id, &|peer| {
            (peer.requests, peer.request_time) = (histogram.count(), histogram.sum())
        });
    }
    let mut most: Vec<(u64, u32)> = peers
        .iter()
        .map(|(id, peer)| (peer.requests + peer.connects + peer.connects_failed, *id))
        .collect();
    most.sort_unstable_by(|one, other| other.cmp(one));
    for (at, (_, id)) in most.into_iter().enumerate() {
        if at >= PEERS {
            peers.remove(&id);
        } else if at < LATENCIES
            && let (Some(peer), Some(latency)) = (
                peers.get_mut(&id),
                reading.histogram(target.id, Series::ClientRequest, id),
            )
        {
            peer.latency = latency.clone();
        }
    }
    peers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_time_is_busy_or_idle() {
        let text = "cpu  100 10 50 800 40 1 2 7 0 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        let host = Host::parse(text).unwrap();
        assert_eq!((host.cores, host.busy, host.idle), (2, 1.7, 8.4));
        assert_eq!(Host::parse("cpu  1 2 3\n"), None);
        assert!(Host::read().is_some_and(|host| host.cores > 0));
    }

    #[test]
    fn replicas_share_a_network() {
        let of = |text: &str| match text.parse::<std::net::IpAddr>().unwrap() {
            std::net::IpAddr::V4(address) => network(address.to_ipv6_mapped().octets()),
            std::net::IpAddr::V6(address) => network(address.octets()),
        };
        assert_eq!(of("10.0.0.7"), of("10.0.0.200"));
        assert_ne!(of("10.0.0.7"), of("10.0.1.7"));
        assert_eq!(of("fd00:1:2:3::7"), of("fd00:1:2:3:4::9"));
        assert_ne!(of("fd00:1:2:3::7"), of("fd00:1:2:4::7"));
    }
}
