//! The end of a connection: removes its entry.

use agent_common::{
    histogram::Series,
    hits::{HitKind, Plane},
    net::{
        ROLE_SERVER,
        request::{RECEIVED, SENT, Socket},
    },
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use super::{
    CLOSE, forget, key,
    request::ended,
    sequence::{is_acknowledged, is_unread, was_written},
};
use crate::{
    clock,
    hits::{hit, is_open},
    maps::{self, TARGETS},
    read, record,
    table::{self, Sockets},
};

/// A socket's entry ends with it.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn net_closed(ctx: BtfTracePointContext) -> i32 {
    let new: i32 = ctx.arg(2);
    if new as u8 == CLOSE {
        // The current process pays for it, in a softirq too.
        let (tgid, _) = read::current();
        if let Some(target) = maps::target(tgid) {
            let open = is_open(target, Plane::Sockets);
            hit(target, if open { HitKind::NetState } else { HitKind::HookIdle });
        }
        let sk = ctx.arg(0);
        if let Some(socket) = table::get::<Sockets>(key(sk)) {
            // SAFETY: the entry is removed after this, by this socket's CLOSE, which is once.
            cut_off(sk, unsafe { &*socket });
            forget(sk);
        }
    }
    0
}

/// Counts the request that was in progress when the connection ended.
#[inline(always)]
fn cut_off(sk: u64, socket: &Socket) {
    let serves = socket.role == ROLE_SERVER;
    if socket.last != if serves { RECEIVED } else { SENT } {
        return;
    }
    // The kernel may close it in the context of any process.
    let Some(target) = TARGETS.get(socket.index) else {
        return;
    };
    if target.id != socket.target_id || !is_open(target, Plane::Sockets) || socket.since < target.sockets_since {
        return;
    }
    if !serves {
        // Data that is not read yet is counted when it is read, as of a closed connection.
        if !is_unread(sk, socket.multipath) {
            record::count(target, Series::ClientUnanswered, socket.peer);
        }
    } else if was_written(sk, socket) && is_acknowledged(sk, socket) {
        // The answer was sent, and only its program has not run yet; mostly a reset interrupts the call that sends it.
        let (tgid, tid) = read::current();
        let is_own = maps::target(tgid).is_some_and(|current| current.id == target.id);
        ended(sk, target, socket, clock::now(), if is_own { tid } else { 0 });
    } else {
        record::count(target, Series::ServerUnanswered, socket.peer);
    }
}
