//! What a target holds of the maps that all share: one that has much under way leaves a part of them to the others.

use agent_common::target::{Shared, Target};
use aya_ebpf::{bindings::BPF_NOEXIST, maps::HashMap};

use crate::{
    maps::{HELD, TARGETS},
    record,
};

/// Adds an entry that was not there. Where it can't be made, that is counted as lost, unless it is there now: another CPU was first.
#[inline(always)]
pub fn insert<K, V>(map: &HashMap<K, V>, of: Shared, target: &Target, key: &K, value: &V) -> bool {
    let Some(held) = HELD.get_ptr_mut(target.index) else {
        return false;
    };
    // SAFETY: an element of an array that lives as long as this object; two CPUs at once may make one entry too many.
    if unsafe { (*held).entries[of as usize] } >= of.quota() {
        // SAFETY: as above.
        unsafe { record::add(&raw mut (*held).over[of as usize], 1) };
        record::lost(of.loss());
        return false;
    }
    if map.insert(key, value, u64::from(BPF_NOEXIST)).is_err() {
        if map.get_ptr(key).is_none() {
            record::lost(of.loss());
        }
        return false;
    }
    change(target.index, of, 1);
    true
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
