//! Byte offsets of the running kernel's structs, from its BTF: rustc emits no CO-RE relocations, so they are looked up
//! here and handed to the programs as a global.

use std::fs;

use agent_common::kernel::Layout;

use super::{btf::Btf, preemption::Preemption};

/// Where the kernel publishes its BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "this kernel publishes no BTF at {KERNEL_BTF} ({0}): whywait needs a kernel built with CONFIG_DEBUG_INFO_BTF \
         (all current distributions' are)"
    )]
    NoBtf(String),
    #[error("the kernel's BTF has no {0}: this kernel is not supported; please report its version")]
    Missing(String),
}

/// Reads the kernel's BTF: every offset the programs use, and what preemption may do to them.
pub fn read() -> Result<(Layout, Preemption), LayoutError> {
    let bytes = fs::read(KERNEL_BTF).map_err(|error| LayoutError::NoBtf(error.to_string()))?;
    let btf = Btf::parse(&bytes).ok_or_else(|| LayoutError::NoBtf("it is not of a known form".to_owned()))?;
    Ok((layout(&btf)?, Preemption::read(&btf)))
}

fn layout(btf: &Btf<'_>) -> Result<Layout, LayoutError> {
    let sock = |path| offset(btf, "sock", path);
    let tcp = |path| offset(btf, "tcp_sock", path);
    let mptcp = |path| offset(btf, "mptcp_sock", path).unwrap_or(0);
    let task = |path| offset(btf, "task_struct", path);
    Ok(Layout {
        task_pid: task("pid")?,
        task_tgid: task("tgid")?,
        // Renamed in 5.14 (linux, include/linux/sched.h).
        task_state: task("__state").or_else(|_| task("state"))?,
        task_fsbase: if cfg!(target_arch = "x86_64") {
            task("thread.fsbase")?
        } else {
            0
        },
        task_stack: task("stack")?,
        stack_user_regs: if cfg!(target_arch = "aarch64") {
            stack_size(btf).saturating_sub(
                btf.size("pt_regs")
                    .ok_or_else(|| LayoutError::Missing("pt_regs".to_owned()))?,
            )
        } else {
            0
        },
        // Config options, both: without them nothing is ever throttled.
        task_cfs_rq: task("se.cfs_rq").unwrap_or(0),
        cfs_rq_throttle_count: match task("se.cfs_rq") {
            Ok(_) => offset(btf, "cfs_rq", "throttle_count").unwrap_or(0),
            Err(_) => 0,
        },
        sk_family: sock("__sk_common.skc_family")?,
        sk_num: sock("__sk_common.skc_num")?,
        sk_dport: sock("__sk_common.skc_dport")?,
        sk_daddr: sock("__sk_common.skc_daddr")?,
        sk_v6_daddr: sock("__sk_common.skc_v6_daddr")?,
        sk_protocol: sock("sk_protocol")?,
        sk_hash: sock("__sk_common.skc_hash")?,
        sk_state: sock("__sk_common.skc_state")?,
        sk_max_ack_backlog: sock("sk_max_ack_backlog")?,
        sk_receive_queue_qlen: sock("sk_receive_queue.qlen")?,
        socket_sk: offset(btf, "socket", "sk")?,
        tcp_write_seq: tcp("write_seq")?,
        tcp_snd_nxt: tcp("snd_nxt")?,
        tcp_snd_una: tcp("snd_una")?,
        tcp_bytes_sent: tcp("bytes_sent")?,
        tcp_bytes_retrans: tcp("bytes_retrans")?,
        tcp_bytes_acked: tcp("bytes_acked")?,
        tcp_rcv_nxt: tcp("rcv_nxt")?,
        tcp_copied_seq: tcp("copied_seq")?,
        // A config option: without it no socket is of that protocol.
        mptcp_server_side: mptcp("pm.server_side"),
        mptcp_write_seq: mptcp("write_seq"),
        // An atomic64_t before 5.12 (linux, net/mptcp/protocol.h).
        mptcp_snd_una: mptcp("snd_una"),
    })
}

/// Bytes of a kernel stack on arm64 (linux, arch/arm64/include/asm/memory.h, THREAD_SIZE): 16 KB or a page, more with KASAN,
/// which only the union's size tells.
fn stack_size(btf: &Btf<'_>) -> u32 {
    const LEAST: u32 = 16 << 10;
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(LEAST);
    btf.size("thread_union").unwrap_or(LEAST.max(page))
}

fn offset(btf: &Btf<'_>, name: &str, path: &str) -> Result<u32, LayoutError> {
    btf.offset(name, path)
        .ok_or_else(|| LayoutError::Missing(format!("{name}.{path}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_running_kernel_has_every_field() {
        if !Path::new(KERNEL_BTF).exists() {
            assert!(std::env::var_os("CI").is_none(), "CI must run on a kernel with BTF");
            return eprintln!("SKIPPED: no {KERNEL_BTF}");
        }
        let (layout, _) = read().unwrap();
        // The protocol's headers are laid out by the kernel's ABI with the hash tables: port and address stand together.
        assert_eq!((layout.sk_daddr, layout.sk_dport, layout.sk_num), (0, 12, 14));
        assert_eq!(layout.task_tgid, layout.task_pid + 4);
    }
}
