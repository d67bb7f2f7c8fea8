//! Segments of a target's connections that the kernel sends again. Mostly in a softirq: the target is known by the socket.
//!
//! Alternatives in order: with the outcome of the attempt, an argument that the tracepoint of newer kernels has in addition (seen in 6.18); where
//! it has none, it is called only after an attempt that succeeded.

use agent_common::{histogram::Series, hits::HitKind, target::Target};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use super::{connection, key};
use crate::{
    hits::is_counted,
    maps::{self, CONNECTING, TARGETS},
    read::{self, kernel},
    record,
    table::{self, Sockets},
};

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn net_retransmit_error(ctx: BtfTracePointContext) -> i32 {
    let error: i32 = ctx.arg(2);
    // Otherwise nothing was sent: the first copy is still in a queue of this host, or there is no route.
    if error == 0 {
        sent_again(ctx.arg(0));
    }
    0
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn net_retransmit(ctx: BtfTracePointContext) -> i32 {
    sent_again(ctx.arg(0));
    0
}

#[inline(always)]
fn sent_again(sk: u64) {
    let Some((target, peer)) = owner(sk) else { return };
    // The owner pays, as for other work of softirqs on its connections.
    if is_counted(target, HitKind::NetRetransmit) {
        let state: u8 = read::argument(sk, kernel!(sk_state));
        record::sum(target, Series::Retransmit, peer, u32::from(state), 1);
    }
}

/// Whose connection it is, and its peer's id.
#[inline(always)]
fn owner(sk: u64) -> Option<(&'static Target, u32)> {
    // SAFETY: copied at once.
    if let Some(socket) = table::get::<Sockets>(key(sk)).map(|socket| unsafe { *socket })
        && let Some(target) = TARGETS.get(socket.index)
        && target.id == socket.target_id
        && socket.connection == connection(sk)
    {
        return Some((target, socket.peer));
    }
    // Not established yet, or the entry is of an earlier connection at this address.
    // SAFETY: as above.
    let connecting = unsafe { CONNECTING.get(sk) }.copied()?;
    let target = maps::target(connecting.tgid)?;
    (target.id == connecting.target_id).then_some((target, connecting.peer))
}
