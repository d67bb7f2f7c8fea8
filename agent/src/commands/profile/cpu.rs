//! Code on CPU: samples of the kernel's CPU clock, taken beside the looks, with the names of Go's, C's and the kernel's functions.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    ops::Range,
    time::Duration,
};

use procfs::process::MMapPath;

use super::samples::Frames;
use crate::{
    inspect::{Arch, Frame},
    perf::{CpuClock, Refused, Running},
    runtime::go::{Chain, CodePlace, Places, StackPc, Unwinder},
};

/// Addresses of all stacks that are kept apart: 16 MB.
const KEPT: usize = 1 << 20;
/// In these a goroutine is in a system call, or in C, for the runtime as well.
const CALLS: [&str; 3] = ["syscall.Syscall", "syscall.Syscall6", "runtime.cgocall"];

/// What was on CPU so far.
pub(super) struct OnCpu {
    clock: Option<CpuClock>,
    pid: u32,
    /// Time that a sample stands for.
    pub period: Duration,
    stacks: HashMap<CpuStack, u64>,
    kept: usize,
    samples: u64,
    /// Samples of stacks that are not kept apart.
    not_kept: u64,
    /// Samples of this process and others that were lost.
    pub lost: u64,
    /// The process' CPU time by the kernel's account: at the begin, then what it took since.
    account: Option<Duration>,
    maps: Vec<(Range<u64>, String)>,
}

/// Innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct CpuStack {
    kernel: Vec<u64>,
    user: Vec<CodePlace>,
}

/// A stack on CPU with its names.
pub(super) struct CpuSample {
    pub stack: Vec<Frames>,
    /// For the runtime, its goroutine is in a system call, or in C.
    pub in_call: bool,
    /// ns.
    pub time: f64,
}

impl CpuSample {
    /// What the goroutine was started with, which is the outermost function; None of the runtime's own stacks.
    pub fn origin(&self) -> Option<&str> {
        let outermost = self.stack.last()?.functions.last()?;
        Some(&outermost.function)
    }
}

impl OnCpu {
    /// Samples the process from now on.
    pub fn begin(pid: u32, arch: Arch, rate: u32) -> Result<Self, Refused> {
        let clock = CpuClock::open(pid, arch, rate)?;
        Ok(Self {
            period: clock.period,
            clock: Some(clock),
            pid,
            stacks: HashMap::new(),
            kept: 0,
            samples: 0,
            not_kept: 0,
            lost: 0,
            account: account(pid),
            maps: Vec::new(),
        })
    }

    /// Takes out what was sampled.
    pub fn drain(&mut self, unwinder: &mut Unwinder) {
        let Some(mut clock) = self.clock.take() else { return };
        clock.drain(|running| self.note(running, unwinder));
        self.lost = clock.lost;
        self.clock = Some(clock);
    }

    /// Samples no more.
    pub fn end(&mut self, unwinder: &mut Unwinder) {
        self.drain(unwinder);
        self.clock = None;
        let before = self.account.take();
        self.account = before.and_then(|before| account(self.pid)?.checked_sub(before));
        // Of a process that has ended nothing can be said any more.
        self.maps = maps(self.pid).unwrap_or_default();
    }

    fn note(&mut self, running: Running, unwinder: &mut Unwinder) {
        let Running {
            kernel,
            user,
            sp,
            lr,
            stack,
        } = running;
        let user = unwinder.places(Chain {
            addresses: &user,
            sp,
            lr,
            stack: &stack,
        });
        self.samples += 1;
        let mut stack = CpuStack { kernel, user };
        if !self.stacks.contains_key(&stack) {
            let size = stack.kernel.len() + stack.user.len();
            if self.kept + size > KEPT {
                self.not_kept += 1;
                // What is left of it is where it began.
                stack.kernel.clear();
                stack.user.drain(..stack.user.len().saturating_sub(2));
            } else {
                self.kept += size;
            }
        }
        *self.stacks.entry(stack).or_default() += 1;
    }

    /// Samples, the time that they stand for, and the kernel's account of it.
    pub fn times(&self) -> (u64, f64, Option<Duration>) {
        (self.samples, self.time(self.samples), self.account)
    }

    /// The part of the samples whose stacks are not kept apart.
    pub fn not_kept(&self) -> f64 {
        self.not_kept as f64 / self.samples.max(1) as f64
    }

    fn time(&self, samples: u64) -> f64 {
        samples as f64 * self.period.as_nanos() as f64
    }

    /// All stacks with their names.
    pub fn named(&self, places: &mut Places) -> Vec<CpuSample> {
        let kernel: BTreeSet<u64> = self.stacks.keys().flat_map(|stack| &stack.kernel).copied().collect();
        let kernel = kernel_names(&kernel);
        let named = self.stacks.iter().map(|(stack, samples)| {
            let is_call = |frames: &Frames| frames.functions.iter().any(|at| CALLS.contains(&at.function.as_str()));
            let user = self.user(stack, places);
            let is_go = matches!(stack.user.first(), Some(CodePlace::Go(_)));
            let in_call = (!stack.kernel.is_empty() || !is_go) && user.iter().any(is_call);
            let frames = self.kernel(stack, &kernel, places.bias).into_iter().chain(user);
            CpuSample {
                stack: frames.collect(),
                in_call,
                time: self.time(*samples),
            }
        });
        named.collect()
    }

    fn user(&self, stack: &CpuStack, places: &mut Places) -> Vec<Frames> {
        let mut frames: Vec<Frames> = Vec::new();
        for place in &stack.user {
            match place {
                CodePlace::Go(pc) => frames.extend(shown(*pc, places)),
                CodePlace::Other(address) => {
                    let map = self.maps.iter().find(|(range, _)| range.contains(address));
                    // Of code without frame pointers, what is behind its first address may be anything.
                    let Some((_, name)) = map else {
                        if frames.is_empty() {
                            frames.push(foreign("[unknown]".to_owned(), *address, places.bias));
                        }
                        break;
                    };
                    let is_same = frames.last().is_some_and(|last| last.functions[0].function == *name);
                    if !is_same {
                        frames.push(foreign(name.clone(), *address, places.bias));
                    }
                }
            }
        }
        frames
    }

    fn kernel(&self, stack: &CpuStack, names: &HashMap<u64, String>, bias: u64) -> Vec<Frames> {
        if names.is_empty() {
            let innermost = stack.kernel.first();
            let one = innermost.map(|address| foreign("[kernel]".to_owned(), *address, bias));
            return one.into_iter().collect();
        }
        let named = stack.kernel.iter().map(|address| {
            let name = names.get(address).map_or("unknown", String::as_str);
            foreign(format!("[kernel] {name}"), *address, bias)
        });
        named.collect()
    }
}

/// What is shown of a PC; None for one that is a wrapper's alone, and for the end of a stack, as runtime/pprof leaves it out.
pub(super) fn shown(pc: StackPc, places: &mut Places) -> Option<Frames> {
    let functions = places.functions(pc);
    let shown = functions.iter().filter(|function| !function.is_wrapper);
    let functions: Vec<Frame> = shown.map(|function| function.frame.clone()).collect();
    let first = functions.first()?;
    (first.function != "runtime.goexit").then(|| Frames {
        vaddr: pc.place(),
        is_go: true,
        functions,
    })
}

/// A function that is not Go's.
fn foreign(name: String, address: u64, bias: u64) -> Frames {
    let frame = Frame {
        function: name,
        file: String::new(),
        line: 0,
    };
    Frames {
        vaddr: address.wrapping_sub(bias),
        is_go: false,
        functions: vec![frame],
    }
}

/// CPU time that a process took so far.
fn account(pid: u32) -> Option<Duration> {
    let stat = procfs::process::Process::new(pid as i32).ok()?.stat().ok()?;
    let ticks = stat.utime + stat.stime;
    Some(Duration::from_nanos(
        ticks * 1_000_000_000 / procfs::ticks_per_second().max(1),
    ))
}

/// Files and the vDSO that a process maps, by their addresses.
fn maps(pid: u32) -> Option<Vec<(Range<u64>, String)>> {
    let maps = procfs::process::Process::new(pid as i32).ok()?.maps().ok()?;
    let named = maps.into_iter().filter_map(|map| {
        let name = match &map.pathname {
            MMapPath::Path(path) => path.file_name()?.to_string_lossy().into_owned(),
            MMapPath::Vdso => "vdso".to_owned(),
            _ => return None,
        };
        Some((map.address.0..map.address.1, format!("[{name}]")))
    });
    Some(named.collect())
}

/// The kernel's functions at these addresses, by /proc/kallsyms; none where it does not tell addresses (kernel.kptr_restrict).
fn kernel_names(addresses: &BTreeSet<u64>) -> HashMap<u64, String> {
    if addresses.is_empty() {
        return HashMap::new();
    }
    let read = || -> io::Result<String> { Ok(String::from_utf8_lossy(&fs::read("/proc/kallsyms")?).into_owned()) };
    read().map_or_else(|_| HashMap::new(), |text| nearest(&text, addresses))
}

/// For each address the function that begins nearest before it.
fn nearest(kallsyms: &str, addresses: &BTreeSet<u64>) -> HashMap<u64, String> {
    let symbol = |line: &'_ str| -> Option<(u64, usize)> {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next()?, 16)
            .ok()
            .filter(|address| *address != 0)?;
        let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
        let name = words.next().filter(|_| is_code)?;
        Some((address, name.as_ptr() as usize - kallsyms.as_ptr() as usize))
    };
    let mut symbols: Vec<(u64, usize)> = kallsyms.lines().filter_map(symbol).collect();
    symbols.sort_unstable();
    let found = addresses.iter().filter_map(|address| {
        let after = symbols.partition_point(|(begin, _)| begin <= address);
        let (_, name) = symbols[..after].last()?;
        let name = kallsyms[*name..].split_ascii_whitespace().next()?;
        Some((*address, name.to_owned()))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_functions_are_found_by_where_they_begin() {
        let text = "ffffffff81000000 T _stext\nffffffff81000100 t do_it\nffffffff81000180 d data\n\
                    ffffffff81000200 T last\t[module]\nnonsense\nffffffff81000050 W early\n";
        let addresses = [
            0xffff_ffff_8100_0010,
            0xffff_ffff_8100_01ff,
            0xffff_ffff_8100_0060,
            0x10,
        ];
        let found = nearest(text, &addresses.into());
        let name = |address| found.get(&address).map(String::as_str);
        assert_eq!(
            addresses.map(name),
            [Some("_stext"), Some("do_it"), Some("early"), None]
        );
        // Where addresses are not told.
        assert!(nearest("0000000000000000 T _stext\n", &addresses.into()).is_empty());
    }

    #[test]
    fn what_is_mapped_has_the_name_of_its_file() {
        let maps = maps(std::process::id()).unwrap();
        let here = what_is_mapped_has_the_name_of_its_file as fn() as usize as u64;
        let own = std::env::current_exe().unwrap();
        let own = own.file_name().unwrap().to_string_lossy();
        let found = maps.iter().find(|(range, _)| range.contains(&here));
        assert_eq!(found.unwrap().1, format!("[{own}]"));
    }
}
