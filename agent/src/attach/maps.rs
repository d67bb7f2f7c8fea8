//! What the kernel programs are told of targets: written before a target's first probe is attached, removed after its last
//! is gone.

use agent_common::{
    go::{
        assist::{Gathered, Payer, PayerKey, ProcessorKey},
        sched::{Goroutine, GoroutineKey},
    },
    hits::{Cut, Plane},
    net::{connect::Connecting, request::Socket},
    target::{PIDS_A_WORD, Target},
    thread::{run_queue::Thread, syscall::Call},
    tokio::{
        poll::{Thread as Worker, TypeKey},
        wake::{SiteKey, WokenKey},
    },
};
use aya::maps::{Array, HashMap, Map, MapData, MapError};

use crate::aggregate::{StoreError, store::open};

/// The maps that say who is a target, and those that hold what is in progress.
pub struct TargetMaps {
    targets: Array<MapData, Target>,
    indices: Array<MapData, u64>,
    cuts: Array<MapData, Cut>,
    types: HashMap<MapData, TypeKey, u32>,
    sites: HashMap<MapData, SiteKey, u32>,
    goroutines: HashMap<MapData, GoroutineKey, Goroutine>,
    gathered: HashMap<MapData, ProcessorKey, Gathered>,
    paid: HashMap<MapData, PayerKey, Payer>,
    woken: HashMap<MapData, WokenKey, u64>,
    workers: HashMap<MapData, u32, Worker>,
    connecting: HashMap<MapData, u64, Connecting>,
    sockets: HashMap<MapData, u64, Socket>,
    threads: HashMap<MapData, u32, Thread>,
    syscalls: HashMap<MapData, u32, Call>,
}

impl TargetMaps {
    /// Takes over the maps by their names in the object.
    pub fn new(take: &mut impl FnMut(&'static str) -> Option<Map>) -> Result<Self, StoreError> {
        Ok(Self {
            targets: open(take, "TARGETS")?,
            indices: open(take, "TARGET_INDEX")?,
            cuts: open(take, "CUTS")?,
            types: open(take, "TOKIO_TYPES")?,
            sites: open(take, "TOKIO_SITES")?,
            goroutines: open(take, "GOROUTINES")?,
            gathered: open(take, "GATHERED")?,
            paid: open(take, "PAID")?,
            woken: open(take, "TOKIO_WOKEN")?,
            workers: open(take, "TOKIO_THREADS")?,
            connecting: open(take, "CONNECTING")?,
            sockets: open(take, "SOCKETS")?,
            threads: open(take, "THREADS")?,
            syscalls: open(take, "SYSCALLS")?,
        })
    }

    /// Says which type of task each vtable address of a target stands for.
    pub fn set_types(&mut self, slot: u32, types: &[(u64, u32)]) -> Result<(), MapError> {
        let slot = u64::from(slot);
        types
            .iter()
            .try_for_each(|(vtable, future)| self.types.insert(TypeKey { vtable: *vtable, slot }, future, 0))
    }

    /// Says where each probed instruction of a target has its argument.
    pub fn set_sites(&mut self, slot: u32, sites: &[(u64, u32)]) -> Result<(), MapError> {
        let slot = u64::from(slot);
        sites
            .iter()
            .try_for_each(|(ip, place)| self.sites.insert(SiteKey { ip: *ip, slot }, place, 0))
    }

    /// Makes a process a target: from here on the kernel side sees what it does.
    pub fn admit(&mut self, pid: u32, target: &Target) -> Result<(), MapError> {
        self.cuts.set(target.index, Cut::default(), 0)?;
        self.targets.set(target.index, target, 0)?;
        self.set_index(pid, target.index)
    }

    /// Tells the programs something new of a target: the window of the planes in `opened` was opened, or one was closed.
    pub fn update(&mut self, target: &Target, opened: u32) -> Result<(), MapError> {
        if opened != 0 {
            // The map changes word by word: the window's begin before the flag that says it is open.
            let before = Target {
                flags: target.flags & !opened,
                ..*target
            };
            self.targets.set(target.index, before, 0)?;
        }
        self.targets.set(target.index, target, 0)
    }

    /// When the programs ended the window of a plane by themselves, ns; None when they have not.
    pub fn cut(&self, target: &Target, plane: Plane) -> Result<Option<u64>, MapError> {
        let at = self.cuts.get(&target.index, 0)?.at[plane as usize];
        Ok((at != 0).then_some(at))
    }

    /// Hits in windows of a plane so far, but for the last few of each CPU.
    pub fn used(&self, target: &Target, plane: Plane) -> Result<u64, MapError> {
        Ok(self.cuts.get(&target.index, 0)?.used[plane as usize])
    }

    /// Forgets that they did, before the plane's next window.
    pub fn clear_cut(&mut self, target: &Target, plane: Plane) -> Result<(), MapError> {
        // A hit that another plane adds in between is lost to its allowance, which is told anew at the next turn.
        let mut cut = self.cuts.get(&target.index, 0)?;
        cut.at[plane as usize] = 0;
        self.cuts.set(target.index, cut, 0)
    }

    /// Stops events of a process; what was counted stays until [`Self::forget`].
    pub fn dismiss(&mut self, pid: u32) -> Result<(), MapError> {
        self.set_index(pid, 0)
    }

    /// Removes what the hooks had in progress in slots whose window is closed. The programs do not mistake it for the next
    /// window's, but it takes room: a socket that is closed while no hook sees it stays here.
    pub fn clear_hooks(&mut self, closed: impl Fn(u32) -> bool) {
        remove_where(&mut self.threads, |_, value| closed(value.slot));
        remove_where(&mut self.syscalls, |_, value| closed(value.slot));
        remove_where(&mut self.sockets, |_, value| closed(value.slot));
    }

    /// The same of what the probes had in progress.
    pub fn clear_probes(&mut self, closed: impl Fn(u32) -> bool) {
        remove_where(&mut self.goroutines, |key, _| closed(key.slot as u32));
        remove_where(&mut self.gathered, |key, _| closed(key.slot as u32));
        remove_where(&mut self.woken, |key, _| closed(key.slot as u32));
        remove_where(&mut self.workers, |_, value| closed(value.slot));
    }

    /// Removes what was in progress for a target whose probes are gone.
    pub fn forget(&mut self, slot: u32) {
        let wide = u64::from(slot);
        self.clear_hooks(|of| of == slot);
        self.clear_probes(|of| of == slot);
        remove_where(&mut self.paid, |key, _| key.slot == slot);
        remove_where(&mut self.types, |key, _| key.slot == wide);
        remove_where(&mut self.sites, |key, _| key.slot == wide);
        remove_where(&mut self.connecting, |_, value| value.slot == slot);
    }

    fn set_index(&mut self, pid: u32, index: u32) -> Result<(), MapError> {
        let (word, shift) = (pid / PIDS_A_WORD, pid % PIDS_A_WORD * 16);
        let old = self.indices.get(&word, 0)?;
        let new = old & !(0xffff << shift) | u64::from(index) << shift;
        self.indices.set(word, new, 0)
    }
}

/// Removes the entries that `gone` names; one that vanishes meanwhile is gone too.
fn remove_where<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<MapData, K, V>, gone: impl Fn(&K, &V) -> bool) {
    let keys: Vec<K> = map
        .iter()
        .filter_map(Result::ok)
        .filter(|(key, value)| gone(key, value))
        .map(|(key, _)| key)
        .collect();
    for key in keys {
        let _ = map.remove(&key);
    }
}
