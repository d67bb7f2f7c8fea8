//! The cost of a hit on this machine: measures work that calls a function of our own, with an empty program attached and without.

use std::{
    hint::black_box,
    io::{Read as _, Write as _},
    num::NonZeroU32,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::attach::uprobe::{Links, Object};

/// The program that does nothing.
const EMPTY: &str = "calibrate";
/// Calls in a batch, and pairs of batches, with the probe and without.
const CALLS: u32 = 25;
const PAIRS: usize = 96;
/// Bytes that the work touches in addition: as much as a request leaves in the L1 cache.
const TOUCHED: usize = 32 << 10;
/// Bytes that the work between hits touches, some in each run: as much as other requests leave in the L2 cache.
const OTHERS_TOUCH: usize = 16 * TOUCHED;

/// What is probed.
mod probed {
    #![expect(
        unsafe_code,
        reason = "a function in assembly, so that its first instruction is one that the kernel emulates, as at the places \
                  the plan chooses"
    )]

    #[cfg(target_arch = "x86_64")]
    macro_rules! body {
        () => {
            "push rbp\npop rbp\nret"
        };
    }

    #[cfg(target_arch = "aarch64")]
    macro_rules! body {
        () => {
            "b 1f\n1:\nret"
        };
    }

    /// Functions side by side, in one line of the processor's caches.
    macro_rules! functions {
        ($($name:ident)*) => {
            core::arch::global_asm!(
                ".pushsection .text",
                ".p2align 6",
                $(concat!(".globl ", stringify!($name)), concat!(stringify!($name), ":"), body!(),)*
                ".popsection",
            );

            // SAFETY: they save and restore one register, or none, and touch nothing else.
            unsafe extern "C" {
                $(pub safe fn $name();)*
            }
        };
    }

    functions!(whywait_calibrate);
    functions!(whywait_trap);
    functions!(whywait_bare);
    functions!(whywait_seldom_0 whywait_seldom_1 whywait_seldom_2 whywait_seldom_3
               whywait_seldom_4 whywait_seldom_5 whywait_seldom_6 whywait_seldom_7);
}
use probed::*;

/// Functions that nobody else calls, each with a probe of its own.
const SELDOM: [extern "C" fn(); 8] = [
    whywait_seldom_0,
    whywait_seldom_1,
    whywait_seldom_2,
    whywait_seldom_3,
    whywait_seldom_4,
    whywait_seldom_5,
    whywait_seldom_6,
    whywait_seldom_7,
];

/// Number of these functions without the first.
pub const OTHERS: usize = SELDOM.len() - 1;

/// Cost of one trap, ns. None when the machine was too busy to measure it.
pub fn trap(object: &mut Object) -> anyhow::Result<Option<f64>> {
    let link = attach_empty(object)?;
    let cost = Timer::start().trap(PAIRS);
    drop(link);
    Ok(cost)
}

/// Time of the empty program by the kernel's statistics, ns, which read the clock twice for each run. They must be enabled.
pub fn bias(object: &mut Object) -> anyhow::Result<f64> {
    let runs = |object: &Object| {
        object
            .runs(EMPTY)
            .context("the kernel shows no statistics of a program")
    };
    let before = runs(object)?;
    let link = attach(object, EMPTY)?;
    let mut work = Work::new(TOUCHED);
    for _ in 0..PAIRS / 4 {
        batch(&mut work, hit);
    }
    drop(link);
    let after = runs(object)?;
    let count = after.count.saturating_sub(before.count).max(1);
    Ok(after.time.saturating_sub(before.time) as f64 / count as f64)
}

/// Calls the function that [`attach`] probes.
pub fn hit() {
    whywait_calibrate();
}

/// Calls the function that [`attach_empty`] probes.
fn trapped() {
    whywait_trap();
}

/// Calls the first function that [`attach_seldom`] probes.
pub fn seldom() {
    SELDOM[0]();
}

/// Calls the [others](OTHERS), each once.
pub fn others() {
    for function in &SELDOM[1..] {
        function();
    }
}

/// Calls the same function without a probe.
pub fn bare() {
    whywait_bare();
}

/// Attaches the empty program to the function that a [`Timer`] calls.
pub fn attach_empty(object: &mut Object) -> anyhow::Result<Links> {
    attach_to(object, EMPTY, &[whywait_trap])
}

/// Attaches a program to a function of our own.
pub fn attach(object: &mut Object, name: &'static str) -> anyhow::Result<Links> {
    attach_to(object, name, &[whywait_calibrate])
}

/// Attaches the empty program to functions that nobody else calls.
pub fn attach_seldom(object: &mut Object) -> anyhow::Result<Links> {
    attach_to(object, EMPTY, &SELDOM)
}

fn attach_to(object: &mut Object, name: &'static str, functions: &[extern "C" fn()]) -> anyhow::Result<Links> {
    let maps = procfs::process::Process::myself()?.maps()?;
    let pid = NonZeroU32::new(std::process::id()).context("no pid of our own")?;
    let mut links = Links::default();
    for function in functions {
        let address = *function as *const () as u64;
        let map = maps
            .iter()
            .find(|map| (map.address.0..map.address.1).contains(&address))
            .context("our own code is not in any mapping")?;
        let offset = address - map.address.0 + map.offset;
        let link = object.attach(name, Path::new("/proc/self/exe"), offset, pid);
        links.extend(link.map_err(anyhow::Error::msg)?);
    }
    Ok(links)
}

/// What may change the cost of a hit while the agent runs: the online cores, and their frequency policy, as far as this machine shows
/// them.
pub fn machine() -> String {
    const CPUS: &str = "/sys/devices/system/cpu";
    let mut files = vec![format!("{CPUS}/online"), format!("{CPUS}/smt/active")];
    for policy in glob::glob(&format!("{CPUS}/cpufreq/policy*"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let of_policy = ["scaling_governor", "scaling_max_freq", "energy_performance_preference"];
        files.extend(of_policy.map(|name| policy.join(name).display().to_string()));
    }
    let texts = files.into_iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts.collect()
}

const ORDER: &str = r#"{"id":4711,"items":[{"sku":"a-17","count":3,"price":12.95},{"sku":"b-2","count":1,"price":0.5}],"note":"by \"post\"\n","paid":true}"#;

/// Time of work like a service's, with one call in it, ns. After a trap the CPU has to predict branches and fetch instructions again;
/// that is a third of a trap's cost, and a loop of bare calls does not show it.
fn batch(work: &mut Work, call: fn()) -> f64 {
    let begin = Instant::now();
    for _ in 0..CALLS {
        work.turn(call);
    }
    begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

/// A number whose serialization makes the call.
struct Hit(fn());

impl serde::Serialize for Hit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.0)();
        serializer.serialize_u8(1)
    }
}

/// Measures traps in the middle of work.
pub struct Timer(Work);

impl Timer {
    pub fn start() -> Self {
        let mut work = Work::new(TOUCHED);
        // Warms up the CPU's caches.
        batch(&mut work, trapped);
        batch(&mut work, bare);
        Self(work)
    }

    /// Cost of one trap, ns, while the empty program is [attached](attach_empty): the median of `pairs` differences between work with it
    /// and work without, measured alternately, as the speed of the machine changes. None when the machine was too busy to measure it.
    pub fn trap(&mut self, pairs: usize) -> Option<f64> {
        let work = &mut self.0;
        let mut costs: Vec<f64> = (0..pairs).map(|_| batch(work, trapped) - batch(work, bare)).collect();
        costs.sort_by(f64::total_cmp);
        costs.get(pairs / 2).copied().filter(|cost| *cost > 0.0)
    }
}

/// The work between hits.
pub struct Between(Work);

impl Between {
    /// With memory of its own.
    pub fn hits() -> Self {
        Self(Work::new(OTHERS_TOUCH))
    }

    /// Works for this time, without a hit.
    pub fn work_for(&mut self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.0.turn(bare);
        }
    }
}

/// Work like a service's: parses an order, and sends an answer.
struct Work {
    /// None if no socket could be opened: then nothing is sent.
    ends: Option<(UnixStream, UnixStream)>,
    memory: Vec<u8>,
    /// Where the last run stopped in it.
    at: usize,
}

impl Work {
    /// With so many bytes of memory.
    fn new(memory: usize) -> Self {
        Self {
            ends: UnixStream::pair().ok(),
            memory: vec![1; memory],
            at: 0,
        }
    }

    fn turn(&mut self, call: fn()) {
        #[derive(serde::Serialize)]
        struct Answer<'a> {
            order: &'a serde_json::Value,
            hits: [(Hit, &'a str); 1],
            total: f64,
        }
        let order: serde_json::Value = serde_json::from_str(ORDER).unwrap_or_default();
        let answer = Answer {
            order: &order,
            hits: [(Hit(call), "once")],
            total: 39.35,
        };
        let answer = serde_json::to_vec(&answer).unwrap_or_default();
        if let Some((sender, receiver)) = &mut self.ends
            && sender.write_all(&answer).is_ok()
        {
            // All of it is there.
            black_box(receiver.read(&mut vec![0; answer.len()]).is_ok());
        }
        self.at = (self.at + TOUCHED) % self.memory.len();
        for line in self.memory[self.at..].chunks_mut(64).take(TOUCHED / 64) {
            line[0] = line[0].wrapping_add(1);
        }
        black_box(&self.memory);
    }
}
