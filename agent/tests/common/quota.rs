//! Less than a machine: cgroups with a quota, or one core.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use rustix::thread::{CpuSet, sched_setaffinity};

/// Runs on the first core only, and what it starts as well.
pub fn pin() {
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(None, &first).unwrap();
}

/// Which of two cgroups, one in the other, may use a fifth of a core, and uses it up. The process is in the inner one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Of {
    Own,
    /// The inner one has no quota; in version 2 not even the controller.
    Above,
    /// The inner one has the smaller quota, but others beside it leave it less than that.
    Shared,
}

/// Such a pair, in version 1's hierarchy of the cpu controller where there is one, else in version 2's.
pub struct Quota {
    outer: PathBuf,
    of: Of,
    unified: bool,
    others: Vec<Child>,
}

/// A cgroup that has a quota.
#[derive(Clone, Debug)]
pub struct Account {
    /// As /proc/PID/cgroup writes it.
    pub path: String,
    /// Cores.
    pub quota: f64,
    /// The kernel's account: periods, those throttled, and for how long, ns.
    pub stat: [u64; 3],
}

const PERIOD_US: u64 = 100_000;
const QUOTA_US: u64 = 20_000;
const SMALLER_US: u64 = 19_000;

impl Quota {
    /// Puts a process under it; None, having said why, where this kernel has no quotas.
    pub fn new(pid: u32, of: Of) -> Option<Self> {
        let first = Path::new("/sys/fs/cgroup/cpu");
        let unified = !first.exists();
        let root = if unified { Path::new("/sys/fs/cgroup") } else { first };
        let outer = root.join(format!("whywait-test-{pid}"));
        let mut quota = Self {
            outer,
            of,
            unified,
            others: Vec::new(),
        };
        if let Err(why) = quota.make(root) {
            let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
            let version = if unified { 2 } else { 1 };
            eprintln!(
                "SKIPPED: Linux {} has no CPU quotas of cgroups, version {version}: {why}",
                kernel.trim()
            );
            return None;
        }
        println!("cgroup version {}, quota {of:?}", if unified { 2 } else { 1 });
        for (folder, us) in quota.quotas() {
            quota.limit(&folder, us).unwrap();
        }
        let enter = |folder: &Path, pid: u32| fs::write(folder.join("cgroup.procs"), pid.to_string()).unwrap();
        enter(&quota.inner(), pid);
        if of == Of::Shared {
            fs::create_dir(quota.beside()).unwrap();
            for _ in 0..2 {
                let mut hog = Command::new("sh");
                let hog = hog.args(["-c", "while :; do :; done"]).spawn().unwrap();
                enter(&quota.beside(), hog.id());
                quota.others.push(hog);
            }
        }
        Some(quota)
    }

    fn make(&self, root: &Path) -> io::Result<()> {
        let with_controller = |folder: &Path| {
            let offered = fs::read_to_string(folder.join("cgroup.controllers"))?;
            if !offered.split_whitespace().any(|name| name == "cpu") {
                let why = format!(
                    "{} offers no controller cpu, only: {}",
                    folder.display(),
                    offered.trim()
                );
                return Err(io::Error::other(why));
            }
            fs::write(folder.join("cgroup.subtree_control"), "+cpu")
        };
        if self.unified {
            with_controller(root)?;
        }
        fs::create_dir(&self.outer)?;
        if self.unified && self.of != Of::Above {
            with_controller(&self.outer)?;
        }
        fs::create_dir(self.inner())?;
        let file = if self.unified { "cpu.max" } else { "cpu.cfs_quota_us" };
        let has = |folder: &Path| {
            let file = folder.join(file);
            fs::metadata(&file).map_err(|why| io::Error::other(format!("{}: {why}", file.display())))
        };
        self.quotas().iter().try_for_each(|(folder, _)| has(folder).map(drop))
    }

    fn inner(&self) -> PathBuf {
        self.outer.join("inner")
    }

    fn beside(&self) -> PathBuf {
        self.outer.join("beside")
    }

    /// The one that throttles first.
    fn quotas(&self) -> Vec<(PathBuf, u64)> {
        let outer = (self.outer.clone(), QUOTA_US);
        match self.of {
            Of::Own => vec![(self.inner(), QUOTA_US)],
            Of::Above => vec![outer],
            Of::Shared => vec![outer, (self.inner(), SMALLER_US)],
        }
    }

    fn limit(&self, folder: &Path, us: u64) -> io::Result<()> {
        if self.unified {
            return fs::write(folder.join("cpu.max"), format!("{us} {PERIOD_US}"));
        }
        fs::write(folder.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
        fs::write(folder.join("cpu.cfs_quota_us"), us.to_string())
    }

    /// The path of the cgroup that throttles.
    pub fn path(&self) -> String {
        self.accounts()[0].path.clone()
    }

    /// Of each of the two that has a quota; first the one that throttles.
    pub fn accounts(&self) -> Vec<Account> {
        let root = self.outer.parent().unwrap();
        let account = |(folder, us): (PathBuf, u64)| Account {
            path: format!("/{}", folder.strip_prefix(root).unwrap().display()),
            quota: us as f64 / PERIOD_US as f64,
            stat: stat(&folder),
        };
        self.quotas().into_iter().map(account).collect()
    }
}

fn stat(folder: &Path) -> [u64; 3] {
    let text = fs::read_to_string(folder.join("cpu.stat")).unwrap();
    let number = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|number| number.parse().unwrap())
    };
    let time = number("throttled_time").or_else(|| Some(number("throttled_usec")? * 1000));
    [number("nr_periods"), number("nr_throttled"), time].map(Option::unwrap)
}

impl Drop for Quota {
    fn drop(&mut self) {
        for other in &mut self.others {
            let _ = other.kill();
            let _ = other.wait();
        }
        let root = self.outer.parent().unwrap().join("cgroup.procs");
        for pid in fs::read_to_string(self.inner().join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            let _ = fs::write(&root, pid);
        }
        for folder in [self.beside(), self.inner(), self.outer.clone()] {
            if folder.exists() && fs::remove_dir(&folder).is_err() {
                eprintln!("{} is left (unified: {})", folder.display(), self.unified);
            }
        }
    }
}
