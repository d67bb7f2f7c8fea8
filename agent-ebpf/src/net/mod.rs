pub mod connect;
pub mod request;

use agent_common::{
    loss::Loss,
    net::{PEER_OTHER, Peer},
    target::{BUCKET_QUOTA, PEER_QUOTA, Target},
};

use crate::{
    maps::{MADE, PEER_COUNT, PEERS},
    read::{self, kernel},
    record,
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// Remote address (IPv4 as ::ffff:a.b.c.d), remote port and local port (host order) of a TCP socket; None for any other.
#[inline(always)]
pub fn endpoints(sk: u64) -> Option<([u8; 16], u16, u16)> {
    let protocol: u16 = read::field(sk, kernel!(sk_protocol))?;
    if protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP {
        return None;
    }
    let address = match read::field::<u16>(sk, kernel!(sk_family))? {
        AF_INET => {
            let v4: [u8; 4] = read::field(sk, kernel!(sk_daddr))?;
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
        }
        AF_INET6 => read::field(sk, kernel!(sk_v6_daddr))?,
        _ => return None,
    };
    let remote = u16::from_be(read::field(sk, kernel!(sk_dport))?);
    let local = read::field(sk, kernel!(sk_num))?;
    Some((address, remote, local))
}

/// The id under which a peer's values are counted; new ones are numbered per CPU, so no two share an id.
#[inline(always)]
pub fn peer_id(target: &Target, peer: &Peer) -> u32 {
    // SAFETY: ids are written once and never changed.
    if let Some(id) = unsafe { PEERS.get(peer) } {
        return *id;
    }
    let (Some(count), Some(made)) = (PEER_COUNT.get_ptr_mut(0), MADE.get_ptr_mut(target.index)) else {
        return PEER_OTHER;
    };
    // SAFETY: an element of an array that lives as long as this object.
    unsafe {
        // The other half of the buckets is for what is there already.
        if (*made).peers >= PEER_QUOTA || (*made).buckets >= BUCKET_QUOTA / 2 {
            record::add(&raw mut (*made).over_peers, 1);
            record::lost(Loss::PeerQuota);
            return PEER_OTHER;
        }
    }
    // SAFETY: this CPU's own counter.
    let id = unsafe {
        *count += 1;
        (*count << 12) | (aya_ebpf::helpers::bpf_get_smp_processor_id() & 0xfff)
    };
    if PEERS
        .insert(peer, id, u64::from(aya_ebpf::bindings::BPF_NOEXIST))
        .is_ok()
    {
        // SAFETY: as above.
        unsafe { record::add(&raw mut (*made).peers, 1) };
        return id;
    }
    // SAFETY: as above; another CPU was first, or the map is full.
    if let Some(id) = unsafe { PEERS.get(peer) } {
        return *id;
    }
    record::lost(Loss::PeerFull);
    PEER_OTHER
}
