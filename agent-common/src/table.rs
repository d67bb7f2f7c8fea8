//! Tables that are two arrays: keys, and what belongs to a key at the same index of the other. A program finds an entry without a call of a
//! helper, and without a lock.
//!
//! A key stands at one of [`PLACES`] indices, which its hash says: in two groups that lie in one or two cache lines each. A place with a
//! key of zeros is free.

/// Indices at which a key may stand. Of the keys with which a table becomes half full, one in some hundred finds no place; up to a quarter, one in
/// a million.
pub const PLACES: u32 = 16;
/// Places that lie side by side.
pub const GROUP: u32 = 8;

/// A key, which is never all zeros. If it has two words, none of them is 0: a program that sees only one of them written takes the entry for
/// nobody's.
pub trait Key: Copy + PartialEq {
    /// The upper half says the first place, the lower half which come next.
    fn hash(self) -> u64;

    /// Whether it is that of a free place: by its last word, which user space sets to 0 last.
    fn is_free(self) -> bool;
}

/// Thread ids, which follow each other: each has a first place of its own.
impl Key for u32 {
    #[inline(always)]
    fn hash(self) -> u64 {
        (self as u64) << 32 | self.wrapping_mul(0x9e37_79b1) as u64
    }

    #[inline(always)]
    fn is_free(self) -> bool {
        self == 0
    }
}

/// Numbers that stand for addresses in the kernel.
impl Key for u64 {
    #[inline(always)]
    fn hash(self) -> u64 {
        mixed(self, 1)
    }

    #[inline(always)]
    fn is_free(self) -> bool {
        self == 0
    }
}

/// A hash of two words: the upper bits of a product depend on all of the word. The numbers are those of MurmurHash3's finalizer.
#[inline(always)]
pub const fn mixed(one: u64, other: u64) -> u64 {
    let product = (one ^ other.wrapping_mul(0xc4ce_b9fe_1a85_ec53)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    product ^ product >> 32
}

/// The `nth` place of a key with this hash, in a table of `size` places, a power of two.
#[inline(always)]
pub const fn place(hash: u64, nth: u32, size: u32) -> u32 {
    let first = (hash >> 32) as u32;
    let step = (hash as u32 | 1).wrapping_mul(GROUP);
    let group = first.wrapping_add((nth / GROUP).wrapping_mul(step)) & !(GROUP - 1);
    (group | (first.wrapping_add(nth) % GROUP)) % size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{go::sched::GoroutineKey, histogram::BlockKey};

    const SIZE: u32 = 16 * 1024;

    /// How many of `keys` find no place in a table of [`SIZE`], and how many are not at their first.
    #[track_caller]
    fn check(keys: impl Iterator<Item = impl Key>, lost: usize, elsewhere: usize) {
        let mut taken = [false; SIZE as usize];
        let (mut no_place, mut not_first) = (0, 0);
        for key in keys {
            let mut places = (0..PLACES).map(|nth| place(key.hash(), nth, SIZE) as usize);
            match places.position(|at| !taken[at]) {
                Some(nth) => {
                    not_first += usize::from(nth > 0);
                    taken[place(key.hash(), nth as u32, SIZE) as usize] = true;
                }
                None => no_place += 1,
            }
        }
        assert!(
            no_place <= lost && not_first <= elsewhere,
            "{no_place} have no place, {not_first} not the first"
        );
    }

    #[test]
    fn a_table_can_be_filled_to_the_half() {
        let half = SIZE as usize / 2;
        check(1..=SIZE / 2, 0, 0);
        // Sockets as the kernel's allocator lays them, and goroutines as Go's does.
        let socket = |at: usize| 0xffff_8880_0123_4000 + at as u64 * 2368;
        let goroutine = |at: usize| GoroutineKey {
            g: 0xc0_0000_2000 + at as u64 * 440,
            target_id: 1 + at as u64 % 3,
        };
        let block = |number: usize| {
            let number = number as u32;
            let id = match number % 3 {
                0 => number,
                1 => 0x48_0000 + number / 16 * 32,
                _ => number.wrapping_mul(0x9e37_79b9),
            };
            BlockKey::new(1 + number % 2, 1 + (number % 25) as u16, id, (number % 75 * 16) as u16)
        };
        for (share, lost) in [(half, half / 100), (half / 2, 0)] {
            check((0..share).map(socket), lost, share / 2);
            check((0..share).map(goroutine), lost, share / 2);
            check((0..share).map(block), lost, share / 2);
        }
        // A few: nearly all at their first.
        check((0..half / 16).map(block), 0, half / 16 / 16);
    }

    #[test]
    fn places_of_a_key_are_all_different() {
        for key in [1u64, 7, 0xffff_8880_0123_4000] {
            let mut places: [u32; PLACES as usize] = core::array::from_fn(|nth| place(key.hash(), nth as u32, SIZE));
            places.sort_unstable();
            assert!(places.windows(2).all(|pair| pair[0] != pair[1]), "{places:?}");
            assert!(places.iter().all(|place| *place < SIZE));
        }
    }
}
