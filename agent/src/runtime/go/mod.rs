//! Plane 0 for Go: the runtime's own counters and histograms, read from the target's memory as runtime/metrics computes
//! them inside (go1.26, runtime/metrics.go).

mod cgo;
mod gc;
mod goal;
mod places;
mod proof;
mod running;
mod some;
mod stack;
mod threads;
mod unwind;
mod walk;
mod wall;

use std::io;

use agent_common::go::latency::PERIOD;

use crate::{
    inspect::{FieldLoc, GoGlobals, GoOffsets},
    memory::Memory,
};

pub use gc::{Between, Limiter};
pub use goal::{bounded, gogc};
pub use places::{Places, StackFrame, is_shown};
pub use proof::ProofError;
pub use running::{Chain, CodePlace};
pub use some::Looked;
pub use stack::{Goroutine, Unwinder};
pub use threads::Threads;
pub use unwind::{NoStack, Stack, StackPc};
pub use walk::{Seen, State, Walk};
pub use wall::{Category, LookSize, WallSums, WallTime};

/// Reads one process' runtime.
#[derive(Debug)]
pub struct GoRuntime {
    memory: Memory,
    bias: u64,
    globals: GoGlobals,
    offsets: GoOffsets,
    /// Bytes of each size class: a constant of the build.
    size_classes: Vec<u64>,
    /// The runtime's names of its wait reasons, by number.
    pub wait_reasons: Vec<String>,
}

/// One reading. Bytes, counts; histograms in the buckets of [`GoRuntime::bounds`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub goroutines: u64,
    /// Goroutines created since the start; since go1.26.
    pub goroutines_created: Option<u64>,
    pub gomaxprocs: u64,
    pub threads: Option<Threads>,
    /// Calls into C since the start; None without cgo, and where they could not be counted this time.
    pub c_calls: Option<u64>,
    /// GOGC in percent; None when off.
    pub gogc: Option<u64>,
    /// GOMEMLIMIT; None when off or unknown to this version.
    pub memory_limit: Option<u64>,
    /// None where there is no goal: GOGC is off, and there is no GOMEMLIMIT.
    pub heap_goal: Option<u64>,
    /// Whether GOMEMLIMIT sets that goal, below what GOGC asks for; None where it is not known.
    pub goal_by_limit: Option<bool>,
    pub gc_cycles: u64,
    pub gc_cycles_forced: u64,
    /// Bytes and objects allocated since the start.
    pub allocated_bytes: u64,
    pub allocated_objects: u64,
    /// /memory/classes/heap/stacks.
    pub stack_bytes: u64,
    /// /memory/classes/heap/released.
    pub released_bytes: u64,
    /// /memory/classes/total less heap/released less heap/stacks.
    pub other_bytes: u64,
    /// Goroutine, runnable → running; one switch in eight is sampled by the runtime.
    pub schedule: Option<TimeHistogram>,
    /// Whole pauses: (GC, other).
    pub pause_total: Option<[TimeHistogram; 2]>,
    /// From asking to stop until all stopped: (GC, other).
    pub pause_stopping: Option<[TimeHistogram; 2]>,
    /// In the order of [`CPU_CLASSES`]; as of the last GC cycle's end.
    pub cpu: Option<[u64; CPU_CLASSES.len()]>,
    /// The GC between its cycles.
    pub between: Between,
}

/// Classes of CPU time, as the runtime estimates it: /cpu/classes/*, each with what it is a part of; go1.20 and later (go1.26,
/// runtime/mstats.go, cpuStats).
pub const CPU_CLASSES: [(&str, &str); 8] = [
    ("gc", "gc/mark/assist"),
    ("gc", "gc/mark/dedicated"),
    ("gc", "gc/mark/idle"),
    ("gc", "gc/pause"),
    ("scavenge", "scavenge/assist"),
    ("scavenge", "scavenge/background"),
    ("idle", "idle"),
    ("user", "user"),
];

/// runtime.timeHistogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeHistogram {
    /// Below 0 ns.
    pub underflow: u64,
    pub counts: Vec<u64>,
    /// Above the last bucket.
    pub overflow: u64,
}

impl GoRuntime {
    /// Takes over what was found of the binary, for a process that maps it at `bias`.
    pub fn new(memory: Memory, bias: u64, globals: GoGlobals, offsets: GoOffsets) -> io::Result<Self> {
        let classes = offsets.heap_stats.small_alloc_count.size / 8;
        let table = globals.size_class_to_size.wrapping_add(bias);
        let size_classes = (0..classes)
            .map(|class| memory.unsigned(table + class * 2, 2))
            .collect::<io::Result<_>>()?;
        let mut runtime = Self {
            memory,
            bias,
            globals,
            offsets,
            size_classes,
            wait_reasons: Vec::new(),
        };
        runtime.wait_reasons = runtime.read_wait_reasons().unwrap_or_default();
        Ok(runtime)
    }

    /// Bucket bounds of the runtime's histograms, seconds: lower bound of the first bucket to upper bound of the last.
    pub fn bounds(&self) -> Vec<f64> {
        self.offsets
            .time_histogram
            .buckets
            .bounds_ns()
            .into_iter()
            .map(|bound| bound as f64 / 1e9)
            .collect()
    }

    /// Whether the runtime has started: before schedinit there are no Ps and nothing to read.
    pub fn is_started(&self) -> bool {
        self.memory
            .unsigned(self.at(self.globals.gomaxprocs), 4)
            .is_ok_and(|procs| procs > 0)
    }

    /// Reads everything. The parts are read one after the other, not at one instant.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        let heap = self.heap_stats()?;
        let (globals, offsets) = (&self.globals, &self.offsets);
        let memstats = |field: &FieldLoc| self.field(globals.memstats, field);
        let controller = |field: &FieldLoc| self.field(globals.gc_controller, field);
        let system = [
            &offsets.memstats.stacks_sys,
            &offsets.memstats.mspan_sys,
            &offsets.memstats.mcache_sys,
            &offsets.memstats.buckhash_sys,
            &offsets.memstats.gc_misc_sys,
            &offsets.memstats.other_sys,
        ];
        let system: u64 = system.into_iter().map(memstats).sum::<io::Result<u64>>()?;
        let limit = offsets
            .gc_controller
            .memory_limit
            .as_ref()
            .map(controller)
            .transpose()?;
        let sched = |field: &Option<FieldLoc>| field.as_ref().map(|field| self.histogram(field)).transpose();
        let both = |gc: &Option<FieldLoc>, other: &Option<FieldLoc>| -> io::Result<Option<[TimeHistogram; 2]>> {
            Ok(sched(gc)?.zip(sched(other)?).map(|(gc, other)| [gc, other]))
        };
        let goal = self.heap_goal(limit)?;
        Ok(Snapshot {
            goroutines: self.goroutines()?,
            goroutines_created: self.goroutines_created()?,
            gomaxprocs: self.memory.unsigned(self.at(globals.gomaxprocs), 4)?,
            threads: self.threads()?,
            c_calls: self.c_calls()?,
            gogc: gogc(controller(&offsets.gc_controller.gc_percent)? as u32 as i32),
            memory_limit: limit.and_then(bounded),
            heap_goal: goal.and_then(|(goal, _)| bounded(goal)),
            goal_by_limit: goal.and_then(|(_, by_limit)| by_limit),
            gc_cycles: memstats(&offsets.memstats.numgc)?,
            gc_cycles_forced: memstats(&offsets.memstats.numforcedgc)?,
            allocated_bytes: heap.allocated_bytes,
            allocated_objects: heap.allocated_objects,
            stack_bytes: heap.stacks,
            released_bytes: heap.released,
            other_bytes: heap.committed.wrapping_add(system).saturating_sub(heap.stacks),
            schedule: sched(&offsets.sched.time_to_run)?,
            pause_total: both(&offsets.sched.stw_total_gc, &offsets.sched.stw_total_other)?,
            pause_stopping: both(&offsets.sched.stw_stopping_gc, &offsets.sched.stw_stopping_other)?,
            cpu: self.cpu()?,
            between: self.between()?,
        })
    }

    /// Starts of goroutines so far, by the runtime's sample of one in eight (gTrackingPeriod); None in a version without it.
    pub fn starts(&self) -> io::Result<Option<u64>> {
        let Some(field) = &self.offsets.sched.time_to_run else {
            return Ok(None);
        };
        let TimeHistogram {
            underflow,
            counts,
            overflow,
        } = self.histogram(field)?;
        let sampled = counts
            .iter()
            .fold(underflow.wrapping_add(overflow), |sum, count| sum.wrapping_add(*count));
        Ok(Some(sampled.wrapping_mul(PERIOD)))
    }

    fn cpu(&self) -> io::Result<Option<[u64; CPU_CLASSES.len()]>> {
        let work = &self.offsets.work;
        let fields = [
            &work.cpu_gc_assist,
            &work.cpu_gc_dedicated,
            &work.cpu_gc_idle,
            &work.cpu_gc_pause,
            &work.cpu_scavenge_assist,
            &work.cpu_scavenge_background,
            &work.cpu_idle,
            &work.cpu_user,
        ];
        let mut times = [0; CPU_CLASSES.len()];
        for (time, field) in times.iter_mut().zip(fields) {
            let Some(field) = field else { return Ok(None) };
            *time = self.field(self.globals.work, field)?;
        }
        Ok(Some(times))
    }

    fn at(&self, address: u64) -> u64 {
        address.wrapping_add(self.bias)
    }

    fn field(&self, global: u64, field: &FieldLoc) -> io::Result<u64> {
        self.memory
            .unsigned(self.at(global).wrapping_add(field.offset), field.size.min(8))
    }

    /// As runtime.gcount (proc.go): all that were ever made, less the dead ones and the runtime's own.
    fn goroutines(&self) -> io::Result<u64> {
        let (globals, sched, p) = (&self.globals, &self.offsets.sched, &self.offsets.p);
        let signed = |address: u64, size: u64| -> io::Result<i64> {
            let value = self.memory.unsigned(address, size)?;
            Ok(if size == 4 {
                i64::from(value as u32 as i32)
            } else {
                value as i64
            })
        };
        let mut count = self.memory.word(self.at(globals.allglen))? as i64;
        let dead = [
            Some(&sched.ngsys),
            sched.g_free_n.as_ref(),
            sched.g_free_stack_size.as_ref(),
            sched.g_free_no_stack_size.as_ref(),
        ];
        for field in dead.into_iter().flatten() {
            count = count.wrapping_sub(signed(self.at(globals.sched).wrapping_add(field.offset), field.size)?);
        }
        if let Some(free) = p.g_free_n.as_ref().or(p.g_free_size.as_ref()) {
            for pointer in self.procs()? {
                count = count.wrapping_sub(signed(pointer.wrapping_add(free.offset), free.size)?);
            }
        }
        Ok(count.max(1) as u64)
    }

    /// As /sched/goroutines-created (metrics.go, schedStatsAggregate).
    fn goroutines_created(&self) -> io::Result<Option<u64>> {
        let (Some(sched), Some(p)) = (
            &self.offsets.sched.goroutines_created,
            &self.offsets.p.goroutines_created,
        ) else {
            return Ok(None);
        };
        let mut created = self.field(self.globals.sched, sched)?;
        for pointer in self.procs()? {
            created = created.wrapping_add(self.memory.word(pointer.wrapping_add(p.offset))?);
        }
        Ok(Some(created))
    }

    /// Addresses of all Ps.
    fn procs(&self) -> io::Result<Vec<u64>> {
        let (base, length) = (
            self.memory.word(self.at(self.globals.allp))?,
            self.memory.word(self.at(self.globals.allp).wrapping_add(8))?,
        );
        self.memory.words(base, length.min(MAX_PROCS) as usize)
    }

    fn histogram(&self, field: &FieldLoc) -> io::Result<TimeHistogram> {
        let layout = &self.offsets.time_histogram;
        let base = self.at(self.globals.sched).wrapping_add(field.offset);
        let at = |field: &FieldLoc| base.wrapping_add(field.offset);
        Ok(TimeHistogram {
            underflow: self.memory.word(at(&layout.underflow))?,
            counts: self.memory.words(at(&layout.counts), layout.buckets.count)?,
            overflow: layout
                .overflow
                .as_ref()
                .map_or(Ok(0), |overflow| self.memory.word(at(overflow)))?,
        })
    }

    /// memstats.heapStats: three deltas whose sum is the truth (consistentHeapStats.unsafeRead).
    fn heap_stats(&self) -> io::Result<HeapStats> {
        let fields = &self.offsets.heap_stats;
        let size = self.offsets.heap_stats_size;
        let base = self
            .at(self.globals.memstats)
            .wrapping_add(self.offsets.memstats.heap_stats.offset);
        let words = self.memory.words(base, (size * 3 / 8) as usize)?;
        let sum = |offset: u64| {
            (0..3).fold(0u64, |sum, part| {
                sum.wrapping_add(words[((part * size + offset) / 8) as usize])
            })
        };
        let mut stats = HeapStats {
            committed: sum(fields.committed.offset),
            stacks: sum(fields.in_stacks.offset),
            released: sum(fields.released.offset),
            allocated_bytes: sum(fields.large_alloc.offset),
            allocated_objects: sum(fields.large_alloc_count.offset),
        };
        for (class, bytes) in self.size_classes.iter().enumerate() {
            let count = sum(fields.small_alloc_count.offset + class as u64 * 8);
            stats.allocated_objects = stats.allocated_objects.wrapping_add(count);
            stats.allocated_bytes = stats.allocated_bytes.wrapping_add(count.wrapping_mul(*bytes));
        }
        Ok(stats)
    }

    /// runtime.waitReasonStrings: what each number means in this very version.
    fn read_wait_reasons(&self) -> io::Result<Vec<String>> {
        let Some(table) = self.globals.wait_reason_strings else {
            return Ok(Vec::new());
        };
        let headers = self
            .memory
            .words(self.at(table.address), (table.size / 8).min(512) as usize)?;
        headers
            .chunks_exact(2)
            .map(|header| {
                let mut bytes = vec![0; header[1].min(128) as usize];
                if !bytes.is_empty() {
                    self.memory.read(header[0], &mut bytes)?;
                }
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            })
            .collect()
    }
}

/// More Ps than any machine has: a length beyond it is not one.
const MAX_PROCS: u64 = 1 << 14;

struct HeapStats {
    committed: u64,
    stacks: u64,
    released: u64,
    allocated_bytes: u64,
    allocated_objects: u64,
}
