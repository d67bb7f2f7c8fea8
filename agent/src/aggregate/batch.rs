//! Reads a whole hash map of the kernel's with a few system calls instead of two for each entry.

use std::{marker::PhantomData, os::fd::AsFd as _};

use aya::maps::{HashMap, Map, MapError};
use bytemuck::AnyBitPattern;

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

impl<K: aya::Pod + AnyBitPattern, V: aya::Pod + AnyBitPattern> Table<K, V> {
    /// Every entry, in no order. One that is changed meanwhile is seen before or after; one that is added or removed may be
    /// missed.
    pub fn entries(&self) -> Result<Vec<(K, V)>, MapError> {
        let Map::HashMap(map) = &self.map else {
            return Err(MapError::InvalidMapType { map_type: 0 });
        };
        let (mut found, mut from, mut room) = (Vec::new(), None, ENTRIES);
        loop {
            match bpf::lookup_batch(map.fd().as_fd(), from, room) {
                Ok((entries, next)) => {
                    found.extend(entries);
                    from = next;
                    if from.is_none() {
                        return Ok(found);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => room *= 2,
                Err(error) => return Err(MapError::IoError(error)),
            }
        }
    }

    /// Removes the entries that `gone` names; one that vanishes meanwhile is gone too.
    pub fn remove(&mut self, gone: impl Fn(&K, &V) -> bool) -> Result<(), MapError> {
        let entries = self.entries()?;
        let mut map = HashMap::<_, K, V>::try_from(&mut self.map)?;
        for (key, _) in entries.iter().filter(|(key, value)| gone(key, value)) {
            let _ = map.remove(key);
        }
        Ok(())
    }
}
