//! From a task's wake (or spawn, or yield) to its poll.

use agent_common::{histogram::Series, loss::Loss, target::Target, tokio::wake::WokenKey};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use super::arguments;
use crate::{
    maps::{TOKIO_WOKEN, target},
    read, record,
};

/// Schedule::schedule(&self, task), yield_now(&self, task) and OwnedTasks::bind_inner(&self, task): it will be polled.
#[uprobe]
pub fn tokio_schedule(ctx: ProbeContext) -> u32 {
    let (tgid, _) = read::current();
    let Some(target) = target(tgid) else { return 0 };
    let key = WokenKey {
        task: arguments(&ctx).1,
        slot: u64::from(target.slot),
    };
    if TOKIO_WOKEN.insert(key, read::now(), 0).is_err() {
        record::lost(Loss::TokioWokenFull);
    }
    0
}

/// The task is polled at `now`.
#[inline(always)]
pub fn polled(target: &Target, task: u64, now: u64) {
    let key = WokenKey {
        task,
        slot: u64::from(target.slot),
    };
    // SAFETY: a notified task is polled by one thread only; copied before it is removed.
    if let Some(since) = (unsafe { TOKIO_WOKEN.get(key) }).copied() {
        let _ = TOKIO_WOKEN.remove(key);
        record::value(target, Series::TokioWake, 0, now.saturating_sub(since));
    }
}
