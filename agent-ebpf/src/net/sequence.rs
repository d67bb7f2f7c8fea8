//! Sequence numbers of a connection: what was written, acknowledged, received and read, whatever the order in which programs run.

use agent_common::net::request::Socket;

use super::{CLOSE_WAIT, ESTABLISHED};
use crate::read::{self, kernel};

/// A FIN counts as one byte, of what is written and of what is received.
const FIN: u32 = 1;

/// The end of what the target has written.
#[inline(always)]
pub fn written(sk: u64, multipath: u8) -> Option<u32> {
    sequence(sk, multipath, kernel!(tcp_write_seq), kernel!(mptcp_write_seq))
}

/// Whether the target has written anything since it last read.
#[inline(always)]
pub fn was_written(sk: u64, socket: &Socket) -> bool {
    written(sk, socket.multipath).is_some_and(|end| end.wrapping_sub(socket.written) > FIN)
}

/// Whether bytes were received that the target has not read.
#[inline(always)]
pub fn is_unread(sk: u64, multipath: u8) -> bool {
    if multipath != 0 {
        return read::field::<u32>(sk, kernel!(sk_receive_queue_qlen)).is_some_and(|waiting| waiting > 0);
    }
    let Some(came) = read::field::<u32>(sk, kernel!(tcp_rcv_nxt)) else {
        return false;
    };
    let Some(read) = read::field::<u32>(sk, kernel!(tcp_copied_seq)) else {
        return false;
    };
    came.wrapping_sub(read) > FIN
}

/// A sequence number of the connection: of TCP's 32 bits, or the low half of MPTCP's 64 (both architectures are little-endian).
#[inline(always)]
fn sequence(sk: u64, multipath: u8, tcp: u32, mptcp: u32) -> Option<u32> {
    let offset = if multipath == 0 { tcp } else { mptcp };
    if offset == 0 {
        return None;
    }
    read::field(sk, offset)
}

/// Whether the call that wrote the last `length` bytes began before the last read.
#[inline(always)]
pub fn is_late(sk: u64, socket: &Socket, length: i32) -> bool {
    let Some(end) = written(sk, socket.multipath) else {
        return false;
    };
    (socket.written.wrapping_sub(end.wrapping_sub(length as u32)) as i32) > 0
}

/// Whether the peer has acknowledged anything that was written since the target last read, and can still answer. A FIN is acknowledged too.
#[inline(always)]
pub fn was_answered(sk: u64, socket: &Socket) -> bool {
    is_acknowledged(sk, socket) && matches!(read::field(sk, kernel!(sk_state)), Some(ESTABLISHED | CLOSE_WAIT))
}

/// Whether the peer has acknowledged anything that was written since the target last read.
#[inline(always)]
pub fn is_acknowledged(sk: u64, socket: &Socket) -> bool {
    let Some(acknowledged) = sequence(sk, socket.multipath, kernel!(tcp_snd_una), kernel!(mptcp_snd_una)) else {
        return false;
    };
    (acknowledged.wrapping_sub(socket.written) as i32) > 0
}
