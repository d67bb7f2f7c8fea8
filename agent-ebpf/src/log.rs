//! Messages for the agent's log, on rare paths that a counter cannot explain: which address could not be read, which map was full for which
//! process, an unexpected state or order of events. `--kernel-log` says which are wanted. The level is constant when a program is loaded: the verifier
//! removes the messages that are not.
//!
//! Each has a function of its own, so that none takes stack or instructions where it is called.

use agent_common::{
    kernel_log::{PER_SECOND, SECOND},
    loss::Loss,
    target::{SharedMap, Target},
};
use aya_log_ebpf::{
    debug,
    macro_support::{AYA_LOGS, Level, level_enabled},
    warn,
};

use crate::{clock, maps::LOG_PACE, read, record};

/// A message with its header takes less, bytes.
const LONGEST: u64 = 1024;

/// Whether any messages are wanted; constant when a program is loaded.
#[inline(always)]
pub fn is_on() -> bool {
    level_enabled(Level::Warn)
}

/// Whether a message of this level is wanted, and this second has room for it.
#[inline(always)]
fn is_due(level: Level) -> bool {
    if !level_enabled(level) {
        return false;
    }
    let Some(pace) = LOG_PACE.get_ptr_mut(0) else {
        return false;
    };
    let period = clock::now() >> SECOND;
    // SAFETY: the only element of an array.
    unsafe {
        if (*pace).period < period {
            (*pace).period = period;
            (*pace).messages = 0;
        }
        record::add(&raw mut (*pace).messages, 1);
        if (*pace).messages > PER_SECOND || !has_space() {
            record::add(&raw mut (*pace).left_out, 1);
            return false;
        }
    }
    true
}

/// Whether the ring buffer has space for a message. Where it has not, aya-log leaves it out and counts nothing.
#[inline(always)]
fn has_space() -> bool {
    let (filled, size) = record::filled(&AYA_LOGS);
    filled + LONGEST <= size
}

/// Declares a message about numbers.
macro_rules! messages {
    ($($(#[$meta:meta])* $name:ident($($argument:ident),*) = $level:ident $write:ident($($text:tt)*);)*) => {$(
        $(#[$meta])*
        #[inline(never)]
        pub fn $name($($argument: u64),*) {
            if is_due(Level::$level) {
                $write!((), $($text)*);
            }
        }
    )*};
}

messages! {
    /// A poll ended on a thread that polls another task, or none.
    other_poll(pid, ended, polled) = Debug debug("process {}: the poll of task 0x{:x} ends on a thread that polls 0x{:x}", pid, ended, polled);
    /// A goroutine begins to run that runs already.
    runs_already(pid, goid, g) = Debug debug("process {}: goroutine {} begins to run, and has not stopped running; its g is 0x{:x}", pid, goid, g);
    /// A list of goroutines that the runtime injects is longer than what is read of one.
    long_list(pid, next) = Debug debug("process {}: an injected list of goroutines goes on at 0x{:x}", pid, next);
    /// An answer was read before the program for the send of its request ran.
    unordered(pid, local, remote) = Debug debug("process {}: an answer came before its request, local port {}, remote port {}", pid, local, remote);
    /// Bytes moved on a connection that is closed.
    closed(pid, local, remote) = Debug debug("process {}: bytes of a closed connection, local port {}, remote port {}", pid, local, remote);
    /// A probe was hit whose argument is not known.
    unknown_site(pid, ip) = Debug debug("process {}: where the argument is at 0x{:x} is not known", pid, ip);
    /// A thread was woken, or began to run, and no hook was called.
    unseen(pid, tid) = Debug debug("process {}: no hook was called when thread {} was woken or began to run", pid, tid);
}

/// The current process's memory could not be read.
#[inline(never)]
pub fn unreadable(address: u64) {
    if is_due(Level::Debug) {
        let (pid, tid) = read::current();
        debug!(
            (),
            "process {}, thread {}: cannot read the memory at 0x{:x}", pid, tid, address
        );
    }
}

/// Declares what to write when a target lost something for want of space.
macro_rules! full {
    ($($cause:ident: $text:literal,)*) => {
        /// A target lost something for want of space in a map, or within its quota.
        #[inline(always)]
        pub fn full(cause: Loss, target: &Target) {
            match cause {
                $(Loss::$cause => {
                    #[inline(never)]
                    fn write(pid: u64) {
                        if is_due(Level::Warn) {
                            warn!((), $text, pid);
                        }
                    }
                    write(u64::from(target.pid));
                })*
                _ => {}
            }
        }

        const FULL: &[Loss] = &[$(Loss::$cause),*];
    };
}

full! {
    HistogramFull: "process {}: no block of histogram buckets is free",
    HistogramQuota: "process {}: it has as many blocks of histogram buckets as one process may have",
    GoroutineFull: "process {}: no space, or quota, for a goroutine",
    TokioWokenFull: "process {}: no space, or quota, for a task that was woken",
    TokioThreadsFull: "process {}: no space, or quota, for a thread that polls tasks",
    SocketFull: "process {}: no space, or quota, for a socket",
    ThreadFull: "process {}: no space, or quota, for a thread",
    PeerFull: "process {}: no id is free for a peer",
    PeerQuota: "process {}: it has as many peers, or half as many blocks of histogram buckets, as one process may have",
    GoAssistFull: "process {}: no space for a mark assist",
}

// Of each map.
const _: () = {
    let mut of = 0;
    while of < SharedMap::COUNT {
        let (cause, mut at) = (SharedMap::ALL[of].loss() as u32, 0);
        while FULL[at] as u32 != cause {
            at += 1;
        }
        of += 1;
    }
};
