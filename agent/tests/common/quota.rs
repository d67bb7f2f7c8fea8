//! Less than a machine: a cgroup with a quota, or one core.

use std::{fs, path::PathBuf};

use rustix::thread::{CpuSet, sched_setaffinity};

/// Runs on the first core only, and what it starts as well.
pub fn pin() {
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(None, &first).unwrap();
}

/// A cgroup that may use a fifth of a core, and a process in it.
pub struct Quota {
    folder: PathBuf,
    unified: bool,
}

impl Quota {
    pub fn of(pid: u32) -> Self {
        let name = format!("whywait-test-{pid}");
        let first = PathBuf::from("/sys/fs/cgroup/cpu");
        let unified = !first.exists();
        let folder = if unified {
            PathBuf::from("/sys/fs/cgroup")
        } else {
            first
        }
        .join(name);
        if unified {
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu");
        }
        fs::create_dir(&folder).unwrap();
        let quota = Self { folder, unified };
        if unified {
            quota.write("cpu.max", "20000 100000");
        } else {
            quota.write("cpu.cfs_period_us", "100000");
            quota.write("cpu.cfs_quota_us", "20000");
        }
        quota.write("cgroup.procs", &pid.to_string());
        quota
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.join(file), text).unwrap();
    }

    /// As /proc/PID/cgroup writes it.
    pub fn path(&self) -> String {
        format!("/{}", self.folder.file_name().unwrap().display())
    }

    /// The kernel's account: periods, those throttled, and for how long, ns.
    pub fn stat(&self) -> [u64; 3] {
        let text = fs::read_to_string(self.folder.join("cpu.stat")).unwrap();
        let number = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map(|number| number.parse().unwrap())
        };
        let time = number("throttled_time").or_else(|| Some(number("throttled_usec")? * 1000));
        [number("nr_periods"), number("nr_throttled"), time].map(Option::unwrap)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let parent = self.folder.parent().unwrap().join("cgroup.procs");
        for pid in fs::read_to_string(self.folder.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            let _ = fs::write(&parent, pid);
        }
        if fs::remove_dir(&self.folder).is_err() {
            eprintln!("{} is left (unified: {})", self.folder.display(), self.unified);
        }
    }
}
