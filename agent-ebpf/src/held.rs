//! Quotas of targets in the shared maps of things in progress.

use agent_common::target::{SharedMap, Target};
use aya_ebpf::{bindings::BPF_NOEXIST, maps::HashMap};

use crate::{
    maps::{HELD, REFUSED, TARGETS},
    record,
    table::{self, Added, Table},
};

/// A table of things in progress.
pub trait Held: Table {
    const OF: SharedMap;
}

impl Held for table::Sockets {
    const OF: SharedMap = SharedMap::Sockets;
}

impl Held for table::Threads {
    const OF: SharedMap = SharedMap::Threads;
}

impl Held for table::Workers {
    const OF: SharedMap = SharedMap::TokioThreads;
}

impl Held for table::Woken {
    const OF: SharedMap = SharedMap::TokioWoken;
}

impl Held for table::Goroutines {
    const OF: SharedMap = SharedMap::Goroutines;
}

/// Adds a new entry. A failure is counted as lost, unless another CPU added the entry first.
///
/// Not inlined, so that the caller continues in one state whatever the outcome: in a loop the verifier would follow each outcome.
#[inline(never)]
pub fn insert<const OF: usize, K, V>(map: &HashMap<K, V>, target: &Target, key: &K, value: &V) {
    let of = const { SharedMap::ALL[OF] };
    let Some(held) = room(of, target) else { return };
    if map.insert(key, value, u64::from(BPF_NOEXIST)).is_ok() {
        // SAFETY: an element of an array that lives as long as this object.
        unsafe { record::add(held.cast(), 1) };
    } else if map.get_ptr(key).is_none() {
        record::full(of.loss(), target);
    }
}

/// The same of a table. Returns the place of the entry; the table's size where there is none.
#[inline(never)]
pub fn add<T: Held>(target: &Target, key: T::Key, value: &T::Value) -> u32 {
    let Some(held) = room(T::OF, target) else {
        return T::SIZE;
    };
    // SAFETY: an element of an array, which only this program has now.
    match table::add::<T>(key, |at| unsafe { *at = *value }) {
        Added::New(place) => {
            // SAFETY: as in `insert`.
            unsafe { record::add(held.cast(), 1) };
            place
        }
        Added::There(place) => place,
        Added::Full => {
            record::full(T::OF.loss(), target);
            T::SIZE
        }
    }
}

/// Where a target's entries are counted, if it may have another one; else that is counted.
#[inline(always)]
fn room(of: SharedMap, target: &Target) -> Option<*mut i64> {
    let held = HELD.get_ptr_mut(of.held(target.index))?;
    // SAFETY: as in `insert`; two CPUs at once may make one entry too many.
    if unsafe { *held } < of.quota() {
        return Some(held);
    }
    if let Some(refused) = REFUSED.get_ptr_mut(target.index) {
        // SAFETY: as above.
        unsafe { record::add(&raw mut (*refused).times[of as usize], 1) };
    }
    record::full(of.loss(), target);
    None
}

/// Removes an entry of a target's.
#[inline(always)]
pub fn remove<K, V>(map: &HashMap<K, V>, of: SharedMap, target: &Target, key: &K) {
    if map.remove(key).is_ok() {
        one_less(of, target.index);
    }
}

/// Removes an entry of a target's from a table.
#[inline(always)]
pub fn free<T: Held<Key: Default>>(target: &Target, key: T::Key) {
    if table::free::<T>(table::find::<T>(key)) {
        one_less(T::OF, target.index);
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
