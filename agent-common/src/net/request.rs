//! A request over the threshold.

use super::Peer;
use crate::{
    event::{Actor, Header},
    layout, shared,
};

/// Nothing was sent or received yet.
pub const IDLE: u8 = 0;
/// The last bytes went out.
pub const SENT: u8 = 1;
/// The last bytes came in.
pub const RECEIVED: u8 = 2;

shared! {
    /// The state of one socket.
    pub struct Socket {
        /// Identifies the connection: the kernel reuses a socket's address for another one.
        pub connection: u64,
        /// CLOCK_MONOTONIC, ns: begin of the last request.
        pub since: u64,
        /// The target's id.
        pub target_id: u32,
        /// Id of the peer in the `PEERS` map.
        pub peer: u32,
        /// What the target had written when it last read: tcp_sock.write_seq.
        pub written: u32,
        /// A `ROLE_*`.
        pub role: u8,
        /// Last direction: [`IDLE`], [`SENT`], [`RECEIVED`].
        pub last: u8,
        /// 1 for MPTCP, whose sockets are no tcp_sock.
        pub multipath: u8,
        pub pad: u8,
        /// The target's index, to find the target when the current process is another one at the close.
        pub index: u32,
        pub pad_to_line: [u32; 7],
    }

    pub struct Request {
        /// The tid is 0 where it is not known: a reset came before the program for the send of the answer ran.
        pub header: Header,
        /// CLOCK_MONOTONIC, ns. Server: the request's first byte was read. Client: it was sent. The answer's first byte
        /// was sent (server) or read (client) at `header.time`.
        pub since: u64,
        pub peer: Peer,
        /// Server: who sent the answer. Client: who read it.
        pub actor: Actor,
    }
}

layout!(Socket: 64, Request: 72);
