//! Counts the hits that targets pay for, and ends windows whose allowance is used up.

use agent_common::{
    hits::{Account, HIT_BATCH, HitKind, KIND_UNIT, Plane},
    target::Target,
};

use crate::{
    clock,
    maps::{ACCOUNTS, CUTOFFS, LAST_HITS},
    record,
};

/// Counts a hit of a hook; true if the target's hooks count now.
#[inline(always)]
pub fn is_counted(target: &Target, kind: HitKind) -> bool {
    if target.flags & kind.plane().open_flag() == 0 {
        hit(target, HitKind::HookIdle);
        return false;
    }
    spend(target, kind, true, None)
}

/// Whether a window of a plane is open, and was not ended by the programs.
#[inline(always)]
pub fn is_open(target: &Target, plane: Plane) -> bool {
    target.flags & plane.open_flag() != 0
        && CUTOFFS
            .get(target.index)
            .is_some_and(|cutoff| cutoff.at[plane as usize] == 0)
}

/// Counts a hit that costs a target time.
#[inline(always)]
pub fn hit(target: &Target, kind: HitKind) {
    if let Some(account) = ACCOUNTS.get_ptr_mut(target.index) {
        // SAFETY: an element of an array that lives as long as this object.
        unsafe { record::add(&raw mut (*account).hits[kind as usize], 1) };
    }
}

/// Counts a hit that came after a pause, of all probes on this CPU or of its kind: such a hit costs more.
///
/// # Safety
/// `account` is an element of [`ACCOUNTS`].
#[inline(always)]
unsafe fn note_pause(account: *mut Account, kind: HitKind, now: u64) {
    let Some(last_hits) = LAST_HITS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as the caller says, and the only element of an array. A program that interrupts this one here can make one hit seem colder.
    unsafe {
        let last = core::mem::replace(&mut (*last_hits).last, now);
        let units = (now >> KIND_UNIT) as u32;
        let last_of = core::mem::replace(&mut (*last_hits).last_of[kind as usize], units);
        let of_kind = u64::from(units.wrapping_sub(last_of)) << KIND_UNIT;
        if let Some(cold) = HitKind::cold(now.saturating_sub(last)) {
            record::add(&raw mut (*account).cold[cold], 1);
        } else if let Some(cold) = HitKind::cold(of_kind) {
            record::add(&raw mut (*account).cold_kind[cold], 1);
        }
    }
}

/// Counts a hit, and returns whether its program is to run: when the window is `open` and its allowance, for all CPUs together, is not used
/// up. The first hit over the allowance ends the window at once, on every CPU; the governor sees that within 10 ms. `trap` is when a trap
/// was hit.
#[inline(always)]
pub fn spend(target: &Target, kind: HitKind, open: bool, trap: Option<u64>) -> bool {
    let plane = kind.plane();
    let (Some(account), Some(cutoff)) = (ACCOUNTS.get_ptr_mut(target.index), CUTOFFS.get_ptr_mut(target.index)) else {
        return false;
    };
    // SAFETY: as in `hit`; the cutoff is one aligned word, and any CPU's time will do. When a program interrupts this one here, a few hits
    // of the window may be counted twice, or not at all.
    unsafe {
        record::add(&raw mut (*account).hits[kind as usize], 1);
        if let Some(now) = trap {
            note_pause(account, kind, now);
        }
        if !open || (*cutoff).at[plane as usize] != 0 {
            return false;
        }
        let held = &mut (*account).held[plane as usize];
        *held += 1;
        if *held >= HIT_BATCH {
            record::add(&raw mut (*cutoff).used[plane as usize], *held);
            *held = 0;
        }
        if (*cutoff).used[plane as usize] > target.allowance[plane as usize] {
            (*cutoff).at[plane as usize] = clock::now();
            return false;
        }
    }
    true
}
