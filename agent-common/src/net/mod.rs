//! TCP connections of targets.

pub mod connect;
pub mod request;

use crate::{event::Actor, layout, shared};

/// The peer id under which values are counted when the map of peers is full.
pub const PEER_OTHER: u32 = 0;
/// Most peers kept apart.
pub const PEER_LIMIT: u32 = 4096;

/// Which side of the connection the target is.
pub const ROLE_UNKNOWN: u8 = 0;
pub const ROLE_CLIENT: u8 = 1;
pub const ROLE_SERVER: u8 = 2;

shared! {
    /// What a socket's histograms are split by.
    pub struct Peer {
        /// The remote address; IPv4 as ::ffff:a.b.c.d.
        pub address: [u8; 16],
        /// The server's port, host order: the remote one for a client, the local one for a server.
        pub port: u16,
        /// [`ROLE_CLIENT`] or [`ROLE_SERVER`].
        pub role: u8,
        pub pad: u8,
        /// The target's slot.
        pub slot: u32,
    }

    /// A port that a target listens on.
    pub struct Listener {
        pub tgid: u32,
        /// Host order.
        pub port: u32,
    }

    /// What is known of one socket.
    pub struct Socket {
        /// CLOCK_MONOTONIC, ns: begin of the connect, or of the request in progress; 0 when none is.
        pub since: u64,
        /// The target's slot.
        pub slot: u32,
        pub tgid: u32,
        /// Id of the peer in the `PEERS` map.
        pub peer: u32,
        /// A `ROLE_*`.
        pub role: u8,
        /// Last direction: [`request::IDLE`], [`request::SENT`], [`request::RECEIVED`].
        pub last: u8,
        /// 1 while the connect is under way.
        pub connecting: u8,
        pub pad: u8,
        /// Thread that connects.
        pub tid: u32,
        pub pad2: u32,
        /// Who connects.
        pub actor: Actor,
    }
}

layout!(Peer: 24, Listener: 8, Socket: 48);
