//! Names and places of an executable's code, read as they are asked for, and remembered.

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use super::Target;
use crate::{
    deadline::{self, Late},
    inspect::{Frame, Image},
};

/// Addresses whose places in the source are remembered, of each target.
const PLACES: usize = 1024;
/// And functions that goroutines were started with: all of them are asked for again and again.
const STARTS: usize = 8192;
/// How long an executable that did not answer is not asked again.
const AGAIN: Duration = Duration::from_secs(30);

/// What was read of an executable's symbols.
#[derive(Debug, Default)]
pub(super) struct Known {
    frames: HashMap<u64, Option<Frame>>,
    /// By address of a function that a goroutine was started with: where the one begins that it is called by.
    starts: HashMap<u64, u64>,
    /// The file did not answer; not asked before.
    next: Option<Instant>,
}

impl Known {
    /// Asks an executable's symbols, unless its file did not answer of late.
    fn ask<T: Send + 'static>(
        &mut self,
        pid: u32,
        (image, exe): (Arc<dyn Image>, Arc<File>),
        what: impl FnOnce(&dyn Image, &File) -> Option<T> + Send + 'static,
    ) -> Result<Option<T>, Late> {
        if self.next.is_some_and(|next| Instant::now() < next) {
            return Err(Late::Outstanding);
        }
        let asked = deadline::FILES.within(pid, deadline::SOON, move || what(&*image, &exe));
        self.next = asked.is_err().then(|| Instant::now() + AGAIN);
        asked
    }
}

impl Target {
    /// The place in the source of an address in a Go process.
    pub fn go_frame(&self, address: u64) -> Option<Frame> {
        let Some(symbols) = self.symbols_file() else {
            return self.frames.get(&address).cloned();
        };
        let mut known = self.symbols.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = known.frames.get(&address) {
            return frame.clone();
        }
        if known.frames.len() == PLACES {
            known.frames.clear();
        }
        let vaddr = address.wrapping_sub(self.bias);
        let frame = known
            .ask(self.process.pid, symbols, move |image, exe| image.frame(exe, vaddr))
            .ok()?;
        known.frames.insert(address, frame.clone());
        frame
    }

    /// Where the function begins by which the runtime calls a goroutine that was started with the one at `startpc`; 0 for one of
    /// a thread that C made, and of a plugin, which have none in the executable. Without an answer it is told as the code has it.
    pub fn go_start(&self, startpc: u64) -> u64 {
        self.answered_start(startpc).unwrap_or(startpc)
    }

    /// The same, or that the executable does not answer just now.
    pub fn answered_start(&self, startpc: u64) -> Result<u64, Late> {
        let Some(symbols) = self.symbols_file() else {
            return Ok(self.starts.get(&startpc).copied().unwrap_or(startpc));
        };
        let mut known = self.symbols.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(start) = known.starts.get(&startpc) {
            return Ok(*start);
        }
        if known.starts.len() == STARTS {
            known.starts.clear();
        }
        let vaddr = startpc.wrapping_sub(self.bias);
        let start = known.ask(self.process.pid, symbols, move |image, exe| image.start(exe, vaddr))?;
        let start = start.map_or(0, |start| start.wrapping_add(self.bias));
        known.starts.insert(startpc, start);
        Ok(start)
    }

    fn symbols_file(&self) -> Option<(Arc<dyn Image>, Arc<File>)> {
        let image = self.image.as_ref().filter(|image| image.has_symbols())?;
        Some((image.clone(), self.exe.clone()?))
    }
}
