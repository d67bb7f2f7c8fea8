//! Messages of the eBPF programs (`--kernel-log`), which go into the agent's log. The programs themselves keep them to so many a second.

use std::panic::{AssertUnwindSafe, catch_unwind};

use agent_common::kernel_log::{PER_SECOND, Pace};
use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use aya_log::{EbpfLogger, Level};
use clap::ValueEnum;
use log::{LevelFilter, Log, Metadata, Record};

use crate::aggregate::{StoreError, store::open};

/// The target of their records, by which RUST_LOG and [`crate::surface::output::begin_log`] know them.
pub const TARGET: &str = "kernel_log";

/// Which messages are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KernelLog {
    /// None: the programs are loaded without them
    #[default]
    Off,
    /// Which map was full for which process
    Warn,
    /// Also which address could not be read, and unexpected states and orders of events
    Debug,
}

impl KernelLog {
    /// As the programs compare it (aya-log-ebpf 0.2, macro_support::level_enabled): 0 is below all levels.
    pub fn level(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Warn => Level::Warn.into(),
            Self::Debug => Level::Debug.into(),
        }
    }

    pub fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::Off,
            Self::Warn => LevelFilter::Warn,
            Self::Debug => LevelFilter::Debug,
        }
    }
}

/// The messages' way into the log.
pub struct KernelMessages {
    logger: EbpfLogger<Prefixed>,
    pace: Array<MapData, Pace>,
    left_out: u64,
}

impl KernelMessages {
    /// Takes over the maps; None where no messages are wanted.
    pub fn new(wanted: KernelLog, ebpf: &mut Ebpf) -> Result<Option<Self>, KernelMessagesError> {
        if wanted == KernelLog::Off {
            return Ok(None);
        }
        let logger = EbpfLogger::init_with_logger(ebpf, Prefixed)?;
        let pace = open(&mut |name| ebpf.take_map(name), "LOG_PACE")?;
        Ok(Some(Self {
            logger,
            pace,
            left_out: 0,
        }))
    }

    /// Logs what has come. Returns how many messages were left out since the last call; or why there will be none any more.
    pub fn read(&mut self) -> Result<u64, &'static str> {
        // The crate panics over a message that it does not understand.
        let logger = &mut self.logger;
        if catch_unwind(AssertUnwindSafe(|| logger.flush())).is_err() {
            return Err("a message could not be decoded");
        }
        let left_out = self.pace.get(&0, 0).map_or(self.left_out, |pace| pace.left_out);
        let new = left_out - self.left_out;
        self.left_out = left_out;
        Ok(new)
    }
}

/// Why messages are left out.
pub fn left_out() -> String {
    format!("more than {PER_SECOND} in a second, or no space in their ring buffer")
}

#[derive(Debug, thiserror::Error)]
pub enum KernelMessagesError {
    #[error("cannot read kernel messages: {0}")]
    Logger(#[from] aya_log::Error),
    #[error("cannot read kernel messages: {0}")]
    Map(#[from] StoreError),
}

/// Says whose messages they are.
struct Prefixed;

impl Log for Prefixed {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        log::log!(target: TARGET, record.level(), "eBPF programs: {}", record.args());
    }

    fn flush(&self) {}
}
