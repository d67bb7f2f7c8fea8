//! Segments of a target's connections that the kernel sends again. Mostly in a softirq: the target is known by the socket.

use agent_common::{
    histogram::Series,
    hits::HitKind,
    target::{HOOKS_OPEN, Target},
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use super::connection;
use crate::{
    maps::{self, CONNECTING, SOCKETS, TARGETS, hit},
    read::{self, kernel},
    record,
};

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn net_retransmit(ctx: BtfTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let Some((target, peer)) = owner(sk) else { return 0 };
    let open = target.flags & HOOKS_OPEN != 0;
    hit(
        target,
        if open {
            HitKind::NetRetransmit
        } else {
            HitKind::HookIdle
        },
    );
    if open {
        let state: u8 = read::argument(sk, kernel!(sk_state));
        record::sum(target, Series::Retransmit, peer, u32::from(state), 1);
    }
    0
}

/// Whose connection it is, and its peer's id.
#[inline(always)]
fn owner(sk: u64) -> Option<(&'static Target, u32)> {
    // SAFETY: copied at once; an entry ends with its connection.
    if let Some(socket) = unsafe { SOCKETS.get(sk) } {
        let target = TARGETS.get(socket.index)?;
        return (target.id == socket.target_id && socket.connection == connection(sk)).then_some((target, socket.peer));
    }
    // SAFETY: as above.
    let connecting = unsafe { CONNECTING.get(sk) }?;
    let target = maps::target(connecting.tgid)?;
    (target.id == connecting.target_id).then_some((target, connecting.peer))
}
