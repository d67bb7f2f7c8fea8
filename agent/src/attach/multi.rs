//! uprobe_multi: a link is attached and detached at once. The kernel takes up to 100 ms to detach a uprobe by perf, one after the other,
//! even if many are closed at once (event_mutex, kernel/trace/trace_event_perf.c): detaching a window of seven probes would take several
//! times as long as the window.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use aya::{Ebpf, maps::Map, util::KernelVersion};

use super::{
    guard,
    kernel::{OBJECT, chain},
};
use crate::{bpf, kernel::Preemption};

/// Since this version the kernel filters by process, not by its first thread (linux 46ba0e49b642).
const SINCE: (u8, u8) = (6, 10);

/// The uprobe programs, loaded for such links.
pub struct Multi {
    programs: HashMap<&'static str, OwnedFd>,
}

impl Multi {
    /// Loads `names` over the maps that `ebpf` made, none of which may have been taken yet, guarded against preemption where this
    /// kernel asks for it; why not, where the kernel or the object does not permit it.
    pub fn load(ebpf: &Ebpf, names: &[&'static str], preemption: &Preemption) -> Result<Self, String> {
        let kfuncs = preemption.guard().map_err(|error| error.to_string())?;
        // A distribution's kernel with a lower version that has private stacks has older changes too.
        let since = KernelVersion::new(SINCE.0, SINCE.1, 0);
        let is_since = KernelVersion::current().is_ok_and(|found| found >= since);
        if !preemption.private_stacks && !is_since {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            return Err(format!("kernel {} is before {}.{}", release.trim(), SINCE.0, SINCE.1));
        }
        let mut object = aya_obj::Object::parse(OBJECT).map_err(|error| chain(&error))?;
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let maps = std::mem::take(&mut object.maps);
        let descriptors: HashMap<&str, i32> = ebpf
            .maps()
            .filter_map(|(name, map)| Some((name, number(map)?)))
            .collect();
        let known = maps
            .iter()
            .filter_map(|(name, map)| Some((name.as_str(), *descriptors.get(name.as_str())?, map)));
        object.relocate_maps(known, &sections).map_err(|error| chain(&error))?;
        object.relocate_calls(&sections).map_err(|error| chain(&error))?;
        let load = |name: &&'static str| {
            let program = object.programs.get(*name).ok_or("not in the object")?;
            let function = &object.functions[&program.function_key()];
            let mut instructions: Vec<[u8; 8]> = function.instructions.iter().map(encode).collect();
            if let Some(kfuncs) = kfuncs {
                instructions = guard::wrap(kfuncs, &instructions);
            }
            let loaded =
                bpf::load_uprobe_multi(name, &instructions, &program.license).map_err(|error| chain(&error))?;
            Ok((*name, loaded))
        };
        Ok(Self {
            programs: each_at_once(names, load)?,
        })
    }

    /// A program on one instruction of the file `path`, in one process.
    pub fn attach(&self, name: &str, path: &Path, offset: u64, pid: u32) -> io::Result<OwnedFd> {
        let program = self.programs.get(name).ok_or(io::ErrorKind::NotFound)?;
        bpf::link_uprobe_multi(program.as_fd(), path, &[offset], pid)
    }

    /// A program's descriptor.
    pub fn program(&self, name: &str) -> Option<BorrowedFd<'_>> {
        Some(self.programs.get(name)?.as_fd())
    }
}

/// What `load` makes of each name, by as many threads as there are cores: the kernel's verifier takes up to half a second for one program.
fn each_at_once<T: Send>(
    names: &[&'static str],
    load: impl Fn(&&'static str) -> Result<(&'static str, T), String> + Sync,
) -> Result<HashMap<&'static str, T>, String> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(names.len());
    let next = AtomicUsize::new(0);
    let some = || -> Result<Vec<_>, String> {
        let names = std::iter::from_fn(|| names.get(next.fetch_add(1, Relaxed)));
        names.map(&load).collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        let mut all = HashMap::new();
        for thread in threads {
            let loaded = thread
                .join()
                .map_err(|_| "a thread that loads programs panicked".to_owned())?;
            all.extend(loaded?);
        }
        Ok(all)
    })
}

fn number(map: &Map) -> Option<i32> {
    let (Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data)) = map else {
        return None;
    };
    Some(data.fd().as_fd().as_raw_fd())
}

/// An instruction as the kernel reads it (struct bpf_insn, include/uapi/linux/bpf.h).
fn encode(instruction: &aya_obj::generated::bpf_insn) -> [u8; 8] {
    let registers = instruction.dst_reg() | instruction.src_reg() << 4;
    let [a, b] = instruction.off.to_le_bytes();
    let [c, d, e, f] = instruction.imm.to_le_bytes();
    [instruction.code, registers, a, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_is_loaded_once_and_a_refusal_is_told() {
        let names: Vec<&'static str> = (0..50).map(|at| &*format!("program {at}").leak()).collect();
        let loads = AtomicUsize::new(0);
        let all = each_at_once(&names, |name| {
            loads.fetch_add(1, Relaxed);
            Ok((*name, name.len()))
        });
        assert_eq!((all.unwrap().len(), loads.into_inner()), (50, 50));
        let refused = each_at_once(&names, |name| {
            if *name == "program 7" {
                Err(format!("{name} is refused"))
            } else {
                Ok((*name, ()))
            }
        });
        assert_eq!(refused.unwrap_err(), "program 7 is refused");
        assert!(
            each_at_once::<()>(&[], |_| Err("none is asked for".to_owned()))
                .unwrap()
                .is_empty()
        );
    }
}
