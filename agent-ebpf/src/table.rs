//! Looks for entries of tables, and adds some: see [`agent_common::table`].

use agent_common::{
    go::sched::{Goroutine, GoroutineKey},
    histogram::{Block, BlockKey},
    net::request::Socket,
    table::{GROUP, Key, PLACES, place},
    target::SharedMap,
    thread::run_queue::Thread,
    tokio::{
        poll::{TYPES, Thread as Worker, TypeKey},
        wake::{SITES, SiteKey, WokenKey},
    },
};
use aya_ebpf::{bindings::BPF_NOEXIST, maps::Array};

use crate::maps;

/// Two arrays.
pub trait Table {
    type Key: Key + 'static;
    type Value: Copy + 'static;
    /// A number of its own.
    const NUMBER: u32;
    /// How many places it has.
    const SIZE: u32;

    fn keys() -> &'static Array<Self::Key>;
    fn values() -> &'static Array<Self::Value>;
}

macro_rules! tables {
    ($($(#[$meta:meta])* $name:ident = $number:literal: $key:ty => $value:ty, $size:expr, $keys:ident, $values:ident;)*) => {$(
        $(#[$meta])*
        pub struct $name;

        impl Table for $name {
            type Key = $key;
            type Value = $value;
            const NUMBER: u32 = $number;
            const SIZE: u32 = $size;

            #[inline(always)]
            fn keys() -> &'static Array<$key> {
                &maps::$keys
            }

            #[inline(always)]
            fn values() -> &'static Array<$value> {
                &maps::$values
            }
        }
    )*};
}

tables! {
    Blocks = 0: BlockKey => Block, agent_common::histogram::BLOCKS, BLOCK_KEYS, BLOCKS;
    /// By [`crate::net::key`].
    Sockets = 1: u64 => Socket, SharedMap::Sockets.capacity(), SOCKET_KEYS, SOCKETS;
    /// By tid.
    Threads = 2: u32 => Thread, SharedMap::Threads.capacity(), THREAD_KEYS, THREADS;
    /// By tid.
    Workers = 4: u32 => Worker, SharedMap::TokioThreads.capacity(), TOKIO_TIDS, TOKIO_THREADS;
    Woken = 5: WokenKey => u64, SharedMap::TokioWoken.capacity(), TOKIO_WAKE_KEYS, TOKIO_WOKEN;
    Types = 6: TypeKey => u32, TYPES, TOKIO_TYPE_KEYS, TOKIO_TYPES;
    Sites = 7: SiteKey => u32, SITES, TOKIO_SITE_KEYS, TOKIO_SITES;
    Goroutines = 3: GoroutineKey => Goroutine, SharedMap::Goroutines.capacity(), GOROUTINE_KEYS, GOROUTINES;
}

/// The entry with this key.
#[inline(always)]
pub fn get<T: Table>(key: T::Key) -> Option<*mut T::Value> {
    at::<T>(find::<T>(key))
}

/// The entry at a place; None for [`Table::SIZE`]. Places are only looked up, never compared with it: the verifier knows that all others are less, so it
/// would take the comparison for decided, by all that the place was computed from, and follow each call of it for each key.
#[inline(always)]
pub fn at<T: Table>(place: u32) -> Option<*mut T::Value> {
    T::values().get_ptr_mut(place)
}

/// Its place; [`Table::SIZE`] where there is none.
#[inline(always)]
pub fn find<T: Table>(key: T::Key) -> u32 {
    // Mostly it stands at the first of its places.
    let first = place(key.hash(), 0, T::SIZE);
    if is_at::<T>(key, first) {
        first
    } else {
        find_further::<T>(key)
    }
}

#[inline(never)]
fn find_further<T: Table>(key: T::Key) -> u32 {
    let hash = key.hash();
    for nth in 1..PLACES {
        let place = place(hash, nth, T::SIZE);
        if is_at::<T>(key, place) {
            return place;
        }
    }
    T::SIZE
}

#[inline(always)]
fn is_at<T: Table>(key: T::Key, place: u32) -> bool {
    T::keys().get(place).is_some_and(|at| *at == key)
}

/// What became of an attempt to add an entry.
pub enum Added {
    /// It is of this program's making, at this place.
    New(u32),
    /// Another CPU added it meanwhile, at this place.
    There(u32),
    /// All places are taken.
    Full,
}

/// Adds an entry, which `make` fills in at its place before others see its key. The caller has not found it at any place.
///
/// There is no compare-and-swap before Linux 5.12: of several programs that want a place, the one whose insert into a map succeeds has it, and the
/// others try another group of places. If two add the same key at once, there may be two entries of it for a moment, of which only the one at the
/// earlier place is found afterwards.
#[inline(always)]
pub fn add<T: Table>(key: T::Key, make: impl Fn(*mut T::Value)) -> Added {
    let hash = key.hash();
    for group in 0..PLACES / GROUP {
        let place = usable::<T>(key, hash, group * GROUP);
        let Some(at) = T::keys().get_ptr_mut(place) else {
            continue;
        };
        // SAFETY: an element of an array; volatile because others write it.
        let there = || unsafe { core::ptr::read_volatile(at) };
        let claim = T::NUMBER << 24 | place;
        let is_mine = maps::CLAIMS.insert(claim, claim, u64::from(BPF_NOEXIST)).is_ok();
        let now = there();
        if !is_mine {
            if now == key {
                return Added::There(place);
            }
            continue;
        }
        let is_taken = now.is_free();
        if is_taken {
            if let Some(value) = T::values().get_ptr_mut(place) {
                make(value);
            }
            // SAFETY: as above.
            unsafe { core::ptr::write_volatile(at, key) };
        }
        let _ = maps::CLAIMS.remove(claim);
        if is_taken {
            return Added::New(place);
        }
        if now == key {
            return Added::There(place);
        }
    }
    Added::Full
}

/// The first place of a group that is free, or has this key; [`Table::SIZE`] where there is none. Not inlined: it would take the caller's stack.
#[inline(never)]
fn usable<T: Table>(key: T::Key, hash: u64, first: u32) -> u32 {
    for nth in first..first + GROUP {
        let place = place(hash, nth, T::SIZE);
        if T::keys().get(place).is_some_and(|at| at.is_free() || *at == key) {
            return place;
        }
    }
    T::SIZE
}

/// Makes the place of an entry free, if it has the key that the caller has found there; false for [`Table::SIZE`].
#[inline(always)]
pub fn free<T: Table<Key: Default>>(place: u32) -> bool {
    let Some(at) = T::keys().get_ptr_mut(place) else {
        return false;
    };
    // SAFETY: an element of an array; keys that programs remove are one word.
    unsafe { core::ptr::write_volatile(at, T::Key::default()) };
    true
}
