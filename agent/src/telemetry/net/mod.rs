//! TCP connections: what their signals share.

pub mod connect;
pub mod request;
pub mod retransmit;

use super::{
    AttributeDef, OVERFLOW,
    go::GOROUTINE_ID,
    thread::THREAD_ID,
    tokio::{TOKIO_TASK_FUTURE, TOKIO_TASK_ID},
};

pub const NETWORK_TRANSPORT: &str = "network.transport";
pub const NETWORK_TYPE: &str = "network.type";
pub const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
pub const NETWORK_PEER_PORT: &str = "network.peer.port";
pub const SERVER_ADDRESS: &str = "server.address";
pub const SERVER_PORT: &str = "server.port";
pub const CLIENT_ADDRESS: &str = "client.address";

/// Of connections on which the process is the server.
pub const SERVER_PEER: &[&str] = &[
    NETWORK_TRANSPORT,
    NETWORK_TYPE,
    NETWORK_PEER_ADDRESS,
    CLIENT_ADDRESS,
    SERVER_PORT,
    OVERFLOW,
];
/// Of connections on which it is the client.
pub const CLIENT_PEER: &[&str] = &[
    NETWORK_TRANSPORT,
    NETWORK_TYPE,
    NETWORK_PEER_ADDRESS,
    NETWORK_PEER_PORT,
    SERVER_ADDRESS,
    SERVER_PORT,
    OVERFLOW,
];

/// Of spans of what the process asks others for.
pub const CLIENT_SPAN: &[&str] = &[
    NETWORK_TRANSPORT,
    NETWORK_TYPE,
    NETWORK_PEER_ADDRESS,
    NETWORK_PEER_PORT,
    SERVER_ADDRESS,
    SERVER_PORT,
    GOROUTINE_ID,
    TOKIO_TASK_ID,
    TOKIO_TASK_FUTURE,
    THREAD_ID,
];

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: NETWORK_TRANSPORT,
        kind: "string",
        description: "`tcp`.",
    },
    AttributeDef {
        key: NETWORK_TYPE,
        kind: "string",
        description: "`ipv4` or `ipv6`; IPv4 on an IPv6 socket is `ipv4`.",
    },
    AttributeDef {
        key: NETWORK_PEER_ADDRESS,
        kind: "string",
        description: "Address at the other end.",
    },
    AttributeDef {
        key: NETWORK_PEER_PORT,
        kind: "int",
        description: "Port at the other end; absent for clients of the service.",
    },
    AttributeDef {
        key: SERVER_ADDRESS,
        kind: "string",
        description: "Address of the server that was called.",
    },
    AttributeDef {
        key: SERVER_PORT,
        kind: "int",
        description: "Port of the server: the service's own, or the one it called.",
    },
    AttributeDef {
        key: CLIENT_ADDRESS,
        kind: "string",
        description: "Address of the client.",
    },
];
