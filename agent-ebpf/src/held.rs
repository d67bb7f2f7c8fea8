//! What a target holds of the maps that all share: one that has much under way leaves a part of them to the others.

use agent_common::target::{Shared, Target};
use aya_ebpf::{bindings::BPF_NOEXIST, maps::HashMap};

use crate::{
    maps::{HELD, TARGETS},
    record,
};

/// Adds an entry that was not there. Where it can't be made, that is counted as lost, unless it is there now: another CPU was first.
///
/// Not in line, as it is rare, and so that whatever came of it the caller goes on in one state: in a loop the verifier would follow each.
#[inline(never)]
pub fn insert<const OF: usize, K, V>(map: &HashMap<K, V>, target: &Target, key: &K, value: &V) {
    let of = const { Shared::ALL[OF] };
    let Some(held) = HELD.get_ptr_mut(target.index) else {
        return;
    };
    // SAFETY: an element of an array that lives as long as this object; two CPUs at once may make one entry too many.
    if unsafe { (*held).entries[OF] } >= of.quota() {
        // SAFETY: as above.
        unsafe { record::add(&raw mut (*held).over[OF], 1) };
        record::lost(of.loss());
        return;
    }
    if map.insert(key, value, u64::from(BPF_NOEXIST)).is_ok() {
        change(target.index, of, 1);
    } else if map.get_ptr(key).is_none() {
        record::lost(of.loss());
    }
}

/// Removes an entry of a target's.
#[inline(always)]
pub fn remove<K, V>(map: &HashMap<K, V>, of: Shared, target: &Target, key: &K) {
    if map.remove(key).is_ok() {
        change(target.index, of, u64::MAX);
    }
}

/// An entry was removed that belonged to the target of this slot, which had this index: it may be another's by now.
#[inline(always)]
pub fn removed(of: Shared, slot: u32, index: u32) {
    if TARGETS.get(index).is_some_and(|target| target.slot == slot) {
        change(index, of, u64::MAX);
    }
}

/// Adds to the number of entries, modulo 2^64.
#[inline(always)]
fn change(index: u32, of: Shared, by: u64) {
    if let Some(held) = HELD.get_ptr_mut(index) {
        // SAFETY: an aligned word of an element as above.
        unsafe { record::add((&raw mut (*held).entries[of as usize]).cast(), by) };
    }
}
