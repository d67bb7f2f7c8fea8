//! Whether this kernel may preempt a uprobe's program, and what keeps that from doing harm.
//!
//! Since Linux 6.0 such programs run preemptible (kernel/trace/bpf_trace.c, uprobe_prog_run). Since 6.13 one that uses 64 bytes of
//! stack or more gets a private stack, one per CPU, as if it could not be (kernel/bpf/verifier.c, bpf_enable_priv_stack; commit
//! a76ab5731e32). When a thread is preempted in the midst of a program, and the next one on that CPU runs the same program, both
//! use the same stack: **the kernel dereferences what the other run left there**. PREEMPT and PREEMPT_LAZY kernels do that; the
//! latter for real-time threads only.
//!
//! Other types of programs are not in danger: tracing programs (tp_btf, fexit) have private stacks too, but the kernel counts who
//! is inside and skips the second run (prog->active; `recursion_misses`).

use aya::util::KernelVersion;

use super::btf::Btf;

/// Since when private stacks are there, whatever the kernel's types are called.
const SINCE: KernelVersion = KernelVersion::new(6, 13, 0);

/// What the kernel says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preemption {
    /// Programs may have a stack of their own, one per CPU.
    pub private_stacks: bool,
    /// Programs are translated; an interpreted one always has the thread's stack.
    pub jit: bool,
    /// What a program may call to stay on its CPU; since 6.10.
    pub kfuncs: Option<Kfuncs>,
}

/// BTF ids of the kernel functions bpf_preempt_disable and bpf_preempt_enable (kernel/bpf/helpers.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kfuncs {
    pub disable: u32,
    pub enable: u32,
}

/// Why uprobes are not used on a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "on this kernel two runs of a program on one CPU may share a stack, and it lacks bpf_preempt_disable, which prevents this: a probe could crash the host"
)]
pub struct Unsafe;

impl Preemption {
    /// Of the running kernel's types.
    pub(super) fn read(btf: &Btf<'_>) -> Self {
        let jit = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
        // What cannot be found says nothing, and a later kernel may call it otherwise: the guard is harmless where it is not needed.
        let has = |member| btf.offset("bpf_prog_aux", member).is_some();
        let version = KernelVersion::current().ok();
        let disable = btf.function("bpf_preempt_disable");
        let enable = btf.function("bpf_preempt_enable");
        Self {
            private_stacks: has("priv_stack_ptr")
                || btf.size("bpf_prog_aux").is_none()
                || version.is_none_or(|version| version >= SINCE),
            // Not there in another network namespace than the first, nor where it cannot be switched off.
            jit: jit.map_or(true, |text| text.trim() != "0"),
            kfuncs: disable.zip(enable).map(|(disable, enable)| Kfuncs { disable, enable }),
        }
    }

    /// What each uprobe program has to be put between; None where it needs nothing.
    pub fn guard(&self) -> Result<Option<Kfuncs>, Unsafe> {
        match (self.private_stacks && self.jit, self.kfuncs) {
            (false, _) => Ok(None),
            (true, Some(kfuncs)) => Ok(Some(kfuncs)),
            (true, None) => Err(Unsafe),
        }
    }
}

#[cfg(test)]
mod tests {
    use procfs::sys::kernel::Version;

    use super::*;

    const KFUNCS: Kfuncs = Kfuncs { disable: 7, enable: 8 };

    #[track_caller]
    fn check(private_stacks: bool, jit: bool, kfuncs: Option<Kfuncs>, expected: Result<Option<Kfuncs>, Unsafe>) {
        let of = Preemption {
            private_stacks,
            jit,
            kfuncs,
        };
        assert_eq!(of.guard(), expected, "{of:?}");
    }

    #[test]
    fn programs_with_a_stack_per_cpu_are_guarded_or_not_used() {
        // Before 6.13, with and without the functions of 6.10.
        check(false, true, None, Ok(None));
        check(false, true, Some(KFUNCS), Ok(None));
        check(true, true, Some(KFUNCS), Ok(Some(KFUNCS)));
        check(true, true, None, Err(Unsafe));
        // Interpreted: no private stack, and no calls of kernel functions either.
        check(true, false, None, Ok(None));
        check(true, false, Some(KFUNCS), Ok(None));
    }

    /// What `bpftool btf` and a kernel's sources say of the kernels that tests run on.
    #[test]
    fn the_running_kernel_tells_what_its_version_has() {
        let Ok(bytes) = std::fs::read(super::super::layout::KERNEL_BTF) else {
            assert!(std::env::var_os("CI").is_none(), "CI must run on a kernel with BTF");
            return eprintln!("SKIPPED: no BTF");
        };
        // By another crate than what is tested goes by.
        let version = Version::current().unwrap();
        let found = Preemption::read(&Btf::parse(&bytes).unwrap());
        // A distribution may have them in an older one.
        assert!(found.private_stacks || version < Version::new(6, 13, 0), "{version:?}");
        assert!(
            found.kfuncs.is_some() || version < Version::new(6, 10, 0),
            "{version:?}"
        );
    }
}
