//! Mark assists: each at its end, and once a cycle the start functions that paid.

use agent_common::{
    event::Kind,
    go::assist::{AssistTime, Assists, PAYERS, Payer, PayerKey, ProcessorKey, SLACK},
    histogram::Series,
    hits::{HitKind, Plane},
    loss::Loss,
    target::{PROBES_OPEN, Target},
};
use aya_ebpf::{bindings::BPF_NOEXIST, macros::uprobe, programs::ProbeContext};

use super::current;
use crate::{
    clock,
    maps::{ASSIST_TIMES, CUTOFFS, PAID, probed},
    read::{self, Unreadable},
    record,
};

/// In runtime.gcAssistAlloc1(gp, scanWork), where it compares p.gcAssistTime with gcAssistTimeSlack; on the system stack.
#[uprobe]
pub fn go_assist(ctx: ProbeContext) -> u32 {
    let (tgid, _) = read::current();
    let Some((target, _)) = probed(tgid, HitKind::GoAssist) else {
        return 0;
    };
    if let Err(at) = assisted(target, current(&ctx)) {
        record::unread(at);
    }
    0
}

/// p.gcAssistTime is a sum: this assist is the difference to the last one. Only this thread writes it, and nothing preempts here.
#[inline(always)]
fn assisted(target: &Target, g0: u64) -> Result<(), Unreadable> {
    let go = &target.go;
    let m: u64 = read::user(g0 + u64::from(go.g_m))?;
    let p: u64 = read::user(m + u64::from(go.m_p))?;
    let g: u64 = read::user(m + u64::from(go.m_curg))?;
    let startpc: u64 = read::user(g + u64::from(go.g_startpc))?;
    let sum: u64 = read::user(p + u64::from(go.p_gc_assist_time))?;
    let cycle = u64::from(read::user::<u32>(go.work + u64::from(go.work_cycles))?);
    let key = ProcessorKey {
        p,
        target_id: u64::from(target.id),
    };
    // SAFETY: an entry of this P's, which no other thread holds now.
    let before = unsafe { ASSIST_TIMES.get(key) }
        .filter(|before| before.window == target.probes_since && before.cycle == cycle)
        .map_or(0, |before| before.time);
    let assist_time = AssistTime {
        time: if sum > SLACK { 0 } else { sum },
        window: target.probes_since,
        cycle,
    };
    if ASSIST_TIMES.insert(key, assist_time, 0).is_err() {
        record::full(Loss::GoAssistFull, target);
    }
    // A P that was created again begins at 0.
    let time = if before <= sum { sum - before } else { sum };
    record::sum(target, Series::GoAssist, go.origin(startpc), 0, time);
    pay(target, startpc, time);
    Ok(())
}

/// Adds to what its start function paid in this cycle.
#[inline(always)]
fn pay(target: &Target, startpc: u64, time: u64) {
    for rank in 0..=PAYERS as u32 {
        let key = PayerKey {
            target_id: target.id,
            rank,
        };
        let payer = PAID.get_ptr_mut(key).or_else(|| {
            // If two insert at once, one of them wins, and both read which.
            let _ = PAID.insert(key, Payer { startpc, time: 0 }, u64::from(BPF_NOEXIST));
            PAID.get_ptr_mut(key)
        });
        let Some(payer) = payer else { break };
        // SAFETY: entries are removed between cycles only, when no assist runs; the time is only ever added to atomically.
        unsafe {
            if (*payer).startpc == startpc || rank == PAYERS as u32 {
                record::add(&raw mut (*payer).time, time);
                return;
            }
        }
    }
    record::full(Loss::GoAssistFull, target);
}

/// A cycle that began at `begin` is over: sends what was paid, if the open window saw all of it, and clears it.
#[inline(always)]
pub fn over(target: &Target, number: u64, begin: u64) {
    let mut event = Assists {
        header: record::header(Kind::GoAssists, target.id, clock::now()),
        number,
        payers: [Payer { startpc: 0, time: 0 }; PAYERS],
        others: 0,
    };
    let mut any = false;
    for rank in 0..=PAYERS as u32 {
        let key = PayerKey {
            target_id: target.id,
            rank,
        };
        // SAFETY: no assist runs between two cycles.
        let Some(paid) = (unsafe { PAID.get(key) }) else { break };
        any = true;
        match event.payers.get_mut(rank as usize) {
            Some(payer) => *payer = *paid,
            None => event.others = paid.time,
        }
        let _ = PAID.remove(key);
    }
    let open = target.flags & PROBES_OPEN != 0 && target.probes_since <= begin;
    let cut = CUTOFFS
        .get(target.index)
        .is_none_or(|cut| cut.at[Plane::Probes as usize] != 0);
    if any && open && !cut {
        record::event(event);
    }
}
