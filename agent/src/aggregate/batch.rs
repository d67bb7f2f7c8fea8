//! Reads and tidies a whole hash map of the kernel's with a few system calls instead of two for each entry. A walk from key to key
//! begins anew when its key was removed meanwhile (linux, kernel/bpf/hashtab.c, htab_map_get_next_key), so on a busy map it may
//! never end; batches go by the map's own buckets, each once.

use std::{marker::PhantomData, os::fd::AsFd as _};

use aya::maps::{HashMap, Map, MapError};
use bytemuck::{AnyBitPattern, NoUninit};

use crate::bpf;

/// Entries asked for at once; a hash bucket that holds more makes it grow.
const ENTRIES: usize = 4096;

/// A hash map of the kernel's that is read as a whole.
pub struct Table<K, V> {
    map: Map,
    of: PhantomData<(K, V)>,
}

impl<K: aya::Pod + AnyBitPattern, V: aya::Pod + AnyBitPattern> TryFrom<Map> for Table<K, V> {
    type Error = MapError;

    /// The map must hold keys and values of these sizes.
    fn try_from(map: Map) -> Result<Self, MapError> {
        HashMap::<_, K, V>::try_from(&map)?;
        Ok(Self { map, of: PhantomData })
    }
}

impl<K: aya::Pod + AnyBitPattern + NoUninit, V: aya::Pod + AnyBitPattern> Table<K, V> {
    /// Every entry, in no order. One that is changed meanwhile is seen before or after; one that is added or removed may be
    /// missed.
    pub fn entries(&self) -> Result<Vec<(K, V)>, MapError> {
        let mut found = Vec::new();
        self.each(|key, value| found.push((*key, *value)))?;
        Ok(found)
    }

    /// Shows every entry, as [`Self::entries`], without keeping them.
    pub fn each(&self, mut each: impl FnMut(&K, &V)) -> Result<(), MapError> {
        let Map::HashMap(map) = &self.map else {
            return Err(MapError::InvalidMapType { map_type: 0 });
        };
        let (mut from, mut room) = (None, ENTRIES);
        loop {
            match bpf::lookup_batch(map.fd().as_fd(), from, room) {
                Ok((entries, next)) => {
                    entries.iter().for_each(|(key, value)| each(key, value));
                    from = next;
                    if from.is_none() {
                        return Ok(());
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => room *= 2,
                Err(error) => return Err(MapError::IoError(error)),
            }
        }
    }

    /// Adds an entry, or changes it.
    pub fn insert(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        HashMap::<_, K, V>::try_from(&mut self.map)?.insert(key, value, 0)
    }

    /// Removes entries by their keys; one that vanished meanwhile is gone too.
    pub fn remove(&mut self, keys: &[K]) -> Result<(), MapError> {
        let Map::HashMap(map) = &self.map else {
            return Err(MapError::InvalidMapType { map_type: 0 });
        };
        bpf::delete_batch(map.fd().as_fd(), keys).map_err(MapError::IoError)
    }

    /// Removes the entries that `gone` names: how many there were.
    pub fn remove_where(&mut self, mut gone: impl FnMut(&K, &V) -> bool) -> Result<usize, MapError> {
        let mut keys = Vec::new();
        self.each(|key, value| {
            if gone(key, value) {
                keys.push(*key);
            }
        })?;
        self.remove(&keys)?;
        Ok(keys.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    };

    use aya::maps::MapData;

    use super::*;

    /// A table of the kernel's of so many places, twice; None where there may be none.
    fn table(room: u32) -> Option<(Table<u32, u64>, Table<u32, u64>)> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run this test as root");
            eprintln!("SKIPPED: needs root");
            return None;
        }
        let map = bpf::create(bpf::HASH, 4, 8, room).unwrap();
        let of = |fd| Table::try_from(Map::HashMap(MapData::from_fd(fd).unwrap())).unwrap();
        Some((of(map.try_clone().unwrap()), of(map)))
    }

    fn sorted(table: &Table<u32, u64>) -> Vec<(u32, u64)> {
        let mut entries = table.entries().unwrap();
        entries.sort_unstable();
        entries
    }

    #[test]
    fn entries_are_removed_by_what_they_hold() {
        let Some((mut table, _)) = table(20_000) else { return };
        for key in 0..20_000 {
            table.insert(&key, &u64::from(key % 10)).unwrap();
        }
        assert_eq!(table.remove_where(|_, value| *value == 3).unwrap(), 2000);
        assert_eq!(table.entries().unwrap().len(), 18_000);
        assert_eq!(table.remove_where(|key, _| *key >= 4).unwrap(), 18_000 - 3);
        assert_eq!(sorted(&table), [(0, 0), (1, 1), (2, 2)]);
    }

    #[test]
    fn a_key_that_is_not_there_is_passed_over() {
        let Some((mut table, _)) = table(16) else { return };
        for key in [1, 2, 3, 4] {
            table.insert(&key, &0).unwrap();
        }
        table.remove(&[9, 1, 8, 7, 3, 3, 4, 6]).unwrap();
        assert_eq!(sorted(&table), [(2, 0)]);
        table.remove(&[]).unwrap();
    }

    /// Each entry that stays is seen once, though others come and go all the while.
    #[test]
    fn a_map_in_use_is_read_to_its_end() {
        let Some((mut table, mut other)) = table(4096) else {
            return;
        };
        for key in 0..1000 {
            table.insert(&key, &1).unwrap();
        }
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let busy = {
            let (over, done) = (over.clone(), done.clone());
            std::thread::spawn(move || {
                while !over.load(Relaxed) {
                    (1000..2000).for_each(|key| other.insert(&key, &2).unwrap());
                    other.remove(&(1000..2000).collect::<Vec<_>>()).unwrap();
                    done.store(true, Relaxed);
                }
            })
        };
        let mut reads = 0;
        while reads < 100 || !done.load(Relaxed) {
            let entries = table.entries().unwrap();
            assert_eq!(entries.iter().filter(|(_, value)| *value == 1).count(), 1000);
            table.remove_where(|_, value| *value == 2).unwrap();
            reads += 1;
        }
        over.store(true, Relaxed);
        busy.join().unwrap();
        assert_eq!(table.entries().unwrap().len(), 1000);
    }
}
