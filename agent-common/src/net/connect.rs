//! A TCP connect over the threshold, or one that failed.

use super::Peer;
use crate::{
    event::{Actor, Header},
    layout, shared,
};

shared! {
    pub struct Connect {
        /// `tid` is the thread that called connect().
        pub header: Header,
        /// CLOCK_MONOTONIC, ns: SYN sent. Established at `header.time`.
        pub since: u64,
        pub peer: Peer,
        pub actor: Actor,
    }
}

layout!(Connect: 72);
