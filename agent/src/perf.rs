//! Samples of the kernel's CPU clock: which code a process' threads run. An event on each CPU, which interrupts what runs there at a fixed
//! rate; samples of other processes are dropped here. An event on each of the process' threads would cost it 1.5 µs at each switch of
//! threads, as the kernel starts and stops a timer then; one on each CPU costs it nothing but the samples.

use std::{io, time::Duration};

use perf_event::{Builder, Record, SampleFlag, Sampler, events::Software};

use crate::inspect::Arch;

/// Bytes of a CPU's ring: those of a second's samples with deep stacks, and the fewest.
const RING_OF_SAMPLE: usize = 1 << 10;
const RING: usize = 64 << 10;
/// Bytes of the user's stack in a sample: where a function without a frame returns to.
const STACK: u32 = 64;
/// Addresses in a sample, of the kernel and of the user.
const DEEPEST: u16 = 127;
/// enum perf_event_type of include/uapi/linux/perf_event.h.
const LOST: u32 = 2;
const SAMPLE: u32 = 9;
/// enum perf_callchain_context: what comes behind it is the kernel's, or the user's.
const CONTEXTS: i64 = -4095;
const KERNEL: i64 = -128;
const USER: i64 = -512;

/// The clock's samples of one process.
pub struct CpuClock {
    samplers: Vec<Sampler>,
    pid: u32,
    arch: Arch,
    /// Time that a sample stands for.
    pub period: Duration,
    /// Samples of any process for which a ring had no room.
    pub lost: u64,
}

/// What ran on a thread at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Addresses, innermost first; behind the first, each is a return address. None of the kernel where the user's code ran.
    pub kernel: Vec<u64>,
    pub user: Vec<u64>,
    /// The user's stack pointer; and the link register, 0 on amd64.
    pub sp: u64,
    pub lr: u64,
    /// The user's stack from there on.
    pub stack: Vec<u8>,
}

/// Why there are no samples.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(
        "the kernel refused them (kernel.perf_event_paranoid is {0}): run as root, or with the capability PERFMON or SYS_ADMIN"
    )]
    NoPrivilege(String),
    #[error("the kernel refused them: {0}")]
    Other(#[from] io::Error),
}

impl CpuClock {
    /// Samples of a process from now on, `rate` a second of each CPU that runs it.
    pub fn open(pid: u32, arch: Arch, rate: u32) -> Result<Self, Refused> {
        let period = Duration::from_secs(1) / rate.max(1);
        let cpus = aya::util::online_cpus().map_err(|(_, error)| error)?;
        let open = |cpu: &u32| -> io::Result<Sampler> {
            let mut builder = Builder::new(Software::CPU_CLOCK);
            builder
                .any_pid()
                .one_cpu(*cpu as usize)
                .include_kernel()
                .exclude_idle(true)
                .sample_period(period.as_nanos() as u64)
                .sample_max_stack(DEEPEST)
                .sample(SampleFlag::IP | SampleFlag::TID | SampleFlag::CALLCHAIN)
                .sample(SampleFlag::REGS_USER | SampleFlag::STACK_USER)
                .sample_regs_user(registers(arch))
                .sample_stack_user(STACK);
            let ring = RING.max(rate as usize * RING_OF_SAMPLE);
            let sampler = builder.build()?.sampled(ring)?;
            Ok(sampler)
        };
        let mut samplers: Vec<Sampler> = cpus.iter().map(open).collect::<io::Result<_>>().map_err(refused)?;
        for sampler in &mut samplers {
            sampler.enable()?;
        }
        Ok(Self {
            samplers,
            pid,
            arch,
            period,
            lost: 0,
        })
    }

    /// Shows `each` what was sampled since the last time.
    pub fn drain(&mut self, mut each: impl FnMut(Running)) {
        for sampler in &mut self.samplers {
            while let Some(record) = sampler.next_record() {
                match decode(&record, self.pid, self.arch) {
                    Decoded::Running(running) => each(running),
                    Decoded::Lost(lost) => self.lost += lost,
                    Decoded::Other => {}
                }
            }
        }
    }
}

fn refused(error: io::Error) -> Refused {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
            Refused::NoPrivilege(paranoid.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()))
        }
        _ => Refused::Other(error),
    }
}

/// Bits of the registers in a sample: PERF_REG_X86_SP, or PERF_REG_ARM64_LR and _SP.
fn registers(arch: Arch) -> u64 {
    match arch {
        Arch::Amd64 => 1 << 7,
        Arch::Arm64 => 1 << 30 | 1 << 31,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Decoded {
    Running(Running),
    Lost(u64),
    /// Of another process, or none of these.
    Other,
}

fn decode(record: &Record<'_>, pid: u32, arch: Arch) -> Decoded {
    let bytes = record.to_contiguous();
    match record.ty() {
        SAMPLE => sample(&bytes, pid, arch).map_or(Decoded::Other, Decoded::Running),
        // struct { id, lost }.
        LOST => word(&mut bytes.get(8..).unwrap_or_default()).map_or(Decoded::Other, Decoded::Lost),
        _ => Decoded::Other,
    }
}

/// A PERF_RECORD_SAMPLE of the process: IP, TID, CALLCHAIN, REGS_USER, STACK_USER, in this order (perf_event_open(2)).
fn sample(mut bytes: &[u8], pid: u32, arch: Arch) -> Option<Running> {
    let rest = &mut bytes;
    let ip = word(rest)?;
    // struct { pid, tid }.
    if word(rest)? as u32 != pid {
        return None;
    }
    let mut running = Running::default();
    let count = word(rest)?;
    let mut is_user = None;
    for _ in 0..count {
        let address = word(rest)?;
        match address as i64 {
            KERNEL => is_user = Some(false),
            USER => is_user = Some(true),
            // The hypervisor's, a guest's.
            context if (CONTEXTS..0).contains(&context) => is_user = None,
            _ => match is_user {
                Some(true) => running.user.push(address),
                Some(false) => running.kernel.push(address),
                None => {}
            },
        }
    }
    if running.kernel.is_empty() && running.user.is_empty() {
        // No chain could be had.
        let is_kernel = (ip as i64) < 0;
        if is_kernel {
            &mut running.kernel
        } else {
            &mut running.user
        }
        .push(ip);
    }
    // A thread without user memory, as in the midst of an exec, has no registers.
    if word(rest)? != 0 {
        if arch == Arch::Arm64 {
            running.lr = word(rest)?;
        }
        running.sp = word(rest)?;
    }
    let size = word(rest)? as usize;
    if size > 0 {
        let (stack, mut rest) = rest.split_at_checked(size)?;
        let filled = word(&mut rest)?.min(size as u64);
        running.stack = stack[..filled as usize].to_vec();
    }
    Some(running)
}

fn word(bytes: &mut &[u8]) -> Option<u64> {
    let (word, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: u64 = 7;
    const TID: u64 = 9;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn samples_are_decoded_and_bad_ones_left_out() {
        let ids = TID << 32 | PID;
        let (kernel, user) = (KERNEL as u64, USER as u64);
        let whole = [
            0xffff_ffff_8100_0010,
            ids,
            5,
            kernel,
            0xffff_ffff_8100_0010,
            user,
            0x40_1000,
            0x40_2000,
            2,
            0xc000_0100,
            16,
            0x11,
            0x22,
            8,
        ];
        let expected = Running {
            kernel: vec![0xffff_ffff_8100_0010],
            user: vec![0x40_1000, 0x40_2000],
            sp: 0xc000_0100,
            lr: 0,
            stack: 0x11u64.to_le_bytes().to_vec(),
        };
        assert_eq!(sample(&bytes(&whole), PID as u32, Arch::Amd64), Some(expected));
        assert_eq!(sample(&bytes(&whole), 8, Arch::Amd64), None);
        for length in 0..bytes(&whole).len() {
            assert_eq!(sample(&bytes(&whole)[..length], PID as u32, Arch::Amd64), None);
        }
        // On arm64 there are two registers.
        let arm = [0x40_1000, ids, 2, user, 0x40_1000, 2, 0x40_3000, 0x80, 0];
        let found = sample(&bytes(&arm), PID as u32, Arch::Arm64).unwrap();
        assert_eq!((found.lr, found.sp, found.user), (0x40_3000, 0x80, vec![0x40_1000]));
        // Neither chain, registers nor stack.
        let bare = [0x40_1000, ids, 0, 0, 0];
        let found = sample(&bytes(&bare), PID as u32, Arch::Amd64).unwrap();
        assert_eq!((found.user, found.sp), (vec![0x40_1000], 0));
        // More addresses than there are.
        assert_eq!(sample(&bytes(&[1, ids, u64::MAX, user]), PID as u32, Arch::Amd64), None);
    }
}
