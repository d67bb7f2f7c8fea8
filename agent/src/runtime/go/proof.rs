//! Proof that what was found in an executable is what its process has: invariants of any live Go runtime. Offsets out of a
//! table and addresses out of instructions are used only after it, and so are those out of symbols: it costs a few reads.

use std::{collections::HashSet, io, thread, time::Duration};

use super::{GoRuntime, MAX_PROCS};
use crate::{deadline, inspect::GoImage, memory::Memory};

/// Why a process is not what its executable seemed to be.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("the Go runtime's memory cannot be read: {0}")]
    Memory(#[from] io::Error),
    #[error("the Go runtime has not started yet")]
    NotStarted,
    #[error(
        "what whywait found about the Go runtime is wrong in the process ({0}), so its figures would be wrong. Report the toolchain's version"
    )]
    Refuted(String),
}

/// Each reading may fall into a change; of as many in a row not all do.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(4);
/// Goroutines whose ids are looked at.
const SAMPLE: u64 = 64;
/// runtime._Gdeadextra, the last status there is (go1.27, runtime2.go); _Gscan is or-ed in.
const LAST_STATUS: u64 = 11;
const GSCAN: u64 = 0x1000;

impl GoRuntime {
    /// The runtime of a process that has `image` at `bias`, once what was found of it was held against it; None where there is nothing to
    /// read. Memory that does not answer is an error of kind TimedOut.
    pub fn of(pid: u32, image: &GoImage, bias: u64) -> Result<Option<Self>, ProofError> {
        let (Ok(globals), Ok(offsets)) = (image.globals.clone(), image.offsets.clone()) else {
            return Ok(None);
        };
        let version = image.version.raw.clone();
        let proved = deadline::MEMORY.within(pid, deadline::SOON, move || {
            let runtime = Self::new(Memory::open(pid)?, bias, globals, offsets)?;
            runtime.prove(&version)?;
            Ok::<_, ProofError>(runtime)
        });
        proved.map_err(io::Error::from)?.map(Some)
    }

    /// Holds what was found against the running process, whose build info says `version`.
    pub fn prove(&self, version: &str) -> Result<(), ProofError> {
        for _ in 1..TRIES {
            match self.prove_once(version) {
                Err(ProofError::Refuted(_)) => thread::sleep(PAUSE),
                outcome => return outcome,
            }
        }
        self.prove_once(version)
    }

    fn prove_once(&self, version: &str) -> Result<(), ProofError> {
        let (globals, offsets) = (&self.globals, &self.offsets);
        let refuted = |what: String| Err(ProofError::Refuted(what));
        let memory = &self.memory;
        let procs = memory.unsigned(self.at(globals.gomaxprocs), 4)?;
        if procs == 0 {
            return Err(ProofError::NotStarted);
        }
        if self.text_at(self.at(globals.build_version), version.len() as u64)? != version.as_bytes() {
            return refuted("runtime.buildVersion is not the build info's".to_owned());
        }
        let length = memory.word(self.at(globals.allp).wrapping_add(8))?;
        if procs > MAX_PROCS || procs != length {
            return refuted(format!("gomaxprocs is {procs}, allp has {length}"));
        }
        let phase = memory.unsigned(self.at(globals.gcphase), 4)?;
        if phase > 2 {
            return refuted(format!("gcphase is {phase}"));
        }
        let flag = memory.unsigned(self.at(globals.iscgo), 1)?;
        if flag > 1 {
            return refuted(format!("iscgo is {flag}"));
        }
        if !self.size_classes.starts_with(&[0, 8, 16]) || !self.size_classes.is_sorted() {
            return refuted("the size classes are none".to_owned());
        }
        let before = self.cycles()?;
        self.prove_goroutines()?;
        let after = self.cycles()?;
        // A cycle is counted in work when it begins, in memstats when it ends.
        let [(begun, ended), (begun_later, ended_later)] = [before, after];
        let plausible = ended <= begun && begun <= ended_later.saturating_add(1) && begun <= begun_later;
        if !plausible || ended > ended_later {
            return refuted(format!(
                "{begun} GC cycles begun and {ended} ended, then {begun_later} and {ended_later}"
            ));
        }
        let percent = self.field(globals.gc_controller, &offsets.gc_controller.gc_percent)? as u32 as i32;
        if percent < -1 {
            return refuted(format!("GOGC is {percent}"));
        }
        self.prove_c()?;
        self.prove_between()
    }

    /// Cycles begun by runtime.work, and ended by runtime.memstats.
    fn cycles(&self) -> io::Result<(u64, u64)> {
        let ended = self.field(self.globals.memstats, &self.offsets.memstats.numgc)?;
        let begun = self.field(self.globals.work, &self.offsets.work.cycles)?;
        Ok((begun, ended))
    }

    fn prove_goroutines(&self) -> Result<(), ProofError> {
        let (globals, g) = (&self.globals, &self.offsets.g);
        // allgs only grows, and allglen follows it.
        let count = self.memory.word(self.at(globals.allglen))?;
        let (base, length) = (
            self.memory.word(self.at(globals.allgs))?,
            self.memory.word(self.at(globals.allgs).wrapping_add(8))?,
        );
        if count == 0 || count > length || length - count > 4096 {
            return Err(ProofError::Refuted(format!("allglen is {count}, allgs has {length}")));
        }
        let mut ids = HashSet::new();
        for pointer in self.memory.words(base, count.min(SAMPLE) as usize)? {
            let id = self.memory.unsigned(pointer.wrapping_add(g.goid.offset), 8)?;
            let status = self.memory.unsigned(pointer.wrapping_add(g.atomicstatus.offset), 4)? & !GSCAN;
            // A dead one has lost its id.
            if status > LAST_STATUS || (id != 0 && !ids.insert(id)) {
                return Err(ProofError::Refuted(format!(
                    "a goroutine has id {id} and status {status}"
                )));
            }
        }
        if ids.is_empty() {
            return Err(ProofError::Refuted("no goroutine has an id".to_owned()));
        }
        Ok(())
    }

    /// The bytes of the Go string whose header is at `at`; empty unless it is `length` long.
    fn text_at(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let (pointer, found) = (self.memory.word(at)?, self.memory.word(at.wrapping_add(8))?);
        let mut bytes = vec![0; if found == length { length as usize } else { 0 }];
        if !bytes.is_empty() {
            self.memory.read(pointer, &mut bytes)?;
        }
        Ok(bytes)
    }
}
