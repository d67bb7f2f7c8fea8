//! Every map, and the globals that user space fills in before loading.

use agent_common::{
    go::{
        assist::{AssistTime, PAYERS, Payer, PayerKey, ProcessorKey},
        sched::{Goroutine, GoroutineKey},
        stw::Last,
    },
    histogram::{BLOCKS as ALL_BLOCKS, Block, BlockKey},
    hits::{Account, Cutoff, HitKind, LastHits},
    kernel::Layout,
    kernel_log::Pace,
    loss::Loss,
    net::{PEER_LIMIT, Peer, connect::Connecting, request::Socket},
    target::{PID_LIMIT, PIDS_A_WORD, Refused, SharedMap, TARGET_LIMIT, Target, Usage},
    thread::{run_queue::Thread, syscall::Call},
    tokio::{
        poll::{TYPES, Thread as Worker, TypeKey},
        wake::{SITES, SiteKey, WokenKey},
    },
};
use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};

use crate::{
    clock,
    hits::{is_counted, spend},
};

/// Makes an array begin where a page does, so that elements of a cache line's size lie in one. It is not mapped.
const ALIGNED: u32 = BPF_F_MMAPABLE;

/// Offsets of this kernel's structs, as the loader sets them; read by `kernel!`.
#[unsafe(no_mangle)]
pub static KERNEL: Layout = Layout::EMPTY;

/// Events to user space; its size is set at load.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Exec events of every process. They have a ring of their own, which other events cannot fill.
#[map]
pub static EXECS: RingBuf = RingBuf::with_byte_size(1 << 16, 0);
/// Lost values and events by [`Loss`].
#[map]
pub static LOSS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);
/// Of kernel messages.
#[map]
pub static LOG_PACE: Array<Pace> = Array::with_max_entries(1, 0);
/// By pid: the index of a target in [`TARGETS`]. Both are arrays, which a program reads without a helper call; a process that is no target costs
/// one such read. The size is set at load, by the host's pid_max.
#[map]
pub static TARGET_INDEX: Array<u64> = Array::with_max_entries(PID_LIMIT / PIDS_A_WORD, 0);
#[map]
pub static TARGETS: Array<Target> = Array::with_max_entries(TARGET_LIMIT, ALIGNED);
/// By [`Target::index`].
#[map]
pub static ACCOUNTS: PerCpuArray<Account> = PerCpuArray::with_max_entries(TARGET_LIMIT, 0);
/// When probes were last hit on this CPU.
#[map]
pub static LAST_HITS: PerCpuArray<LastHits> = PerCpuArray::with_max_entries(1, 0);
/// By [`Target::index`]; user space resets it before it opens a window.
#[map]
pub static CUTOFFS: Array<Cutoff> = Array::with_max_entries(TARGET_LIMIT, ALIGNED);
/// Blocks of histograms: a [`crate::table`]. User space sets blocks of targets that are gone to 0, and then their keys.
#[map]
pub static BLOCK_KEYS: Array<BlockKey> = Array::with_max_entries(ALL_BLOCKS, ALIGNED);
#[map]
pub static BLOCKS: Array<Block> = Array::with_max_entries(ALL_BLOCKS, ALIGNED);
/// Places of tables that a program is about to take: an insert fails for all but one.
#[map]
pub static CLAIMS: HashMap<u32, u32> = HashMap::with_max_entries(1024, 0);
/// By [`Target::index`]; user space sets it to 0 before a process is admitted.
#[map]
pub static USAGE: Array<Usage> = Array::with_max_entries(TARGET_LIMIT, 0);
/// By [`SharedMap::held`]: a target's entries in a map below. Signed: user space counts them again while programs add and remove some.
#[map]
pub static HELD: Array<i64> = Array::with_max_entries(TARGET_LIMIT * SharedMap::COUNT as u32, 0);
/// By [`Target::index`]; as [`USAGE`].
#[map]
pub static REFUSED: Array<Refused> = Array::with_max_entries(TARGET_LIMIT, 0);
/// A table.
#[map]
pub static GOROUTINE_KEYS: Array<GoroutineKey> = Array::with_max_entries(SharedMap::Goroutines.capacity(), ALIGNED);
#[map]
pub static GOROUTINES: Array<Goroutine> = Array::with_max_entries(SharedMap::Goroutines.capacity(), ALIGNED);
/// Mark assists: by P, and by who paid in the current cycle.
#[map]
pub static ASSIST_TIMES: HashMap<ProcessorKey, AssistTime> = HashMap::with_max_entries(16 * 1024, 0);
#[map]
pub static PAID: HashMap<PayerKey, Payer> = HashMap::with_max_entries(TARGET_LIMIT * (PAYERS as u32 + 1), 0);
/// By [`Target::index`].
#[map]
pub static LAST_STOPPED: Array<Last> = Array::with_max_entries(TARGET_LIMIT, 0);
/// Type ids by vtable: a table that user space alone writes.
#[map]
pub static TOKIO_TYPE_KEYS: Array<TypeKey> = Array::with_max_entries(TYPES, ALIGNED);
#[map]
pub static TOKIO_TYPES: Array<u32> = Array::with_max_entries(TYPES, ALIGNED);
/// A table.
#[map]
pub static TOKIO_TIDS: Array<u32> = Array::with_max_entries(SharedMap::TokioThreads.capacity(), ALIGNED);
#[map]
pub static TOKIO_THREADS: Array<Worker> = Array::with_max_entries(SharedMap::TokioThreads.capacity(), ALIGNED);
/// Where the pointer to the task's header is at a probe of [`crate::tokio::wake`]: as [`TOKIO_TYPES`].
#[map]
pub static TOKIO_SITE_KEYS: Array<SiteKey> = Array::with_max_entries(SITES, ALIGNED);
#[map]
pub static TOKIO_SITES: Array<u32> = Array::with_max_entries(SITES, ALIGNED);
/// When a task was woken, ns: a table.
#[map]
pub static TOKIO_WAKE_KEYS: Array<WokenKey> = Array::with_max_entries(SharedMap::TokioWoken.capacity(), ALIGNED);
#[map]
pub static TOKIO_WOKEN: Array<u64> = Array::with_max_entries(SharedMap::TokioWoken.capacity(), ALIGNED);
/// Connects in progress, by address of the kernel's struct sock.
#[map]
pub static CONNECTING: HashMap<u64, Connecting> = HashMap::with_max_entries(SharedMap::Connecting.capacity(), 0);
/// A table.
#[map]
pub static SOCKET_KEYS: Array<u64> = Array::with_max_entries(SharedMap::Sockets.capacity(), ALIGNED);
#[map]
pub static SOCKETS: Array<Socket> = Array::with_max_entries(SharedMap::Sockets.capacity(), ALIGNED);
/// Peers by the ids their values are counted under.
#[map]
pub static PEERS: HashMap<u32, Peer> = HashMap::with_max_entries(PEER_LIMIT, 0);
/// A table.
#[map]
pub static THREAD_KEYS: Array<u32> = Array::with_max_entries(SharedMap::Threads.capacity(), ALIGNED);
#[map]
pub static THREADS: Array<Thread> = Array::with_max_entries(SharedMap::Threads.capacity(), ALIGNED);
/// By tid.
#[map]
pub static SYSCALLS: HashMap<u32, Call> = HashMap::with_max_entries(SharedMap::Syscalls.capacity(), 0);

/// The target with this pid, if there is one.
#[inline(always)]
pub fn target(tgid: u32) -> Option<&'static Target> {
    let word = TARGET_INDEX.get(tgid / PIDS_A_WORD)?;
    let index = (word >> (tgid % PIDS_A_WORD * 16)) as u16;
    if index == 0 {
        return None;
    }
    // User space writes it before the index. Afterwards only single words of it change.
    TARGETS.get(u32::from(index))
}

/// The target that hit a uprobe, and when; None when it is not a target any more, or no window of the probe's plane is open.
#[inline(always)]
pub fn probed(tgid: u32, kind: HitKind) -> Option<(&'static Target, u64)> {
    let target = target(tgid)?;
    let now = clock::now();
    let open = target.flags & kind.plane().open_flag() != 0;
    spend(target, kind, open, Some(now)).then_some((target, now))
}

/// The target that a hook was called for; None when the process is not a target, or its hooks do not count now.
#[inline(always)]
pub fn hooked(tgid: u32, kind: HitKind) -> Option<&'static Target> {
    target(tgid).filter(|target| is_counted(target, kind))
}
