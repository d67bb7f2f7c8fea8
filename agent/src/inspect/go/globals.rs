//! Link-time addresses of the runtime's global variables.

use std::collections::HashMap;

use super::super::InspectError;
use super::super::elf::Binary;
use super::GO_SUPPORTED;
use super::dwarf::Types;

/// Link-time addresses (add the load bias) of variables of package runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoGlobals {
    /// runtime.sched, a schedt.
    pub sched: u64,
    pub work: u64,
    /// runtime.memstats, an mstats.
    pub memstats: u64,
    pub gc_controller: u64,
    /// uintptr: goroutines ever allocated, dead ones included.
    pub allglen: u64,
    /// Slice of *g; only the runtime may append, its length is allglen.
    pub allgs: u64,
    /// Slice of *p: pointer, length, capacity.
    pub allp: u64,
    /// int32.
    pub gomaxprocs: u64,
    /// Go string: pointer, length.
    pub build_version: u64,
    /// uint32: _GCoff 0, _GCmark 1, _GCmarktermination 2.
    pub gcphase: u64,
    /// bool: cgo is linked in.
    pub iscgo: u64,
    /// \[N\]uint16: bytes of each size class (runtime.class_to_size until go1.24, then internal/runtime/gc.SizeClassToSize).
    pub size_class_to_size: u64,
    /// The TLS symbol; only in externally linked binaries.
    pub tlsg: Option<u64>,
    /// \[N\]string: the names of the wait reasons, by number.
    pub wait_reason_strings: Option<Table>,
    /// runtime.mheap_, an mheap.
    pub heap: Option<u64>,
    /// runtime.sweep, a sweepdata.
    pub sweep: Option<u64>,
    pub scavenge: Option<u64>,
    /// runtime.gcCPULimiter; go1.19 and later.
    pub limiter: Option<u64>,
    /// runtime.allm: the first m of all, linked by m.alllink.
    pub allm: Option<u64>,
    /// runtime.ncgocall, a uint64: calls into C by threads that ended.
    pub c_calls: Option<u64>,
}

/// Where the globals of an image come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobalsSource {
    /// .symtab or DWARF.
    Symbols,
    /// The instructions of functions that refer to them.
    Code,
}

/// A variable and its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    pub address: u64,
    pub size: u64,
}

impl GoGlobals {
    /// From .symtab, else from DWARF; None when there is neither.
    pub(super) fn read(binary: &Binary<'_>, types: Option<&Types<'_>>) -> Option<Result<Self, InspectError>> {
        let mut found: HashMap<&str, Table> = HashMap::new();
        binary.each_symbol(|symbol| {
            if let Some(name) = NAMES.into_iter().find(|name| *name == symbol.name) {
                let (address, size) = (symbol.vaddr, symbol.size);
                found.insert(name, Table { address, size });
            }
        });
        if found.is_empty() && types.is_none() {
            return None;
        }
        Some(Self::named(types, &found))
    }

    fn named(types: Option<&Types<'_>>, found: &HashMap<&str, Table>) -> Result<Self, InspectError> {
        let symbol = |name: &str| found.get(name).map(|symbol| symbol.address);
        let maybe = |name: &str| symbol(name).or_else(|| types?.address(name));
        let need = |name: &str| {
            maybe(name).ok_or_else(|| InspectError::UnexpectedLayout {
                what: name.into(),
                detail: "no such variable".into(),
                supported: GO_SUPPORTED,
            })
        };
        Ok(Self {
            sched: need("runtime.sched")?,
            work: need("runtime.work")?,
            memstats: need("runtime.memstats")?,
            gc_controller: need("runtime.gcController")?,
            allglen: need("runtime.allglen")?,
            allgs: need("runtime.allgs")?,
            allp: need("runtime.allp")?,
            gomaxprocs: need("runtime.gomaxprocs")?,
            build_version: need("runtime.buildVersion")?,
            gcphase: need("runtime.gcphase")?,
            iscgo: need("runtime.iscgo")?,
            size_class_to_size: maybe(SIZE_CLASSES[0]).map_or_else(|| need(SIZE_CLASSES[1]), Ok)?,
            tlsg: symbol("runtime.tlsg"),
            wait_reason_strings: found.get("runtime.waitReasonStrings").copied(),
            heap: maybe("runtime.mheap_"),
            sweep: maybe("runtime.sweep"),
            scavenge: maybe("runtime.scavenge"),
            limiter: maybe("runtime.gcCPULimiter"),
            allm: maybe("runtime.allm"),
            c_calls: maybe("runtime.ncgocall"),
        })
    }
}

const SIZE_CLASSES: [&str; 2] = ["internal/runtime/gc.SizeClassToSize", "runtime.class_to_size"];
const NAMES: [&str; 21] = [
    "runtime.waitReasonStrings",
    "runtime.sched",
    "runtime.work",
    "runtime.memstats",
    "runtime.gcController",
    "runtime.allglen",
    "runtime.allgs",
    "runtime.allp",
    "runtime.gomaxprocs",
    "runtime.buildVersion",
    "runtime.gcphase",
    "runtime.iscgo",
    "runtime.tlsg",
    "runtime.mheap_",
    "runtime.sweep",
    "runtime.scavenge",
    "runtime.gcCPULimiter",
    "runtime.allm",
    "runtime.ncgocall",
    SIZE_CLASSES[0],
    SIZE_CLASSES[1],
];
