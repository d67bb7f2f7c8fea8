//! Requests on a target's connections: a server reads and then answers, a client sends and then reads the answer.
//!
//! Alternatives in order: the tracepoints sock_send_length and sock_recv_length (6.3 and later), then fexit on the
//! protocol's own sendmsg and recvmsg. Both run when the call is done and its byte count is known.
//!
//! So a request may be answered, and the answer read by another thread, before the program of the send runs: on a fully preemptible
//! kernel the woken thread often runs first. Therefore the order is that of the bytes, by the connection's sequence numbers, not that of
//! the calls.

use agent_common::{
    event::{ACTOR_NONE, Actor, Kind},
    histogram::Series,
    hits::HitKind,
    loss::Loss,
    net::{
        ROLE_SERVER,
        request::{IDLE, RECEIVED, Request, SENT, Socket},
    },
    target::{INSIDE, Target},
};
use aya_ebpf::{
    macros::{btf_tracepoint, fexit},
    programs::{BtfTracePointContext, FExitContext},
};

use super::{
    known, peer, ports,
    sequence::{is_late, was_answered, written},
};
use crate::{
    actor, clock, log,
    maps::hooked,
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
    moved(read::argument(socket, kernel!(socket_sk)), length, direction);
}

/// `length` bytes went `direction` (or an errno, or 0 at the end of the stream) in the caller's context.
#[inline(always)]
fn moved(sk: u64, length: i32, direction: u8) {
    if length <= 0 {
        return;
    }
    let (tgid, tid) = read::current();
    let Some(target) = hooked(tgid, HitKind::NetMoved) else {
        return;
    };
    let Some(socket) = known(sk, target, direction) else {
        return;
    };
    // SAFETY: the entry stays until this socket's CLOSE; reads and writes of one socket by two threads at once can mix up
    // one request of it, not memory.
    let socket = unsafe { &mut *socket };
    if socket.since < target.sockets_since {
        // Its begin is from an earlier window.
        socket.last = IDLE;
    }
    let before = socket.last;
    let serves = socket.role == ROLE_SERVER;
    let opens = serves == (direction == RECEIVED);
    // Of a request that was begun.
    let mut ends = before != IDLE && before != direction;
    if direction == SENT {
        if before == SENT || before == RECEIVED && is_late(sk, socket, length) {
            return;
        }
        ends &= serves;
    } else {
        if before == RECEIVED {
            if !was_answered(sk, socket) {
                return;
            }
            // Something was sent since the last read, and the program of that send has not run yet.
            if !serves {
                record::lost(Loss::RequestUnordered);
                let (local, remote) = ports(sk);
                log::unordered(u64::from(target.pid), local, remote);
            }
            ends = serves;
        } else {
            ends &= !serves;
        }
        if let Some(written) = written(sk, socket.multipath) {
            socket.written = written;
        }
    }
    socket.last = direction;
    let now = clock::now();
    if ends {
        ended(sk, target, socket, now, tid);
    }
    if opens {
        socket.since = now;
    }
}

/// A request is over. `tid` is the thread of the target that ended it; 0 where it is not known.
#[inline(always)]
pub fn ended(sk: u64, target: &Target, socket: &Socket, now: u64, tid: u32) {
    let (since, role) = (socket.since, socket.role);
    let took = now.saturating_sub(since);
    let series = if role == ROLE_SERVER {
        Series::ServerRequest
    } else {
        Series::ClientRequest
    };
    record::value(target, series, socket.peer, took);
    if role == ROLE_SERVER && target.flags & INSIDE != 0 {
        record::value(target, Series::RequestInside, 0, took);
    }
    if took >= target.slow_request
        && let Some(peer) = peer(sk, role, target.id)
    {
        let mut request = Request {
            header: record::header(Kind::Request, target.id, now),
            since,
            peer,
            actor: Actor {
                id: 0,
                kind: ACTOR_NONE,
                future: 0,
            },
        };
        request.header.tid = tid;
        if tid != 0 {
            request.actor = actor::current(target, tid);
        }
        record::event(request);
    }
}
