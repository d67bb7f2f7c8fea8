//! TCP connections of targets.

pub mod connect;
pub mod request;
pub mod retransmit;

use crate::{layout, shared};

/// The peer id under which values are counted when the map of peers is full.
pub const PEER_OTHER: u32 = 0;
/// Most peers that have an id of their own.
pub const PEER_LIMIT: u32 = 4096;
/// Ids that a peer may have: it takes the first that no other peer has.
pub const PEER_IDS: u32 = 2;

/// Which side of the connection the target is.
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
        /// The target's id.
        pub target_id: u32,
    }

}

layout!(Peer: 24);

impl Peer {
    /// The `nth` of the ids that it may have: a hash of all its bytes (the constants are those of MurmurHash3's finalizer), so that all
    /// programs compute the same id.
    #[inline(always)]
    pub fn id(&self, nth: u32) -> u32 {
        let [a, b, c, d] = self.words().map(u64::from);
        let rest = u64::from(self.target_id) << 32 | u64::from(self.role) << 16 | u64::from(self.port);
        let mixed = mix(mix(mix(rest) ^ (a << 32 | b)) ^ (c << 32 | d));
        match (mixed as u32).wrapping_add(nth) {
            PEER_OTHER => u32::MAX - PEER_IDS,
            id => id,
        }
    }

    /// Whether both are the same.
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        self.words() == other.words()
            && self.port == other.port
            && self.role == other.role
            && self.target_id == other.target_id
    }

    #[inline(always)]
    fn words(&self) -> [u32; 4] {
        let byte = &self.address;
        let word = |at: usize| u32::from_ne_bytes([byte[at], byte[at + 1], byte[at + 2], byte[at + 3]]);
        [word(0), word(4), word(8), word(12)]
    }
}

#[inline(always)]
const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let word = (word ^ word >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::HashSet;

    use super::*;

    fn peer(address: [u8; 4], port: u16, role: u8, target_id: u32) -> Peer {
        let mut of = Peer {
            port,
            role,
            target_id,
            ..Peer::default()
        };
        of.address[12..].copy_from_slice(&address);
        of
    }

    #[test]
    fn peers_that_differ_in_anything_have_ids_of_their_own() {
        let mut peers = std::vec::Vec::new();
        for last in 0..=255 {
            for third in 0..16 {
                peers.push(peer([10, 0, third, last], 443, ROLE_CLIENT, 1));
            }
            peers.push(peer([127, 0, 0, 1], u16::from(last), ROLE_CLIENT, 1));
            peers.push(peer([127, 0, 0, 1], u16::from(last), ROLE_SERVER, 1));
            peers.push(peer([127, 0, 0, 1], u16::from(last), ROLE_SERVER, 2 + u32::from(last)));
        }
        let ids: HashSet<u32> = peers.iter().map(|peer| peer.id(0)).collect();
        assert_eq!(ids.len(), peers.len());
        for peer in &peers {
            assert_eq!(peer.id(0), { *peer }.id(0));
            let own: HashSet<u32> = (0..PEER_IDS).map(|nth| peer.id(nth)).collect();
            assert_eq!(own.len(), PEER_IDS as usize);
            assert!(!own.contains(&PEER_OTHER));
        }
        assert!(peers[0].is(&{ peers[0] }) && !peers[0].is(&peers[1]));
    }
}
