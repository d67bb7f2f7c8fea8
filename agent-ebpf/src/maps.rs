//! Every map, and the globals that user space fills in before loading.

use agent_common::{
    go::sched::{Runnable, RunnableKey},
    histogram::{Bucket, Key},
    kernel::Layout,
    loss::Loss,
    net::{Listener, PEER_LIMIT, Peer, Socket},
    target::{PID_LIMIT, Target},
    thread::run_queue::Waiting,
    tokio::{
        poll::{Thread, TypeKey},
        wake::{SiteKey, WokenKey},
    },
};
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};

/// Offsets of this kernel's structs.
#[unsafe(no_mangle)]
static KERNEL: Layout = Layout::EMPTY;

/// Events to user space; its size is set at load.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Lost values and events by [`Loss`].
#[map]
pub static LOSS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);
/// A bit a pid: set for targets. Read before [`TARGETS`], so that what is not a target costs one array look-up.
#[map]
pub static TARGET_BITS: Array<u64> = Array::with_max_entries(PID_LIMIT / 64, 0);
#[map]
pub static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(1024, 0);
#[map]
pub static HISTOGRAMS: HashMap<Key, Bucket> = HashMap::with_max_entries(64 * 1024, 0);
#[map]
pub static GO_RUNNABLE: HashMap<RunnableKey, Runnable> = HashMap::with_max_entries(64 * 1024, 0);
/// Type ids by vtable.
#[map]
pub static TOKIO_TYPES: HashMap<TypeKey, u32> = HashMap::with_max_entries(16 * 1024, 0);
/// By tid.
#[map]
pub static TOKIO_THREADS: HashMap<u32, Thread> = HashMap::with_max_entries(16 * 1024, 0);
/// Where the task's header is at a probe of [`crate::tokio::wake`].
#[map]
pub static TOKIO_SITES: HashMap<SiteKey, u32> = HashMap::with_max_entries(4096, 0);
/// Woken at, ns.
#[map]
pub static TOKIO_WOKEN: HashMap<WokenKey, u64> = HashMap::with_max_entries(64 * 1024, 0);
/// By address of the kernel's struct sock.
#[map]
pub static SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(64 * 1024, 0);
#[map]
pub static LISTENERS: HashMap<Listener, u32> = HashMap::with_max_entries(4096, 0);
/// Peers and the ids their values are counted under.
#[map]
pub static PEERS: HashMap<Peer, u32> = HashMap::with_max_entries(PEER_LIMIT, 0);
/// Peers numbered on each CPU so far.
#[map]
pub static PEER_COUNT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
/// By tid.
#[map]
pub static THREADS_WAITING: HashMap<u32, Waiting> = HashMap::with_max_entries(64 * 1024, 0);

/// Offsets of this kernel's structs, as the loader set them.
#[inline(always)]
pub fn kernel() -> Layout {
    // SAFETY: a static of this object, always valid; volatile because the loader changes it behind the compiler's back.
    unsafe { core::ptr::read_volatile(&raw const KERNEL) }
}

/// The target that a process is, if it is one.
#[inline(always)]
pub fn target(tgid: u32) -> Option<&'static Target> {
    let word = TARGET_BITS.get(tgid / 64)?;
    if word & (1 << (tgid % 64)) == 0 {
        return None;
    }
    // SAFETY: entries of TARGETS are written once, by user space, before the bit is set; a target that goes away while a
    // probe runs is read once more, never written.
    unsafe { TARGETS.get(tgid) }
}
