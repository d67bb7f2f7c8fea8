//! uprobe_multi: a link is attached and detached at once. The kernel takes up to 100 ms to detach a uprobe by perf, one after the other,
//! even if many are closed at once (event_mutex, kernel/trace/trace_event_perf.c): detaching a window of seven probes would take several
//! times as long as the window.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
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
        let programs: Result<_, String> = names.iter().map(load).collect();
        Ok(Self { programs: programs? })
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
