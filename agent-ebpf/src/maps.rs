//! Every map, and the globals that user space fills in before loading.

use agent_common::{
    go::{
        assist::{Gathered, PAYERS, Payer, PayerKey, ProcessorKey},
        sched::{Goroutine, GoroutineKey},
        stw::Last,
    },
    histogram::{Bucket, Key},
    hits::{Account, Cut, KIND_UNIT, Plane, Probe, TOGETHER, Trapped},
    kernel::Layout,
    loss::Loss,
    net::{PEER_LIMIT, Peer, connect::Connecting, request::Socket},
    target::{HOOKS_OPEN, Made, Over, PID_LIMIT, PIDS_A_WORD, PROBES_OPEN, Shared, TARGET_LIMIT, Target},
    thread::{run_queue::Thread, syscall::Call},
    tokio::{
        poll::{Thread as Worker, TypeKey},
        wake::{SiteKey, WokenKey},
    },
};
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};

use crate::{clock, record};

/// Offsets of this kernel's structs, as the loader sets them; read by `kernel!`.
#[unsafe(no_mangle)]
pub static KERNEL: Layout = Layout::EMPTY;

/// Events to user space; its size is set at load.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Exec events, of every process: in a ring of their own, from which a flood of others takes no room.
#[map]
pub static EXECS: RingBuf = RingBuf::with_byte_size(1 << 16, 0);
/// Lost values and events by [`Loss`].
#[map]
pub static LOSS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);
/// By pid: where a target stands in [`TARGETS`]. Arrays both, which the kernel reads without a call; what is not a target
/// costs one such read. Its size is set at load, by the host's pid_max.
#[map]
pub static TARGET_INDEX: Array<u64> = Array::with_max_entries(PID_LIMIT / PIDS_A_WORD, 0);
#[map]
pub static TARGETS: Array<Target> = Array::with_max_entries(TARGET_LIMIT, 0);
/// By [`Target::index`].
#[map]
pub static ACCOUNTS: PerCpuArray<Account> = PerCpuArray::with_max_entries(TARGET_LIMIT, 0);

/// When probes were last hit on this CPU.
#[map]
pub static TRAPPED: PerCpuArray<Trapped> = PerCpuArray::with_max_entries(1, 0);
/// By [`Target::index`]; user space sets it back before it opens a window.
#[map]
pub static CUTS: Array<Cut> = Array::with_max_entries(TARGET_LIMIT, 0);
#[map]
pub static HISTOGRAMS: HashMap<Key, Bucket> = HashMap::with_max_entries(64 * 1024, 0);
/// By [`Target::index`]; user space sets it to nothing before a process is admitted.
#[map]
pub static MADE: Array<Made> = Array::with_max_entries(TARGET_LIMIT, 0);
/// By [`Shared::held`]: how many entries a target has of a map below. Signed, as user space counts them anew while programs add and remove
/// some.
#[map]
pub static HELD: Array<i64> = Array::with_max_entries(TARGET_LIMIT * Shared::COUNT as u32, 0);
/// By [`Target::index`]; as [`MADE`].
#[map]
pub static OVER: Array<Over> = Array::with_max_entries(TARGET_LIMIT, 0);
#[map]
pub static GOROUTINES: HashMap<GoroutineKey, Goroutine> = HashMap::with_max_entries(Shared::Goroutines.room(), 0);
/// Mark assists by P, and by who paid in the cycle under way.
#[map]
pub static GATHERED: HashMap<ProcessorKey, Gathered> = HashMap::with_max_entries(16 * 1024, 0);
#[map]
pub static PAID: HashMap<PayerKey, Payer> = HashMap::with_max_entries(TARGET_LIMIT * (PAYERS as u32 + 1), 0);
/// By [`Target::index`].
#[map]
pub static LAST_STOPPED: Array<Last> = Array::with_max_entries(TARGET_LIMIT, 0);
/// Type ids by vtable.
#[map]
pub static TOKIO_TYPES: HashMap<TypeKey, u32> = HashMap::with_max_entries(16 * 1024, 0);
/// By tid.
#[map]
pub static TOKIO_THREADS: HashMap<u32, Worker> = HashMap::with_max_entries(Shared::TokioThreads.room(), 0);
/// Where the task's header is at a probe of [`crate::tokio::wake`].
#[map]
pub static TOKIO_SITES: HashMap<SiteKey, u32> = HashMap::with_max_entries(4096, 0);
/// Woken at, ns.
#[map]
pub static TOKIO_WOKEN: HashMap<WokenKey, u64> = HashMap::with_max_entries(Shared::TokioWoken.room(), 0);
/// Both by address of the kernel's struct sock. Connects that are under way:
#[map]
pub static CONNECTING: HashMap<u64, Connecting> = HashMap::with_max_entries(Shared::Connecting.room(), 0);
#[map]
pub static SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(Shared::Sockets.room(), 0);
/// Peers by the ids their values are counted under.
#[map]
pub static PEERS: HashMap<u32, Peer> = HashMap::with_max_entries(PEER_LIMIT, 0);
/// By tid.
#[map]
pub static THREADS: HashMap<u32, Thread> = HashMap::with_max_entries(Shared::Threads.room(), 0);

/// By tid.
#[map]
pub static SYSCALLS: HashMap<u32, Call> = HashMap::with_max_entries(Shared::Syscalls.room(), 0);

/// The target that a process is, if it is one.
#[inline(always)]
pub fn target(tgid: u32) -> Option<&'static Target> {
    let word = TARGET_INDEX.get(tgid / PIDS_A_WORD)?;
    let index = (word >> (tgid % PIDS_A_WORD * 16)) as u16;
    if index == 0 {
        return None;
    }
    // Written by user space before the index is; afterwards only single words of it change.
    TARGETS.get(u32::from(index))
}

/// The target in whose memory a uprobe is: it is one, or was until just now; and when it was hit.
#[inline(always)]
pub fn probed(tgid: u32, probe: Probe) -> Option<(&'static Target, u64)> {
    let target = target(tgid)?;
    let now = clock::now();
    let open = target.flags & PROBES_OPEN != 0;
    spend(target, probe, Plane::Probes, open, Some(now)).then_some((target, now))
}

/// The target that a hook was called for, if it is one and its hooks count.
#[inline(always)]
pub fn hooked(tgid: u32, probe: Probe) -> Option<&'static Target> {
    let target = target(tgid)?;
    if target.flags & HOOKS_OPEN == 0 {
        hit(target, Probe::HookIdle);
        return None;
    }
    spend(target, probe, Plane::Hooks, true, None).then_some(target)
}

/// Counts a hit that a target pays for.
#[inline(always)]
pub fn hit(target: &Target, probe: Probe) {
    if let Some(account) = ACCOUNTS.get_ptr_mut(target.index) {
        // SAFETY: an element of an array that lives as long as this object.
        unsafe { record::add(&raw mut (*account).hits[probe as usize], 1) };
    }
}

/// Counts how long no probe was hit on this CPU before this one, of any kind or of its own: it cost more for that.
///
/// # Safety
/// `account` is an element of [`ACCOUNTS`].
#[inline(always)]
unsafe fn note_pause(account: *mut Account, probe: Probe, now: u64) {
    let Some(trapped) = TRAPPED.get_ptr_mut(0) else { return };
    // SAFETY: as the caller says, and the one element of an array; another program on this CPU can be between these words, and has one hit
    // taken for a colder one.
    unsafe {
        let last = core::mem::replace(&mut (*trapped).last, now);
        let units = (now >> KIND_UNIT) as u32;
        let last_of = core::mem::replace(&mut (*trapped).last_of[probe as usize], units);
        let of_kind = u64::from(units.wrapping_sub(last_of)) << KIND_UNIT;
        if let Some(cold) = Probe::cold(now.saturating_sub(last)) {
            record::add(&raw mut (*account).cold[cold], 1);
        } else if let Some(cold) = Probe::cold(of_kind) {
            record::add(&raw mut (*account).cold_kind[cold], 1);
        }
    }
}

/// Counts a hit, and says whether it counts: in a window that is `open`, and within what that is allowed on all CPUs together. The
/// first hit over it ends the window at once, on every CPU; the governor, which comes by every 10 ms, finds it ended. Of a trap, when it
/// was: after a pause it cost more.
#[inline(always)]
fn spend(target: &Target, probe: Probe, plane: Plane, open: bool, trapped: Option<u64>) -> bool {
    let (Some(account), Some(cut)) = (ACCOUNTS.get_ptr_mut(target.index), CUTS.get_ptr_mut(target.index)) else {
        return false;
    };
    // SAFETY: as in `hit`; the cut is one aligned word, written with a time that is as good as another CPU's. A program that
    // interrupts this one in between may have a few hits of the window counted twice, or not.
    unsafe {
        record::add(&raw mut (*account).hits[probe as usize], 1);
        if let Some(now) = trapped {
            note_pause(account, probe, now);
        }
        if !open || (*cut).at[plane as usize] != 0 {
            return false;
        }
        let held = &mut (*account).held[plane as usize];
        *held += 1;
        if *held >= TOGETHER {
            record::add(&raw mut (*cut).used[plane as usize], *held);
            *held = 0;
        }
        if (*cut).used[plane as usize] > target.allowance[plane as usize] {
            (*cut).at[plane as usize] = clock::now();
            return false;
        }
    }
    true
}
