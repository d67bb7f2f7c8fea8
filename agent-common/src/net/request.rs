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
    pub struct Request {
        pub header: Header,
        /// CLOCK_MONOTONIC, ns. Server: the request's first byte was read. Client: it was sent. The answer's first byte
        /// was sent (server) or read (client) at `header.time`.
        pub since: u64,
        pub peer: Peer,
        /// Server: who sent the answer. Client: who read it.
        pub actor: Actor,
    }
}

layout!(Request: 72);
