//! Kernel messages (`--kernel-log`), which the kernel programs write and the agent puts into its log.

/// Most messages of all CPUs together in [`SECOND`].
pub const PER_SECOND: u64 = 100;
/// By how many bits a time in ns is shifted to the period that [`PER_SECOND`] is for: 1.07 s.
pub const SECOND: u32 = 30;

crate::shared! {
    /// Keeps messages to [`PER_SECOND`]. CPUs that write at once may let a few more pass.
    pub struct Pace {
        /// The current period: CLOCK_MONOTONIC, in units of 2^[`SECOND`] ns.
        pub period: u64,
        /// Messages in it, with those that were left out.
        pub messages: u64,
        /// Messages that were left out since the programs were loaded.
        pub left_out: u64,
    }
}

crate::layout!(Pace: 24);
