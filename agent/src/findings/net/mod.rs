//! Rules of TCP connections.

pub mod connect_fails;
pub mod connect_per_request;
pub mod slow_peer;
