//! The end of a connection, and of what is known of it.

use agent_common::{
    histogram::Series,
    hits::Probe,
    net::{
        ROLE_SERVER,
        request::{RECEIVED, SENT, Socket},
    },
    target::HOOKS_OPEN,
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use super::{
    CLOSE, forget,
    sequence::{is_unread, was_written},
};
use crate::{
    maps::{SOCKETS, TARGETS, hit, target},
    read, record,
};

/// A socket's entry ends with it.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn net_closed(ctx: BtfTracePointContext) -> i32 {
    let new: i32 = ctx.arg(2);
    if new as u8 == CLOSE {
        // Who is current pays for it, in a softirq too.
        let (tgid, _) = read::current();
        if let Some(target) = target(tgid) {
            let open = target.flags & HOOKS_OPEN != 0;
            hit(target, if open { Probe::NetState } else { Probe::HookIdle });
        }
        let sk = ctx.arg(0);
        if let Some(socket) = SOCKETS.get_ptr_mut(sk) {
            // SAFETY: the entry is removed after this, by this socket's CLOSE, which is once.
            cut_off(sk, unsafe { &*socket });
            forget(sk);
        }
    }
    0
}

/// Counts the request that was under way on a connection that ended.
#[inline(always)]
fn cut_off(sk: u64, socket: &Socket) {
    let serves = socket.role == ROLE_SERVER;
    if socket.last != if serves { RECEIVED } else { SENT } {
        return;
    }
    // Who closes it may be the kernel, in anyone's context.
    let Some(target) = TARGETS.get(socket.index) else {
        return;
    };
    if target.slot != socket.slot || target.flags & HOOKS_OPEN == 0 || socket.since < target.hooks_since {
        return;
    }
    // An answer whose program is yet to run, or that is yet to be read, finds the connection closed, and is counted then.
    let answered = if serves {
        was_written(sk, socket)
    } else {
        is_unread(sk, socket.multipath)
    };
    if answered {
        return;
    }
    let series = if serves {
        Series::ServerUnanswered
    } else {
        Series::ClientUnanswered
    };
    record::count(target, series, socket.peer);
}
