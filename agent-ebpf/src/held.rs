//! Quotas of targets in the shared maps of things in progress.

use agent_common::target::{SharedMap, Target};
use aya_ebpf::{bindings::BPF_NOEXIST, maps::HashMap};

use crate::{
    maps::{HELD, REFUSED, TARGETS},
    record,
};

/// Adds a new entry. A failure is counted as lost, unless another CPU added the entry first.
///
/// Not inlined, so that the caller continues in one state whatever the outcome: in a loop the verifier would follow each outcome.
#[inline(never)]
pub fn insert<const OF: usize, K, V>(map: &HashMap<K, V>, target: &Target, key: &K, value: &V) {
    let of = const { SharedMap::ALL[OF] };
    let Some(held) = HELD.get_ptr_mut(of.held(target.index)) else {
        return;
    };
    // SAFETY: an element of an array that lives as long as this object; two CPUs at once may make one entry too many.
    if unsafe { *held } >= of.quota() {
        if let Some(refused) = REFUSED.get_ptr_mut(target.index) {
            // SAFETY: as above.
            unsafe { record::add(&raw mut (*refused).times[OF], 1) };
        }
        record::lost(of.loss());
        return;
    }
    if map.insert(key, value, u64::from(BPF_NOEXIST)).is_ok() {
        // SAFETY: as above.
        unsafe { record::add(held.cast(), 1) };
    } else if map.get_ptr(key).is_none() {
        record::lost(of.loss());
    }
}

/// Removes an entry of a target's.
#[inline(always)]
pub fn remove<K, V>(map: &HashMap<K, V>, of: SharedMap, target: &Target, key: &K) {
    if map.remove(key).is_ok() {
        one_less(of, target.index);
    }
}

/// An entry was removed that belonged to the target with this id, which had this index: by now the index may be another target's.
#[inline(always)]
pub fn removed(of: SharedMap, target_id: u32, index: u32) {
    if TARGETS.get(index).is_some_and(|target| target.id == target_id) {
        one_less(of, index);
    }
}

#[inline(always)]
fn one_less(of: SharedMap, index: u32) {
    if let Some(held) = HELD.get_ptr_mut(of.held(index)) {
        // SAFETY: as in `insert`; added modulo 2^64.
        unsafe { record::add(held.cast(), u64::MAX) };
    }
}
