//! A TCP connect over the threshold, or one that failed.

use super::Peer;
use crate::{
    event::{Actor, Header},
    layout, shared,
};

shared! {
    /// A connect in progress.
    pub struct Connecting {
        /// CLOCK_MONOTONIC, ns: SYN sent.
        pub since: u64,
        /// The target's id.
        pub target_id: u32,
        pub tgid: u32,
        /// Id of the peer in the `PEERS` map.
        pub peer: u32,
        /// Thread that connects.
        pub tid: u32,
        /// What called connect().
        pub actor: Actor,
    }

    pub struct Connect {
        /// `tid` is the thread that called connect().
        pub header: Header,
        /// CLOCK_MONOTONIC, ns: SYN sent. Established at `header.time`.
        pub since: u64,
        pub peer: Peer,
        pub actor: Actor,
    }
}

layout!(Connecting: 40, Connect: 72);
