//! Reads a whole hash map of the kernel's with a few system calls instead of two for each entry (BPF_MAP_LOOKUP_BATCH, since
//! Linux 5.6), which aya does not offer.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::{HashMap, Map, MapError};
use bytemuck::AnyBitPattern;

/// bpf_cmd in include/uapi/linux/bpf.h.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// Entries asked for at once; a hash bucket that holds more makes it grow.
const ENTRIES: usize = 4096;

/// `batch` of union bpf_attr, include/uapi/linux/bpf.h.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

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
        read(map.fd().as_fd().as_raw_fd()).map_err(MapError::IoError)
    }

    /// Removes the entries whose keys `gone` names; one that vanishes meanwhile is gone too.
    pub fn remove(&mut self, gone: impl Fn(&K) -> bool) -> Result<(), MapError> {
        let entries = self.entries()?;
        let mut map = HashMap::<_, K, V>::try_from(&mut self.map)?;
        for (key, _) in entries.iter().filter(|(key, _)| gone(key)) {
            let _ = map.remove(key);
        }
        Ok(())
    }
}

/// All of the hash map behind `fd`, whose keys and values are of these sizes.
fn read<K: AnyBitPattern, V: AnyBitPattern>(fd: i32) -> io::Result<Vec<(K, V)>> {
    let (mut found, mut room) = (Vec::new(), ENTRIES);
    // Where the kernel goes on: opaque, a u32 of a hash map's.
    let (mut from, mut to): (Option<u32>, u32) = (None, 0);
    loop {
        let mut keys = vec![K::zeroed(); room];
        let mut values = vec![V::zeroed(); room];
        let mut attributes = Attributes {
            in_batch: from.as_ref().map_or(0, |from| std::ptr::from_ref(from) as u64),
            out_batch: &raw mut to as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room as u32,
            map_fd: fd as u32,
            ..Attributes::default()
        };
        #[expect(unsafe_code, reason = "no crate offers this command")]
        // SAFETY: the kernel writes at most `count` keys and values, of the sizes that the map was opened with (aya checked
        // them against K and V), and one u32; all of it lives until the call returns, and any bytes make a K and a V.
        let outcome = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<Attributes>(),
            )
        };
        let error = (outcome < 0).then(io::Error::last_os_error);
        match error.as_ref().and_then(io::Error::raw_os_error) {
            Some(libc::ENOSPC) => {
                room *= 2;
                continue;
            }
            // The end, with the last entries.
            None | Some(libc::ENOENT) => {}
            Some(_) => return Err(error.unwrap_or_else(io::Error::last_os_error)),
        }
        let count = attributes.count as usize;
        found.extend(keys.into_iter().zip(values).take(count));
        if error.is_some() {
            return Ok(found);
        }
        from = Some(to);
    }
}
