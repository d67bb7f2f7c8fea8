//! CPU quotas: of a process' cgroup and of those above it, by the kernel's own account.

use std::{
    fs,
    path::{Path, PathBuf},
};

use procfs::{FromRead as _, ProcessCGroups};

/// A cgroup that has a quota.
#[derive(Clone, Debug, PartialEq)]
pub struct Cgroup {
    /// As /proc/PID/cgroup writes it.
    pub path: String,
    pub usage: Usage,
}

/// A quota, and how often it was used up (linux, kernel/sched/core.c, cpu_cfs_stat_show and cpu_extra_stat_show). A cgroup's
/// account is of its own quota alone: what those above it throttle is in theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Cores.
    pub quota: f64,
    /// Periods in which it had something to run, and those of them in which it was throttled.
    pub periods: u64,
    pub throttled_periods: u64,
    /// Summed over cores, ns.
    pub throttled: u64,
}

/// The cgroups with a quota that a process is in, innermost first; None when they can't be seen from here.
pub fn of(pid: u32) -> Option<Vec<Cgroup>> {
    let cgroups = ProcessCGroups::from_file(format!("/proc/{pid}/cgroup")).ok()?;
    let with = |controller: &str, quota: fn(&Path) -> Option<f64>| -> Option<Vec<Cgroup>> {
        let (root, path) = place(&cgroups, controller)?;
        // A path out of this cgroup namespace says nothing here.
        if path.contains("/..") {
            return None;
        }
        let below = PathBuf::from(path.trim_start_matches('/'));
        let cgroup = |below: &Path| {
            let folder = root.join(below);
            Some(Cgroup {
                path: format!("/{}", below.display()),
                usage: usage(quota(&folder)?, &fs::read_to_string(folder.join("cpu.stat")).ok()?),
            })
        };
        Some(below.ancestors().filter_map(cgroup).collect())
    };
    let (unified, first) = (with("", unified), with("cpu", version_1));
    match (unified, first) {
        (None, None) => None,
        (Some(found), _) if !found.is_empty() => Some(found),
        (found, first) => first.or(found),
    }
}

/// The account in the text of cpu.stat.
fn usage(quota: f64, stat: &str) -> Usage {
    let number = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse::<u64>().ok())
    };
    // Version 2 counts microseconds, version 1 nanoseconds.
    let throttled = number("throttled_usec").map(|us| us.saturating_mul(1000));
    Usage {
        quota,
        periods: number("nr_periods").unwrap_or(0),
        throttled_periods: number("nr_throttled").unwrap_or(0),
        throttled: throttled.or_else(|| number("throttled_time")).unwrap_or(0),
    }
}

/// The quota of a cgroup of version 2, cores.
pub fn unified(folder: &Path) -> Option<f64> {
    cpu_max(&fs::read_to_string(folder.join("cpu.max")).ok()?)
}

/// The quota of a cgroup of version 1, cores.
pub fn version_1(folder: &Path) -> Option<f64> {
    let number = |file: &str| {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        text.trim().parse::<f64>().ok().filter(|number| *number > 0.0)
    };
    Some(number("cpu.cfs_quota_us")? / number("cpu.cfs_period_us")?)
}

/// "MAX PERIOD" as cores; None for "max PERIOD".
fn cpu_max(text: &str) -> Option<f64> {
    let (max, period) = text.trim().split_once(' ')?;
    Some(max.parse::<f64>().ok()? / period.parse::<f64>().ok().filter(|period| *period > 0.0)?)
}

/// Where a controller's files are, by a process' cgroups: its root that is mounted, and the path below; "" is the unified
/// hierarchy.
pub fn place<'a>(cgroups: &'a ProcessCGroups, controller: &str) -> Option<(PathBuf, &'a str)> {
    let path = path(cgroups, controller)?;
    let roots: &[&str] = match controller {
        "" => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
        "cpu" => &["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"],
        _ => &["/sys/fs/cgroup/memory"],
    };
    let has = |root: &&PathBuf| root.join(path.trim_start_matches('/')).is_dir();
    let roots: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
    let root = roots
        .iter()
        .find(has)
        .or_else(|| roots.iter().find(|root| root.is_dir()))?;
    Some((root.clone(), path))
}

fn path<'a>(cgroups: &'a ProcessCGroups, controller: &str) -> Option<&'a str> {
    let mut cgroups = cgroups.into_iter();
    let found = cgroups.find(|cgroup| match controller {
        "" => cgroup.controllers.is_empty(),
        _ => cgroup.controllers.iter().any(|name| name == controller),
    });
    Some(&found?.pathname)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_and_their_places() {
        assert_eq!(cpu_max("50000 100000\n"), Some(0.5));
        assert_eq!(cpu_max("max 100000\n"), None);
        let text = "4:cpu,cpuacct:/a/b\n2:name=systemd:/d\n0::/c\n";
        let cgroups = ProcessCGroups::from_read(text.as_bytes()).unwrap();
        for (controller, expected) in [("", Some("/c")), ("cpu", Some("/a/b")), ("memory", None)] {
            assert_eq!(path(&cgroups, controller), expected, "{controller}");
        }
    }

    #[test]
    fn both_versions_tell_how_often_a_quota_was_used_up() {
        let first = "nr_periods 7\nnr_throttled 3\nthrottled_time 5000\nnr_bursts 0\nburst_time 0\n";
        let second = "usage_usec 90\nnr_periods 7\nnr_throttled 3\nthrottled_usec 5\n";
        let expected = Usage {
            quota: 0.2,
            periods: 7,
            throttled_periods: 3,
            throttled: 5000,
        };
        for text in [first, second] {
            assert_eq!(usage(0.2, text), expected, "{text}");
        }
        let none = Usage {
            quota: 0.2,
            ..Usage::default()
        };
        assert_eq!(usage(0.2, "nr_periods many\n"), none);
    }
}
