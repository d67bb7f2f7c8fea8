//! From the SYN of a target's connect() to the established connection; and the life of its sockets.

use agent_common::{
    event::Kind,
    histogram::Series,
    hits::Probe,
    loss::Loss,
    net::{Listener, Peer, ROLE_CLIENT, Socket, connect::Connect, request::IDLE},
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use super::{endpoints, peer_id};
use crate::{
    maps::{LISTENERS, SOCKETS, hooked, target},
    read, record,
};

// include/net/tcp_states.h
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn net_set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let new: i32 = ctx.arg(2);
    match new {
        // Both in the caller's own context.
        SYN_SENT => begin(sk),
        LISTEN => listen(sk),
        // Both mostly in a softirq: the caller is known by the socket.
        ESTABLISHED => established(sk),
        CLOSE => closed(sk),
        _ => {}
    }
    0
}

#[inline(always)]
fn begin(sk: u64) {
    let (tgid, tid) = read::current();
    let Some(target) = hooked(tgid, Probe::NetState) else {
        return;
    };
    let Some((address, port, _)) = endpoints(sk) else {
        return;
    };
    let peer = Peer {
        address,
        port,
        role: ROLE_CLIENT,
        pad: 0,
        slot: target.slot,
    };
    let socket = Socket {
        since: read::now(),
        slot: target.slot,
        tgid,
        peer: peer_id(target, &peer),
        role: ROLE_CLIENT,
        last: IDLE,
        connecting: 1,
        pad: 0,
        tid,
        pad2: 0,
        actor: read::actor(target, tid),
    };
    if SOCKETS.insert(sk, socket, 0).is_err() {
        record::lost(Loss::SocketFull);
    }
}

#[inline(always)]
fn established(sk: u64) {
    let Some(socket) = SOCKETS.get_ptr_mut(sk) else { return };
    // SAFETY: the entry stays until this socket's CLOSE, which the kernel orders after this transition.
    let socket = unsafe { &mut *socket };
    if socket.connecting == 0 {
        return;
    }
    let since = socket.since;
    socket.connecting = 0;
    socket.since = 0;
    let Some(target) = hooked(socket.tgid, Probe::NetState) else {
        return;
    };
    if target.slot != socket.slot || since < target.hooks_since {
        return;
    }
    let now = read::now();
    let took = now.saturating_sub(since);
    record::value(target, Series::Connect, socket.peer, took);
    if took >= target.slow_request
        && let Some((address, port, _)) = endpoints(sk)
    {
        let mut header = record::header(Kind::Connect, socket.slot, now);
        header.tgid = socket.tgid;
        header.tid = socket.tid;
        let peer = Peer {
            address,
            port,
            role: ROLE_CLIENT,
            pad: 0,
            slot: socket.slot,
        };
        record::event(Connect {
            header,
            since,
            peer,
            actor: socket.actor,
        });
    }
}

#[inline(always)]
fn closed(sk: u64) {
    // SAFETY: copied before it is removed.
    let Some(socket) = (unsafe { SOCKETS.get(sk) }).copied() else {
        return;
    };
    let _ = SOCKETS.remove(sk);
    if socket.connecting != 0
        && let Some(target) = hooked(socket.tgid, Probe::NetState)
        && socket.since >= target.hooks_since
    {
        record::count(target, Series::ConnectFailed, socket.peer);
    }
}

#[inline(always)]
fn listen(sk: u64) {
    let (tgid, _) = read::current();
    // Ports are remembered whether the hooks count or not.
    if target(tgid).is_none() {
        return;
    }
    if let Some((_, _, local)) = endpoints(sk)
        && LISTENERS
            .insert(
                Listener {
                    tgid,
                    port: u32::from(local),
                },
                1,
                0,
            )
            .is_err()
    {
        record::lost(Loss::SocketFull);
    }
}
