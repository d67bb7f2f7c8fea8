//! What a hit costs on this very machine: a function of our own is probed with an empty program, and work that calls it is
//! timed.

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
/// Calls timed at once, and how often, with the probe and without in turns.
const CALLS: u32 = 25;
const PAIRS: usize = 96;
/// Bytes that the work touches besides: what a request leaves in the first cache.
const TOUCHED: usize = 32 << 10;
/// And those that the work between hits touches in its turns, a part each: what other requests leave in the second.
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

/// How many there are beside the first.
pub const OTHERS: usize = SELDOM.len() - 1;

/// Cost of one trap, ns. None when the machine was too busy to tell.
pub fn trap(object: &mut Object) -> anyhow::Result<Option<f64>> {
    let link = attach_empty(object)?;
    let cost = Timer::start().trap(PAIRS);
    drop(link);
    Ok(cost)
}

/// What the kernel's statistics say that the empty program takes, ns: they read the clock twice a run. They must be kept
/// while this is called.
pub fn bias(object: &mut Object) -> anyhow::Result<f64> {
    let runs = |object: &Object| object.runs(EMPTY).context("the kernel tells nothing of a program");
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
    let pid = NonZeroU32::new(std::process::id()).context("we are no process")?;
    let mut links = Links::default();
    for function in functions {
        let address = *function as *const () as u64;
        let map = maps
            .iter()
            .find(|map| (map.address.0..map.address.1).contains(&address))
            .context("our own code is in no mapping")?;
        let offset = address - map.address.0 + map.offset;
        let link = object.attach(name, Path::new("/proc/self/exe"), offset, pid);
        links.extend(link.map_err(anyhow::Error::msg)?);
    }
    Ok(links)
}

/// What of the machine changes what a hit costs while the agent runs: cores that are online, and the policy of their frequency.
/// What this machine does not tell is not in it.
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

/// A service's kind of work with one call in its midst, ns. After a trap the processor has to learn the program's branches anew and to
/// fetch its instructions again, and after a system call the kernel those of the trap: that is a third of what a trap costs, and a bare
/// call does not show it.
fn batch(work: &mut Work, call: fn()) -> f64 {
    let begin = Instant::now();
    for _ in 0..CALLS {
        work.turn(call);
    }
    begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

/// A number that is written with a call.
struct Hit(fn());

impl serde::Serialize for Hit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.0)();
        serializer.serialize_u8(1)
    }
}

/// Times traps in the midst of work.
pub struct Timer(Work);

impl Timer {
    pub fn start() -> Self {
        let mut work = Work::new(TOUCHED);
        // The first runs find nothing in the processor's caches.
        batch(&mut work, trapped);
        batch(&mut work, bare);
        Self(work)
    }

    /// Cost of one trap, ns, while the empty program is [attached](attach_empty): what the work takes with it, less what it takes without, in
    /// turns, as the machine may run faster from one moment to the next; the middle one of so many differences. None when the machine was too
    /// busy to tell.
    pub fn trap(&mut self, pairs: usize) -> Option<f64> {
        let work = &mut self.0;
        let mut costs: Vec<f64> = (0..pairs).map(|_| batch(work, trapped) - batch(work, bare)).collect();
        costs.sort_by(f64::total_cmp);
        costs.get(pairs / 2).copied().filter(|cost| *cost > 0.0)
    }
}

/// What is done between hits.
pub struct Between(Work);

impl Between {
    /// With memory of its own.
    pub fn hits() -> Self {
        Self(Work::new(OTHERS_TOUCH))
    }

    /// Works for so long, without a hit.
    pub fn work_for(&mut self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.0.turn(bare);
        }
    }
}

/// Reads an order, and sends an answer.
struct Work {
    /// Without it nothing is sent.
    ends: Option<(UnixStream, UnixStream)>,
    memory: Vec<u8>,
    /// Where the last turn's part of it ended.
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
