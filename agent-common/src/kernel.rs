//! Offsets of the running kernel's structs, in bytes: rustc emits no CO-RE relocations, so user space looks them up in
//! the kernel's BTF and passes them in as the global `KERNEL`.

use crate::{layout, shared};

shared! {
    /// Byte offsets from each struct's start.
    pub struct Layout {
        /// task_struct.pid (the tid).
        pub task_pid: u32,
        /// task_struct.tgid (the pid).
        pub task_tgid: u32,
        /// task_struct.__state (5.14 and later) or .state.
        pub task_state: u32,
        /// task_struct.thread.fsbase (x86-64): the thread-local storage base.
        pub task_fsbase: u32,
        /// task_struct.stack (arm64): the lowest address of its kernel stack.
        pub task_stack: u32,
        /// Not a field: from a kernel stack's lowest address to the registers that user space had (arm64).
        pub stack_user_regs: u32,
        /// task_struct.se.cfs_rq; 0 on a kernel without group scheduling.
        pub task_cfs_rq: u32,
        /// cfs_rq.throttle_count; 0 on a kernel without CFS bandwidth control.
        pub cfs_rq_throttle_count: u32,
        /// sock.__sk_common.skc_family.
        pub sk_family: u32,
        /// sock.__sk_common.skc_num: local port, host order.
        pub sk_num: u32,
        /// sock.__sk_common.skc_dport: remote port, network order.
        pub sk_dport: u32,
        /// sock.__sk_common.skc_daddr.
        pub sk_daddr: u32,
        /// sock.__sk_common.skc_v6_daddr.
        pub sk_v6_daddr: u32,
        /// sock.sk_protocol (a u16 since 5.6).
        pub sk_protocol: u32,
        /// sock.__sk_common.skc_hash: of both ends' addresses and ports.
        pub sk_hash: u32,
        /// sock.__sk_common.skc_state.
        pub sk_state: u32,
        /// sock.sk_max_ack_backlog.
        pub sk_max_ack_backlog: u32,
        /// sock.sk_receive_queue.qlen.
        pub sk_receive_queue_qlen: u32,
        /// socket.sk.
        pub socket_sk: u32,
        /// tcp_sock.write_seq: the end of what was written.
        pub tcp_write_seq: u32,
        /// tcp_sock.snd_nxt: the end of what was sent.
        pub tcp_snd_nxt: u32,
        /// tcp_sock.snd_una: the end of what was acknowledged.
        pub tcp_snd_una: u32,
        /// tcp_sock.bytes_sent, bytes_retrans and bytes_acked.
        pub tcp_bytes_sent: u32,
        pub tcp_bytes_retrans: u32,
        pub tcp_bytes_acked: u32,
        /// tcp_sock.rcv_nxt: the end of what came.
        pub tcp_rcv_nxt: u32,
        /// tcp_sock.copied_seq: the end of what was read.
        pub tcp_copied_seq: u32,
        /// mptcp_sock.pm.server_side; 0 on a kernel without MPTCP.
        pub mptcp_server_side: u32,
        /// mptcp_sock.write_seq and snd_una, of 64 bits: as of tcp_sock, of the connection's own sequence; 0 as well.
        pub mptcp_write_seq: u32,
        pub mptcp_snd_una: u32,
    }
}

layout!(Layout: 120);

impl Layout {
    /// All zero: what the object file holds before the loader fills it in.
    pub const EMPTY: Self = Self {
        task_pid: 0,
        task_tgid: 0,
        task_state: 0,
        task_fsbase: 0,
        task_stack: 0,
        stack_user_regs: 0,
        task_cfs_rq: 0,
        cfs_rq_throttle_count: 0,
        sk_family: 0,
        sk_num: 0,
        sk_dport: 0,
        sk_daddr: 0,
        sk_v6_daddr: 0,
        sk_protocol: 0,
        sk_hash: 0,
        sk_state: 0,
        sk_max_ack_backlog: 0,
        sk_receive_queue_qlen: 0,
        socket_sk: 0,
        tcp_write_seq: 0,
        tcp_snd_nxt: 0,
        tcp_snd_una: 0,
        tcp_bytes_sent: 0,
        tcp_bytes_retrans: 0,
        tcp_bytes_acked: 0,
        tcp_rcv_nxt: 0,
        tcp_copied_seq: 0,
        mptcp_server_side: 0,
        mptcp_write_seq: 0,
        mptcp_snd_una: 0,
    };
}
