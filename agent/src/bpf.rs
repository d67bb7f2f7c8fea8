//! Commands of the bpf system call that aya does not offer: reading and clearing a map in batches, and uprobe_multi links. The only place
//! that makes the call itself.

use std::{
    ffi::CStr,
    io,
    mem::size_of,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
};

use bytemuck::{AnyBitPattern, NoUninit};

/// enum bpf_cmd, bpf_prog_type and bpf_attach_type of include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: u32 = 5;
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
const BPF_MAP_LOOKUP_BATCH: u32 = 24;
const BPF_MAP_DELETE_BATCH: u32 = 27;
const BPF_LINK_CREATE: u32 = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;

/// What a refused program is asked to explain itself with, bytes.
const LOG: usize = 1 << 16;

/// Members of union bpf_attr, as far as they are used.
#[repr(C)]
#[derive(Default)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct GetInfo {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// struct bpf_prog_info up to recursion_misses; a kernel before 5.12 fills in less.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    before: [u64; 24],
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
}

/// What the kernel says of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Time in it, ns, while the kernel kept statistics.
    pub time: u64,
    /// Runs of it meanwhile.
    pub count: u64,
    /// Runs that did not take place, ever: the program was running on that CPU already.
    pub skipped: u64,
}

/// Makes the call; every address in `attributes` must be good for what the command does with it.
fn call<T>(command: u32, attributes: &mut T) -> io::Result<i32> {
    #[expect(unsafe_code, reason = "no crate offers these commands")]
    // SAFETY: the attributes are a repr(C) beginning of union bpf_attr, whose rest the kernel takes as zero; the callers in
    // this file hold what their addresses point to, at its full length, until this returns.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            libc::c_long::from(command),
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(outcome as i32)
}

fn descriptor(number: i32) -> OwnedFd {
    #[expect(unsafe_code, reason = "the call gives a number")]
    // SAFETY: the kernel just opened it for us, and nobody else knows it.
    unsafe {
        OwnedFd::from_raw_fd(number)
    }
}

/// BPF_MAP_TYPE_HASH and BPF_MAP_TYPE_ARRAY.
#[cfg(test)]
pub const HASH: u32 = 1;
#[cfg(test)]
pub const ARRAY: u32 = 2;

/// A map of the kernel's, for tests.
#[cfg(test)]
pub fn create(kind: u32, key: u32, value: u32, entries: u32) -> io::Result<OwnedFd> {
    /// BPF_MAP_CREATE.
    const CREATE: u32 = 0;
    let mut attributes = [kind, key, value, entries];
    call(CREATE, &mut attributes).map(descriptor)
}

/// Entries, and where to go on.
pub type Batch<K, V> = (Vec<(K, V)>, Option<u32>);

/// Some entries of a hash map, and where to go on; None at the end. `from` is None to begin with. Fails with ENOSPC when a
/// bucket of the map holds more than `room` entries. Since Linux 5.6.
pub fn lookup_batch<K: AnyBitPattern, V: AnyBitPattern>(
    map: BorrowedFd<'_>,
    from: Option<u32>,
    room: usize,
) -> io::Result<Batch<K, V>> {
    let (mut keys, mut values) = (vec![K::zeroed(); room], vec![V::zeroed(); room]);
    let mut next = 0u32;
    let mut attributes = MapBatch {
        in_batch: from.as_ref().map_or(0, |from| std::ptr::from_ref(from) as u64),
        out_batch: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: room as u32,
        map_fd: map.as_raw_fd() as u32,
        ..MapBatch::default()
    };
    let next = match call(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
        Ok(_) => Some(next),
        // The end, with the last entries.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
        Err(error) => return Err(error),
    };
    let count = (attributes.count as usize).min(room);
    Ok((keys.into_iter().zip(values).take(count).collect(), next))
}

/// Removes the entries of a hash map that have these keys; one that is gone already is passed over. Since Linux 5.6.
pub fn delete_batch<K: NoUninit>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    let mut left = keys;
    while !left.is_empty() {
        let mut attributes = MapBatch {
            keys: left.as_ptr() as u64,
            count: left.len() as u32,
            map_fd: map.as_raw_fd() as u32,
            ..MapBatch::default()
        };
        match call(BPF_MAP_DELETE_BATCH, &mut attributes) {
            Ok(_) => return Ok(()),
            // It stops at the first key that is not there (linux, kernel/bpf/syscall.c, generic_map_delete_batch), whose place the
            // count is.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                left = left.get(attributes.count as usize + 1..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Loads a program for uprobe_multi links, of raw `instructions` (8 bytes each); an error has the verifier's words. Since
/// Linux 6.6.
pub fn load_uprobe_multi(name: &str, instructions: &[[u8; 8]], license: &CStr) -> io::Result<OwnedFd> {
    let mut attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_KPROBE,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        expected_attach_type: BPF_TRACE_UPROBE_MULTI,
        ..ProgLoad::default()
    };
    // The kernel keeps 15 bytes of it.
    for (to, from) in attributes.prog_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    let error = match call(BPF_PROG_LOAD, &mut attributes) {
        Ok(number) => return Ok(descriptor(number)),
        Err(error) => error,
    };
    let mut log = vec![0u8; LOG];
    attributes.log_level = 1;
    attributes.log_size = LOG as u32;
    attributes.log_buf = log.as_mut_ptr() as u64;
    // It is refused again, this time with a reason.
    let _ = call(BPF_PROG_LOAD, &mut attributes);
    let said = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
    Err(io::Error::new(
        error.kind(),
        format!("{error}. Verifier output: {said}"),
    ))
}

/// Puts a program of [`load_uprobe_multi`] on offsets of the file `path`, in process `pid` only; dropping the descriptor takes
/// it away.
pub fn link_uprobe_multi(program: BorrowedFd<'_>, path: &Path, offsets: &[u64], pid: u32) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        attach_type: BPF_TRACE_UPROBE_MULTI,
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        cnt: offsets.len() as u32,
        pid,
        ..LinkCreate::default()
    };
    call(BPF_LINK_CREATE, &mut attributes).map(descriptor)
}

/// What the kernel says of a program.
pub fn runs(program: BorrowedFd<'_>) -> io::Result<Runs> {
    let mut info = ProgInfo::default();
    let mut attributes = GetInfo {
        fd: program.as_raw_fd() as u32,
        info_len: size_of::<ProgInfo>() as u32,
        info: &raw mut info as u64,
    };
    call(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(Runs {
        time: info.run_time_ns,
        count: info.run_cnt,
        skipped: info.recursion_misses,
    })
}
