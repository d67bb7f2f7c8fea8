//! How busy the cores are that a process has: those it is allowed to run on, less what its cgroup's quota takes.

use std::collections::HashMap;

use procfs::CurrentSI as _;

use crate::{cgroup, model::MonoNs};

/// How often the host's account is read, ns, and the weight of its last reading.
const EVERY: u64 = 1_000_000_000;
const WEIGHT: f64 = 1.0 / 3.0;

/// What the host's cores did of late, by /proc/stat.
#[derive(Debug, Default)]
pub struct Host {
    read: MonoNs,
    cores: HashMap<u32, Core>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Core {
    /// Ticks so far: not idle, and all.
    busy: u64,
    all: u64,
    /// Share of its time that it was not idle, of late.
    share: Option<f64>,
}

impl Core {
    fn note(&mut self, busy: u64, all: u64) {
        // The first reading is of the time since boot. The kernel's idle time is seen to go back by a tick at times.
        if self.all > 0 && all > self.all {
            let share = (busy.saturating_sub(self.busy) as f64 / (all - self.all) as f64).min(1.0);
            let last = self.share.unwrap_or(share);
            self.share = Some(last + (share - last) * WEIGHT);
        }
        (self.busy, self.all) = (busy, all);
    }
}

impl Host {
    /// Reads the account, when it is time.
    pub fn turn(&mut self, now: MonoNs) {
        if now.0.saturating_sub(self.read.0) < EVERY {
            return;
        }
        self.read = now;
        // Without /proc/stat a process is as busy as it is itself.
        let Ok(stat) = procfs::KernelStats::current() else {
            return;
        };
        // The lines are those of the cores that are online.
        let numbers = aya::util::online_cpus().unwrap_or_default();
        for (number, time) in numbers.into_iter().zip(stat.cpu_time) {
            let idle = time.idle + time.iowait.unwrap_or(0);
            // A guest's time is in the user's already.
            let busy = [time.irq, time.softirq, time.steal].iter().flatten().sum::<u64>()
                + time.user
                + time.nice
                + time.system;
            self.cores.entry(number).or_default().note(busy, busy + idle);
        }
    }

    /// Share of these cores' time in which they were not idle; 0 before it is known.
    fn busy(&self, room: &Capacity) -> f64 {
        let allowed = |number: &u32| {
            room.allowed
                .iter()
                .any(|(first, last)| (first..=last).contains(&number))
        };
        let shares = self
            .cores
            .iter()
            .filter(|(number, _)| room.allowed.is_empty() || allowed(number))
            .filter_map(|(_, core)| core.share);
        let (sum, count) = shares.fold((0.0, 0.0), |(sum, count), share| (sum + share, count + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    }
}

/// What a process may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capacity {
    /// Cores that it may run on, first and last of each range; empty when that is not known.
    allowed: Vec<(u32, u32)>,
    /// The least quota of its cgroup and those above it, cores; None for none, or none that can be seen from here.
    quota: Option<f64>,
}

impl Capacity {
    /// Of a process; what can't be read does not limit it.
    pub fn of(pid: u32) -> Self {
        let allowed = i32::try_from(pid)
            .ok()
            .and_then(|pid| procfs::process::Process::new(pid).and_then(|found| found.status()).ok())
            .and_then(|status| status.cpus_allowed_list)
            .unwrap_or_default();
        Self {
            allowed,
            quota: cgroup::of(pid)
                .unwrap_or_default()
                .iter()
                .map(|cgroup| cgroup.usage.quota)
                .reduce(f64::min),
        }
    }

    /// Its quota, cores; None without one.
    pub fn quota(&self) -> Option<f64> {
        self.quota
    }

    /// How busy it is there, 1 for all of the time: `load` is what the process uses itself, cores, and `threads` with how many
    /// threads it runs at most, as GOMAXPROCS says.
    pub fn busy(&self, host: &Host, load: f64, threads: Option<u64>) -> f64 {
        let listed: u32 = self
            .allowed
            .iter()
            .map(|(first, last)| last.saturating_sub(*first) + 1)
            .sum();
        // Cores that are allowed but not online do not count.
        let online = host.cores.len() as f64;
        let allowed = if listed == 0 {
            online
        } else {
            f64::from(listed).min(online)
        };
        let own = [Some(allowed), self.quota, threads.map(|threads| threads as f64)]
            .into_iter()
            .flatten()
            .filter(|cores| *cores > 0.0)
            .fold(f64::INFINITY, f64::min);
        (load / own).max(host.busy(self)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(shares: &[(u32, f64)]) -> Host {
        let core = |share: f64| Core {
            busy: 1,
            all: 1,
            share: Some(share),
        };
        Host {
            read: MonoNs(0),
            cores: shares.iter().map(|(number, share)| (*number, core(*share))).collect(),
        }
    }

    #[test]
    fn a_process_is_as_busy_as_its_cores_or_its_quota() {
        let host = host(&[(0, 0.9), (1, 0.1), (2, 0.3), (3, 0.3)]);
        let room = |allowed: &[(u32, u32)], quota: Option<f64>| Capacity {
            allowed: allowed.to_vec(),
            quota,
        };
        for (room, load, threads, expected) in [
            (room(&[], None), 0.2, None, 0.4),
            (room(&[], None), 2.0, None, 0.5),
            (room(&[(0, 0)], None), 0.2, None, 0.9),
            (room(&[(1, 1)], None), 0.05, None, 0.1),
            (room(&[(1, 2)], None), 1.0, None, 0.5),
            (room(&[(0, 63)], None), 2.0, None, 0.5),
            (room(&[], Some(0.5)), 0.4, None, 0.8),
            (room(&[], Some(0.5)), 0.6, None, 1.0),
            (room(&[], None), 0.7, Some(1), 0.7),
        ] {
            let found = room.busy(&host, load, threads);
            assert!((found - expected).abs() < 1e-9, "{room:?} {load} {threads:?}: {found}");
        }
        assert_eq!(room(&[], None).busy(&Host::default(), 0.5, None), 0.0);
    }

    #[test]
    fn what_a_core_did_of_late_is_told_from_what_it_did_since_boot() {
        let mut core = Core::default();
        core.note(5_000, 1_000_000);
        assert_eq!(core.share, None);
        core.note(5_090, 1_000_100);
        assert_eq!(core.share, Some(0.9));
        core.note(5_090, 1_000_090);
        assert_eq!(core.share, Some(0.9));
        for step in 1..50 {
            core.note(5_090, 1_000_090 + 100 * step);
        }
        assert!(core.share.unwrap() < 0.01);
    }

    #[test]
    fn our_own_cores_are_among_those_that_are_there() {
        let room = Capacity::of(std::process::id());
        assert!(!room.allowed.is_empty());
        let mut host = Host::default();
        host.turn(MonoNs(EVERY));
        assert!(!host.cores.is_empty());
        assert!(host.cores.values().all(|core| core.all > 0 && core.busy <= core.all));
    }
}
