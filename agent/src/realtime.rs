//! Real-time priority for threads that look at a target at random times. At an ordinary priority, whatever its nice value, a thread that a
//! timer wakes may have to wait until what runs has used up its slice or sleeps (Linux since 6.6: EEVDF, RUN_TO_PARITY). So on a busy
//! machine looks would come when a goroutine has just stopped running, and see too little of what runs. SCHED_FIFO runs at once.
//!
//! A thread keeps it while it waits, and for [`MOST`] of each look. The rest of a long look is done at the thread's ordinary priority.
//! Threads that it starts do not inherit it (SCHED_RESET_ON_FORK).

use std::{
    cell::Cell,
    io,
    sync::atomic::{AtomicI32, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// A look has it no longer than this: less than a slice of the scheduler's, 0.7 to 3 ms.
pub const MOST: Duration = Duration::from_micros(250);
/// The lowest of SCHED_FIFO: enough to go before everything ordinary, and behind all others that are real-time.
const LOWEST: i32 = 1;

/// Why the kernel refused it, an errno; 0 where it did not.
static REFUSED: AtomicI32 = AtomicI32::new(0);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Priority {
    Ordinary,
    /// While the thread waits.
    Waiting,
    Until(Instant),
}

thread_local! {
    static PRIORITY: Cell<Priority> = const { Cell::new(Priority::Ordinary) };
}

/// Why there is none; None where it was not asked for, or was given.
pub fn refused() -> Option<io::Error> {
    let errno = REFUSED.load(Relaxed);
    (errno != 0).then(|| io::Error::from_raw_os_error(errno))
}

/// Whether this thread has it.
pub fn is_held() -> bool {
    PRIORITY.get() != Priority::Ordinary
}

/// This thread is about to wait for the time of a look.
pub fn wait() {
    if raise() {
        PRIORITY.set(Priority::Waiting);
    }
}

/// The look begins.
pub fn begin() {
    if raise() {
        PRIORITY.set(Priority::Until(Instant::now() + MOST));
    }
}

/// Ends it where the look has had it for long enough; whether it is still held. To be called every few microseconds of a look.
pub fn check() -> bool {
    if let Priority::Until(end) = PRIORITY.get()
        && Instant::now() >= end
    {
        lower();
    }
    is_held()
}

/// Back to the ordinary priority.
pub fn lower() {
    if is_held() {
        if let Err(error) = set(libc::SCHED_OTHER, 0) {
            log::warn!("a thread that looks at targets keeps its real-time priority: {error}");
        }
        PRIORITY.set(Priority::Ordinary);
    }
}

fn raise() -> bool {
    if is_held() {
        return true;
    }
    // It is asked for once.
    if REFUSED.load(Relaxed) != 0 {
        return false;
    }
    let Err(error) = set(libc::SCHED_FIFO, LOWEST) else {
        return true;
    };
    if REFUSED.swap(error.raw_os_error().unwrap_or(libc::EPERM), Relaxed) == 0 {
        log::info!("looks are made without real-time priority: {error}");
    }
    false
}

/// Sets this thread's policy and priority. The flag stays, as only the privileged may take it off.
fn set(policy: i32, priority: i32) -> io::Result<()> {
    // As struct sched_param of the kernel's include/uapi/linux/sched/types.h, whose only field this is.
    let priority: libc::c_int = priority;
    #[expect(
        unsafe_code,
        reason = "rustix and nix do not have it, and the C library's may be of the process"
    )]
    // SAFETY: the kernel reads the number that the pointer leads to, which lives until it returns; 0 is this thread.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            policy | libc::SCHED_RESET_ON_FORK,
            &raw const priority,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use procfs::process::Process;

    use super::*;

    /// This thread's scheduling policy, by the kernel's account.
    fn policy() -> i32 {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        let task = Process::myself().and_then(|own| own.task_from_tid(tid));
        task.unwrap().stat().unwrap().policy.unwrap() as i32
    }

    #[test]
    fn a_look_has_it_for_so_long_only() {
        wait();
        if let Some(error) = refused() {
            assert!(!is_held());
            return println!("SKIPPED: no real-time priority: {error}");
        }
        assert_eq!(policy(), libc::SCHED_FIFO);
        begin();
        assert_eq!(
            thread::spawn(policy).join().unwrap(),
            libc::SCHED_OTHER,
            "of a thread that it starts"
        );
        assert!(is_held());
        thread::sleep(2 * MOST);
        assert!(!check());
        assert_eq!(policy(), libc::SCHED_OTHER);
        // While it waits, it has it for as long as that takes.
        wait();
        thread::sleep(2 * MOST);
        assert!(check());
        begin();
        lower();
        assert!(!check() && policy() == libc::SCHED_OTHER);
    }
}
