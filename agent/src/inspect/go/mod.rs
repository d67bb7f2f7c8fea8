//! A Go executable: build info → version, DWARF → offsets, pclntab → functions → probe sites.

pub(super) mod buildinfo;
pub(super) mod dwarf;
pub(super) mod globals;
pub(super) mod histogram;
pub(super) mod hooks;
pub(super) mod offsets;
pub(super) mod pclntab;
pub(super) mod tls;

use std::collections::BTreeMap;

use self::buildinfo::GoVersion;
use self::dwarf::{Sections, Types};
use self::globals::GoGlobals;
use self::hooks::GoHook;
use self::offsets::GoOffsets;
use self::pclntab::GoSymbolizer;
use self::tls::TlsG;
use super::elf::{Binary, ElfFacts};
use super::{InspectError, ProbeSite, SiteError};

/// The Go toolchains whose binaries are read: the register ABI and its pclntab came with go1.18.
pub const GO_SUPPORTED: &str = "go1.18 to go1.27";
const MINOR_SUPPORTED: std::ops::RangeInclusive<u32> = 18..=27;

/// What is known of a Go executable.
#[derive(Debug)]
pub struct GoImage {
    pub elf: ElfFacts,
    pub version: GoVersion,
    /// The main module's path.
    pub module: Option<String>,
    /// cgo is linked in: `runtime.iscgo` where it can be read, else the build setting CGO_ENABLED.
    pub cgo: bool,
    /// No .symtab.
    pub stripped: bool,
    /// Struct offsets; an error without DWARF.
    pub offsets: Result<GoOffsets, InspectError>,
    /// Addresses of the runtime's variables; an error in a stripped binary.
    pub globals: Result<GoGlobals, InspectError>,
    /// Attach points by hook.
    pub sites: BTreeMap<GoHook, Result<ProbeSite, SiteError>>,
    /// Where a thread's current g is, relative to fsbase.
    pub tls_g: Result<TlsG, SiteError>,
    pub symbols: GoSymbolizer,
}

pub(super) use self::buildinfo::is_marked;

pub(super) fn inspect(binary: &Binary<'_>) -> Result<Option<GoImage>, InspectError> {
    let Some(info) = buildinfo::read(binary)? else {
        return Ok(None);
    };
    let version = info.version;
    if version.major != 1 || !MINOR_SUPPORTED.contains(&version.minor) {
        return Err(InspectError::UnsupportedVersion {
            runtime: "Go",
            found: version.raw,
            supported: GO_SUPPORTED,
        });
    }
    if binary.facts.machine != object::elf::EM_X86_64.0 {
        return Err(InspectError::UnsupportedMachine {
            runtime: "Go",
            machine: format!("e_machine {}", binary.facts.machine),
        });
    }
    let symbols = pclntab::read(binary)?;
    let sections = Sections::of(binary);
    let types = sections
        .as_ref()
        .map(Types::index)
        .transpose()
        .map_err(|_| InspectError::Malformed { part: "DWARF" });
    let (types, offsets) = match types {
        Ok(Some(types)) => {
            let offsets = GoOffsets::read(&types);
            (Some(types), offsets)
        }
        Ok(None) => (None, Err(InspectError::NoDwarf)),
        Err(e) => (None, Err(e)),
    };
    let globals = GoGlobals::read(binary, types.as_ref());
    let is_cgo = globals
        .as_ref()
        .ok()
        .map(|g| matches!(binary.read(g.iscgo, 1), Some([1])));
    Ok(Some(GoImage {
        elf: binary.facts.clone(),
        module: info.module,
        cgo: is_cgo.unwrap_or(info.cgo_enabled),
        stripped: !binary.has_section(".symtab"),
        offsets,
        globals,
        sites: hooks::sites(binary, &symbols),
        tls_g: tls::find(binary, &symbols),
        symbols,
        version,
    }))
}
