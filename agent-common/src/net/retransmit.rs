//! States of a connection (linux, include/net/tcp_states.h), which its retransmissions are counted by.

/// Every state, with OpenTelemetry's value of network.connection.state.
pub const STATES: [(u8, &str); 11] = [
    (1, "established"),
    (2, "syn_sent"),
    (3, "syn_received"),
    (4, "fin_wait_1"),
    (5, "fin_wait_2"),
    (6, "time_wait"),
    (7, "closed"),
    (8, "close_wait"),
    (9, "last_ack"),
    (10, "listen"),
    (11, "closing"),
];

/// The name of a state; None where a newer kernel has another.
pub fn state_name(state: u8) -> Option<&'static str> {
    let found = STATES.iter().find(|(number, _)| *number == state);
    found.map(|(_, name)| *name)
}
