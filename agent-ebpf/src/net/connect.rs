//! From the SYN of a target's connect() to the established connection.

use agent_common::{
    event::Kind,
    histogram::Series,
    hits::HitKind,
    net::{
        ROLE_CLIENT,
        connect::{Connect, Connecting},
    },
    target::SharedMap,
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use super::{CLOSE, ESTABLISHED, IPPROTO_TCP, SYN_SENT, peer, peer_id};
use crate::{
    actor, clock, held,
    hits::hit,
    maps::{CONNECTING, hooked, target},
    read::{self, kernel},
    record,
};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn net_set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let new: i32 = ctx.arg(2);
    match new as u8 {
        // In the caller's own context.
        SYN_SENT => begin(sk),
        // Both mostly run in a softirq: the caller is found by the socket.
        ESTABLISHED => established(sk),
        CLOSE => closed(sk),
        _ => {}
    }
    0
}

#[inline(always)]
fn begin(sk: u64) {
    let (tgid, tid) = read::current();
    let Some(target) = target(tgid) else { return };
    // In a window or not: the SYN may be sent again in another one.
    hit(target, HitKind::NetState);
    // An MPTCP socket has no address yet, and connects by a TCP socket of its own, which comes next (linux,
    // net/mptcp/protocol.c, mptcp_connect).
    if read::field::<u16>(sk, kernel!(sk_protocol)) != Some(IPPROTO_TCP) {
        return;
    }
    let Some(peer) = peer(sk, ROLE_CLIENT, target.id) else {
        return;
    };
    let connecting = Connecting {
        since: clock::now(),
        target_id: target.id,
        tgid,
        peer: peer_id(target, &peer),
        tid,
        actor: actor::current(target, tid),
    };
    // Removes the entry of a connect whose end was not seen.
    let _ = end(sk);
    held::insert::<{ SharedMap::Connecting as usize }, _, _>(&CONNECTING, target, &sk, &connecting);
}

/// Removes the entry of a connect that is over, and returns it.
#[inline(always)]
fn end(sk: u64) -> Option<Connecting> {
    // SAFETY: copied before it is removed; a socket changes its state in one place at a time.
    let connecting = unsafe { CONNECTING.get(sk) }.copied()?;
    if let Some(target) = target(connecting.tgid).filter(|target| target.id == connecting.target_id) {
        held::remove(&CONNECTING, SharedMap::Connecting, target, &sk);
    } else {
        let _ = CONNECTING.remove(sk);
    }
    Some(connecting)
}

#[inline(always)]
fn established(sk: u64) {
    let Some(connecting) = end(sk) else { return };
    let since = connecting.since;
    let Some(target) = hooked(connecting.tgid, HitKind::NetState) else {
        return;
    };
    if target.id != connecting.target_id || since < target.sockets_since {
        return;
    }
    let now = clock::now();
    let took = now.saturating_sub(since);
    record::value(target, Series::Connect, connecting.peer, took);
    if took >= target.slow_request
        && let Some(peer) = peer(sk, ROLE_CLIENT, connecting.target_id)
    {
        let mut header = record::header(Kind::Connect, connecting.target_id, now);
        header.tgid = connecting.tgid;
        header.tid = connecting.tid;
        record::event(Connect {
            header,
            since,
            peer,
            actor: connecting.actor,
        });
    }
}

#[inline(always)]
fn closed(sk: u64) {
    if let Some(connecting) = end(sk)
        && let Some(target) = hooked(connecting.tgid, HitKind::NetState)
        && target.id == connecting.target_id
        && connecting.since >= target.sockets_since
    {
        record::count(target, Series::ConnectFailed, connecting.peer);
    }
}
