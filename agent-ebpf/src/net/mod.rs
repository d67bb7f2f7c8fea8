pub mod closed;
pub mod connect;
pub mod request;
pub mod retransmit;
mod role;
mod sequence;

use agent_common::{
    loss::Loss,
    net::{
        PEER_IDS, PEER_OTHER, Peer, ROLE_CLIENT,
        request::{IDLE, RECEIVED, Socket},
    },
    target::{BLOCK_QUOTA, PEER_QUOTA, SharedMap, Target},
};

use crate::{
    held, log,
    maps::{KERNEL, PEERS, USAGE},
    read::{self, kernel},
    record,
    table::{self, Sockets},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
pub const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

// include/net/tcp_states.h
pub const ESTABLISHED: u8 = 1;
pub const SYN_SENT: u8 = 2;
pub const CLOSE: u8 = 7;
pub const CLOSE_WAIT: u8 = 8;

/// Remote address (IPv4 as ::ffff:a.b.c.d), remote port and local port (host order) of a socket.
#[inline(always)]
fn endpoints(sk: u64) -> Option<([u8; 16], u16, u16)> {
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

/// The other end of a socket, with the server's port.
#[inline(always)]
pub fn peer(sk: u64, role: u8, target_id: u32) -> Option<Peer> {
    let (address, remote, local) = endpoints(sk)?;
    Some(Peer {
        address,
        port: if role == ROLE_CLIENT { remote } else { local },
        role,
        pad: 0,
        target_id,
    })
}

/// The id under which a peer's values are counted. It is a hash of the peer, and claimed by an insert that fails if the id is taken: so
/// programs that run at once, or interrupt each other on one CPU, cannot give two peers the same id.
#[inline(always)]
pub fn peer_id(target: &Target, peer: &Peer) -> u32 {
    for nth in 0..PEER_IDS {
        let id = peer.id(nth);
        // SAFETY: a peer is written once, and removed only after its target is gone.
        if unsafe { PEERS.get(id) }.is_some_and(|other| other.is(peer)) {
            return id;
        }
    }
    let Some(usage) = USAGE.get_ptr_mut(target.index) else {
        return PEER_OTHER;
    };
    // SAFETY: an element of an array that lives as long as this object.
    unsafe {
        // The other half of the blocks is for peers that exist already.
        if (*usage).peers >= PEER_QUOTA || (*usage).blocks >= BLOCK_QUOTA / 2 {
            record::add(&raw mut (*usage).refused_peers, 1);
            record::full(Loss::PeerQuota, target);
            return PEER_OTHER;
        }
    }
    for nth in 0..PEER_IDS {
        let id = peer.id(nth);
        if PEERS
            .insert(id, peer, u64::from(aya_ebpf::bindings::BPF_NOEXIST))
            .is_ok()
        {
            // SAFETY: as above.
            unsafe { record::add(&raw mut (*usage).peers, 1) };
            return id;
        }
        // SAFETY: as above; another CPU may have claimed it for the same peer.
        if unsafe { PEERS.get(id) }.is_some_and(|other| other.is(peer)) {
            return id;
        }
    }
    record::full(Loss::PeerFull, target);
    PEER_OTHER
}

/// Which connection a socket is, as in [`Socket::connection`]; `sk` is an argument of a tracepoint.
#[inline(always)]
fn connection(sk: u64) -> u64 {
    let hash: u32 = read::argument(sk, kernel!(sk_hash));
    let remote: u16 = read::argument(sk, kernel!(sk_dport));
    let local: u16 = read::argument(sk, kernel!(sk_num));
    u64::from(hash) << 32 | u64::from(remote) << 16 | u64::from(local)
}

/// Local and remote port (host order); `sk` is an argument of a tracepoint.
#[inline(always)]
fn ports(sk: u64) -> (u64, u64) {
    let remote: u16 = read::argument(sk, kernel!(sk_dport));
    let local: u16 = read::argument(sk, kernel!(sk_num));
    (u64::from(local), u64::from(u16::from_be(remote)))
}

/// What a socket is found by: the distance of its address from one that stays the same. The verifier allows no other arithmetic with the address of a
/// kernel struct than to subtract a pointer.
#[inline(always)]
pub fn key(sk: u64) -> u64 {
    sk.wrapping_sub(&raw const KERNEL as u64)
}

/// The socket's entry, which is added when the first bytes of a connection are seen; `direction` is theirs.
#[inline(always)]
pub fn known(sk: u64, target: &Target, direction: u8) -> Option<*mut Socket> {
    let connection = connection(sk);
    let old = table::get::<Sockets>(key(sk));
    if let Some(socket) = old {
        // SAFETY: read only; the entry of a socket that another target had, or that the kernel reused, is replaced.
        let (target_id, of) = unsafe { ((*socket).target_id, (*socket).connection) };
        if target_id == target.id && of == connection {
            return Some(socket);
        }
    }
    let multipath = match read::field(sk, kernel!(sk_protocol))? {
        IPPROTO_TCP => false,
        IPPROTO_MPTCP => true,
        _ => return None,
    };
    let role = role::of(sk, multipath)?;
    if read::field::<u8>(sk, kernel!(sk_state))? == CLOSE {
        // Its entry was removed at the close, and nothing would remove another. Either data is read after both sides have closed, or a
        // reset came before the program of a send; if that sent an answer, the close has counted it.
        if direction == RECEIVED || role == ROLE_CLIENT {
            record::lost(Loss::SocketClosed);
            let (local, remote) = ports(sk);
            log::closed(u64::from(target.pid), local, remote);
        }
        return None;
    }
    let peer = peer(sk, role, target.id)?;
    let socket = Socket {
        connection,
        since: 0,
        target_id: target.id,
        peer: peer_id(target, &peer),
        written: 0,
        role,
        last: IDLE,
        multipath: u8::from(multipath),
        pad: 0,
        index: target.index,
        pad_to_line: [0; 7],
    };
    if old.is_some() {
        // Of another connection or another target.
        forget(sk);
    }
    let place = held::add::<Sockets>(target, key(sk), &socket);
    table::at::<Sockets>(place)
}

/// Removes a socket's entry, whichever process closes it.
#[inline(always)]
fn forget(sk: u64) {
    let place = table::find::<Sockets>(key(sk));
    let Some(socket) = table::at::<Sockets>(place) else {
        return;
    };
    // SAFETY: read only, before it is removed.
    let (target_id, index) = unsafe { ((*socket).target_id, (*socket).index) };
    table::free::<Sockets>(place);
    held::removed(SharedMap::Sockets, target_id, index);
}
