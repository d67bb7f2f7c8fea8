//! Requests on a target's connections: a server reads then answers, a client sends then reads the answer.
//!
//! Alternatives in order: the tracepoints sock_send_length and sock_recv_length (6.3 and later), then fexit on the
//! protocol's own sendmsg and recvmsg. Both see the bytes' count once the call is done.

use agent_common::{
    event::Kind,
    histogram::Series,
    hits::Probe,
    loss::Loss,
    net::{
        Listener, Peer, ROLE_CLIENT, ROLE_SERVER, Socket,
        request::{IDLE, RECEIVED, Request, SENT},
    },
    target::Target,
};
use aya_ebpf::{
    macros::{btf_tracepoint, fexit},
    programs::{BtfTracePointContext, FExitContext},
};

use super::{endpoints, peer_id};
use crate::{
    maps::{LISTENERS, SOCKETS, hooked},
    read::{self, kernel},
    record,
};

#[btf_tracepoint(function = "sock_send_length")]
pub fn net_send(ctx: BtfTracePointContext) -> i32 {
    moved(ctx.arg(0), ctx.arg(1), SENT);
    0
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn net_recv(ctx: BtfTracePointContext) -> i32 {
    moved(ctx.arg(0), ctx.arg(1), RECEIVED);
    0
}

/// inet_sendmsg(sock, msg, size) → int
#[fexit(function = "inet_sendmsg")]
pub fn net_send_inet(ctx: FExitContext) -> i32 {
    through_socket(ctx.arg(0), ctx.arg(3), SENT);
    0
}

/// inet6_sendmsg(sock, msg, size) → int
#[fexit(function = "inet6_sendmsg")]
pub fn net_send_inet6(ctx: FExitContext) -> i32 {
    through_socket(ctx.arg(0), ctx.arg(3), SENT);
    0
}

/// inet_recvmsg(sock, msg, size, flags) → int
#[fexit(function = "inet_recvmsg")]
pub fn net_recv_inet(ctx: FExitContext) -> i32 {
    through_socket(ctx.arg(0), ctx.arg(4), RECEIVED);
    0
}

/// inet6_recvmsg(sock, msg, size, flags) → int
#[fexit(function = "inet6_recvmsg")]
pub fn net_recv_inet6(ctx: FExitContext) -> i32 {
    through_socket(ctx.arg(0), ctx.arg(4), RECEIVED);
    0
}

#[inline(always)]
fn through_socket(socket: u64, length: i32, direction: u8) {
    if let Some(sk) = read::field(socket, kernel!(socket_sk)) {
        moved(sk, length, direction);
    }
}

/// `length` bytes went `direction` (or an errno, or 0 at the end of the stream) in the caller's context.
#[inline(always)]
fn moved(sk: u64, length: i32, direction: u8) {
    if length <= 0 {
        return;
    }
    let (tgid, tid) = read::current();
    let Some(target) = hooked(tgid, Probe::NetMoved) else {
        return;
    };
    let Some(socket) = known(sk, target, tgid, tid) else {
        return;
    };
    // SAFETY: the entry stays until this socket's CLOSE; reads and writes of one socket by two threads at once can mix up
    // one request of it, not memory.
    let socket = unsafe { &mut *socket };
    if socket.since < target.hooks_since {
        // What came since was not seen.
        socket.last = IDLE;
    }
    let (opens, series) = if socket.role == ROLE_SERVER {
        (RECEIVED, Series::ServerRequest)
    } else {
        (SENT, Series::ClientRequest)
    };
    if socket.last == direction {
        return;
    }
    let before = socket.last;
    socket.last = direction;
    let now = read::now();
    if direction == opens {
        socket.since = now;
    } else if before != IDLE {
        let since = socket.since;
        let took = now.saturating_sub(since);
        record::value(target, series, socket.peer, took);
        if took >= target.slow_request {
            slow(sk, target, socket.role, since, now, tid);
        }
    }
}

/// The socket's entry; made at the first bytes of a connection that was there before, or that was accepted.
#[inline(always)]
fn known(sk: u64, target: &Target, tgid: u32, tid: u32) -> Option<*mut Socket> {
    if let Some(socket) = SOCKETS.get_ptr_mut(sk) {
        // SAFETY: read only; a socket of a process that was let go, or that was handed on, is begun anew.
        if unsafe { (*socket).slot } == target.slot {
            return Some(socket);
        }
    }
    let (address, remote, local) = endpoints(sk)?;
    // SAFETY: only its presence matters.
    let server = unsafe {
        LISTENERS.get(Listener {
            tgid,
            port: u32::from(local),
        })
    }
    .is_some();
    let (role, port) = if server {
        (ROLE_SERVER, local)
    } else {
        (ROLE_CLIENT, remote)
    };
    let peer = Peer {
        address,
        port,
        role,
        pad: 0,
        slot: target.slot,
    };
    let socket = Socket {
        slot: target.slot,
        tgid,
        peer: peer_id(target, &peer),
        role,
        last: IDLE,
        tid,
        ..Socket::default()
    };
    if SOCKETS.insert(sk, socket, 0).is_err() {
        record::lost(Loss::SocketFull);
    }
    SOCKETS.get_ptr_mut(sk)
}

#[inline(always)]
fn slow(sk: u64, target: &Target, role: u8, since: u64, now: u64, tid: u32) {
    let Some((address, remote, local)) = endpoints(sk) else {
        return;
    };
    let port = if role == ROLE_CLIENT { remote } else { local };
    record::event(Request {
        header: record::header(Kind::Request, target.slot, now),
        since,
        peer: Peer {
            address,
            port,
            role,
            pad: 0,
            slot: target.slot,
        },
        actor: read::actor(target, tid),
    });
}
