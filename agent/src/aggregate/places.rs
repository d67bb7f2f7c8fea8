//! Reads and clears a pair of the kernel's arrays: keys, and what stands at the same index as its key.

use std::os::fd::AsFd as _;

use agent_common::table::{Key, PLACES, place};
use aya::maps::{Array, IterableMap as _, MapData, MapError};
use bytemuck::AnyBitPattern;

use crate::bpf;

/// Keys that are read with one call.
const KEYS: usize = 4096;
/// Values that are read with one call.
const VALUES: usize = 64;
/// Where indices of two values that are wanted are so far apart or less, those between are read with them, rather than with another call.
const GAP: u32 = 4;

/// Two arrays of the same size. At the index of a key of zeros nothing stands.
pub struct Places<K: aya::Pod, V: aya::Pod> {
    keys: Array<MapData, K>,
    values: Array<MapData, V>,
}

impl<K: aya::Pod + AnyBitPattern + PartialEq, V: aya::Pod + AnyBitPattern> Places<K, V> {
    /// Takes over the two maps.
    pub fn new(keys: Array<MapData, K>, values: Array<MapData, V>) -> Self {
        Self { keys, values }
    }

    /// Shows everything that stands at some index: index, key, value. What is added meanwhile may be missed.
    pub fn each(&self, mut each: impl FnMut(u32, &K, &V)) -> Result<(), MapError> {
        let taken = self.taken()?;
        for run in taken.chunk_by(|(one, _), (next, _)| next - one <= GAP) {
            for part in run.chunks(VALUES) {
                let (Some((first, _)), Some((last, _))) = (part.first(), part.last()) else {
                    continue;
                };
                let (values, _) = read(&self.values, first.checked_sub(1), (last - first + 1) as usize)?;
                for (index, key) in part {
                    if let Some((_, value)) = values.get((index - first) as usize) {
                        each(*index, key, value);
                    }
                }
            }
        }
        Ok(())
    }

    /// The indices at which something stands, with their keys.
    fn taken(&self) -> Result<Vec<(u32, K)>, MapError> {
        let (mut taken, mut from) = (Vec::new(), None);
        loop {
            let (keys, next) = read(&self.keys, from, KEYS)?;
            taken.extend(keys.into_iter().filter(|(_, key)| *key != K::zeroed()));
            from = next;
            if from.is_none() {
                return Ok(taken);
            }
        }
    }

    /// Removes the entries that `gone` names: how many there were.
    pub fn remove_where(&mut self, mut gone: impl FnMut(&K, &V) -> bool) -> Result<usize, MapError> {
        let mut indices = Vec::new();
        self.each(|index, key, value| {
            if gone(key, value) {
                indices.push(index);
            }
        })?;
        self.clear(&indices)?;
        Ok(indices.len())
    }

    /// Removes entries by their keys; one that vanished meanwhile is gone too.
    pub fn remove(&mut self, keys: &[K]) -> Result<(), MapError> {
        if keys.is_empty() {
            return Ok(());
        }
        let taken = self.taken()?.into_iter();
        let gone = taken.filter_map(|(index, key)| keys.contains(&key).then_some(index));
        self.clear(&gone.collect::<Vec<_>>())
    }

    /// Adds an entry, or changes it, in a table to which no program adds any; fails where all its places are taken.
    pub fn insert(&mut self, key: &K, value: &V) -> Result<(), MapError>
    where
        K: Key,
    {
        let places = (0..PLACES).map(|nth| place(key.hash(), nth, self.keys.len()));
        let mut free = None;
        for place in places {
            let at = self.keys.get(&place, 0)?;
            if at == *key {
                return self.values.set(place, value, 0);
            }
            if at.is_free() {
                free = free.or(Some(place));
            }
        }
        let place = free.ok_or(MapError::ElementNotFound)?;
        self.values.set(place, value, 0)?;
        self.keys.set(place, key, 0)
    }

    /// Makes indices free: first the value, so that who takes one finds zeros.
    pub fn clear(&mut self, indices: &[u32]) -> Result<(), MapError> {
        for index in indices {
            self.values.set(*index, V::zeroed(), 0)?;
            self.keys.set(*index, K::zeroed(), 0)?;
        }
        Ok(())
    }
}

/// Elements of an array after the index `from`, and where to go on.
fn read<V: aya::Pod + AnyBitPattern>(
    array: &Array<MapData, V>,
    from: Option<u32>,
    count: usize,
) -> Result<bpf::Batch<u32, V>, MapError> {
    bpf::lookup_batch(array.map().fd().as_fd(), from, count).map_err(MapError::IoError)
}

#[cfg(test)]
mod tests {
    use aya::maps::Map;

    use super::*;

    const SIZE: u32 = 10_000;

    /// Two arrays; None where there may be none.
    fn places() -> Option<Places<u64, u32>> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run this test as root");
            eprintln!("SKIPPED: needs root");
            return None;
        }
        fn array<V: aya::Pod>() -> Array<MapData, V> {
            let map = bpf::create(bpf::ARRAY, 4, size_of::<V>() as u32, SIZE).unwrap();
            Map::Array(MapData::from_fd(map).unwrap()).try_into().unwrap()
        }
        Some(Places::new(array(), array()))
    }

    #[test]
    fn what_stands_somewhere_is_found_and_cleared() {
        let Some(mut places) = places() else { return };
        let all = |places: &Places<u64, u32>| {
            let mut all = Vec::new();
            places.each(|at, key, value| all.push((at, *key, *value))).unwrap();
            all
        };
        assert!(all(&places).is_empty());
        // The first and the last, neighbours, some with gaps, and more in a row than are read at once.
        let indices = [0, 1, 3, 9, 4095, 4096, SIZE - 1].into_iter().chain(5000..5300);
        let expected: Vec<(u32, u64, u32)> = indices.map(|at| (at, u64::from(at) << 40 | 7, at * 3)).collect();
        for (at, key, value) in &expected {
            places.values.set(*at, value, 0).unwrap();
            places.keys.set(*at, key, 0).unwrap();
        }
        let mut sorted = expected.clone();
        sorted.sort_unstable();
        assert_eq!(all(&places), sorted);
        let gone = |key: u64| (5000..5300).contains(&(key >> 40));
        assert_eq!(places.remove_where(|key, _| gone(*key)).unwrap(), 300);
        places.remove(&[7, 4095 << 40 | 7, 99]).unwrap();
        let left: Vec<u32> = all(&places).iter().map(|(at, ..)| *at).collect();
        assert_eq!(left, [1, 3, 9, 4096, SIZE - 1]);
        assert_eq!(places.values.get(&4095, 0).unwrap(), 0);
    }
}
