//! Why the kernel side lost something. Each cause is one per-CPU counter; user space adds its own causes.

/// Index into the `LOSS` map.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The ring buffer was full: an event was not written.
    RingFull = 0,
    /// No block of histogram buckets was free: a value was not counted.
    HistogramFull = 1,
    /// The map of goroutines was full, or the target's quota in it: a goroutine's state was not followed.
    GoroutineFull = 2,
    /// The map of woken tasks was full, or the target's quota in it: a wake was not followed.
    TokioWokenFull = 3,
    /// The map of tokio's threads was full, or the target's quota in it.
    TokioThreadsFull = 4,
    /// The map of sockets was full, or the target's quota in it.
    SocketFull = 5,
    /// No id was free for a peer: the value was counted under "other".
    PeerFull = 6,
    /// The map of threads was full, or the target's quota in it.
    ThreadFull = 7,
    /// The target's memory could not be read at a probe (paged out, or gone).
    ReadFault = 8,
    /// An injected list of goroutines was longer than the walk's bound.
    GoListTooLong = 9,
    /// The map of Ps, or that of who pays for the GC, was full: an assist was not counted for its cycle.
    GoAssistFull = 10,
    /// An answer was read before the program for the send of its request ran: the duration is not known.
    RequestUnordered = 11,
    /// The ring of exec events was full: a new program is found only at the next scan of all processes.
    ExecFull = 12,
    /// A target has as many blocks of histogram buckets as one may have: a value was not counted.
    HistogramQuota = 13,
    /// A target has as many peers as one may have: the value was counted under "other".
    PeerQuota = 14,
    /// Bytes were read of a connection that was closed already, or it was closed before the program for a client's send ran: the request
    /// was not counted.
    SocketClosed = 15,
    /// A thread was woken, or began to run, without a call of the hook: the kernel calls none for tasks that it keeps from being traced. The
    /// wait was not counted.
    ThreadUnseen = 16,
    /// A probe was hit, and where its argument is was not known: a wake was not followed.
    SiteUnknown = 17,
}

impl Loss {
    /// Number of causes: the size of the `LOSS` map.
    pub const COUNT: u32 = 18;

    /// All causes with the name they are exported under.
    pub const ALL: [(Self, &'static str); Self::COUNT as usize] = [
        (Self::RingFull, "ring_full"),
        (Self::HistogramFull, "histogram_full"),
        (Self::GoroutineFull, "goroutine_full"),
        (Self::TokioWokenFull, "tokio_woken_full"),
        (Self::TokioThreadsFull, "tokio_threads_full"),
        (Self::SocketFull, "socket_full"),
        (Self::PeerFull, "peer_full"),
        (Self::ThreadFull, "thread_full"),
        (Self::ReadFault, "read_fault"),
        (Self::GoListTooLong, "go_list_too_long"),
        (Self::GoAssistFull, "go_assist_full"),
        (Self::RequestUnordered, "request_unordered"),
        (Self::ExecFull, "exec_full"),
        (Self::HistogramQuota, "histogram_quota"),
        (Self::PeerQuota, "peer_quota"),
        (Self::SocketClosed, "socket_closed"),
        (Self::ThreadUnseen, "thread_unseen"),
        (Self::SiteUnknown, "site_unknown"),
    ];
}

#[cfg(test)]
mod tests {
    use super::Loss;

    #[test]
    fn the_table_is_in_index_order() {
        for (index, (cause, name)) in Loss::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index, "{name}");
        }
    }
}
