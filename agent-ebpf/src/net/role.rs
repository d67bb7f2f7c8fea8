//! Client or server: which side connected, and which accepted.

use agent_common::net::{ROLE_CLIENT, ROLE_SERVER};

use crate::read::{self, kernel};

// include/net/tcp_states.h: a FIN was sent, or is queued.
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// Which side of an established connection a socket is, from the socket alone, however old it is: its listener may be closed.
///
/// An accepted socket is a copy of its listener, with what listen() was told of the queue (linux, net/core/sock.c,
/// sk_clone_lock; net/ipv4/af_inet.c, inet_listen); one that connected never had any. Where listen() was told 0, by what was
/// acknowledged: the SYN counts as a byte of it for who connected (net/ipv4/tcp_input.c, tcp_snd_una_update by way of
/// tcp_rcv_synsent_state_process), and for who accepted it is over before the socket is there (net/ipv4/tcp_minisocks.c,
/// tcp_create_openreq_child). MPTCP keeps it (net/mptcp/pm.c, mptcp_pm_new_connection).
#[inline(always)]
pub fn of(sk: u64, multipath: bool) -> Option<u8> {
    let is_server = if multipath {
        read::field::<u8>(sk, kernel!(mptcp_server_side))? != 0
    } else {
        read::field::<u32>(sk, kernel!(sk_max_ack_backlog))? != 0 || {
            // Others may send or acknowledge meanwhile.
            let first = unsent(sk)?;
            let again = unsent(sk)?;
            let acknowledged = if first == again { first } else { unsent(sk)? };
            acknowledged == 0
        }
    };
    Some(if is_server { ROLE_SERVER } else { ROLE_CLIENT })
}

/// How many bytes were acknowledged, or are to be, that no call of the target's has sent, less its FIN.
#[inline(always)]
fn unsent(sk: u64) -> Option<u64> {
    let sent: u64 = read::field(sk, kernel!(tcp_bytes_sent))?;
    let again: u64 = read::field(sk, kernel!(tcp_bytes_retrans))?;
    let acknowledged: u64 = read::field(sk, kernel!(tcp_bytes_acked))?;
    let end: u32 = read::field(sk, kernel!(tcp_snd_nxt))?;
    let since: u32 = read::field(sk, kernel!(tcp_snd_una))?;
    let written: u32 = read::field(sk, kernel!(tcp_write_seq))?;
    let state: u8 = read::field(sk, kernel!(sk_state))?;
    let fin = u64::from(matches!(state, FIN_WAIT1 | FIN_WAIT2 | LAST_ACK | CLOSING) && end == written);
    let ahead = acknowledged.wrapping_add(u64::from(end.wrapping_sub(since)));
    Some(ahead.wrapping_sub(sent.wrapping_sub(again)).wrapping_sub(fin))
}
