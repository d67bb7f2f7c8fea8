//! A Go executable: build info → version, DWARF or table → offsets, pclntab → functions → probe sites and,
//! in a stripped binary, globals.

pub(super) mod buildinfo;
mod code;
pub(super) mod dwarf;
pub(super) mod globals;
pub(super) mod histogram;
pub(super) mod hooks;
pub(super) mod layouts;
pub(super) mod offsets;
pub(super) mod pclntab;
#[cfg(any(test, fuzzing))]
pub(super) mod readers;
#[cfg(test)]
mod sample;
pub(super) mod tls;

use std::{collections::BTreeMap, fs::File};

use self::buildinfo::GoVersion;
use self::dwarf::{Sections, Types};
use self::globals::{GlobalsSource, GoGlobals};
use self::hooks::GoHook;
use self::layouts::{GoFields, OffsetsSource};
use self::offsets::GoOffsets;
use self::pclntab::GoSymbolizer;
use self::tls::TlsG;
use super::arch::Arch;
use super::elf::{Binary, ElfFacts, MAX_SECTION};
use super::{Bytes, Frame, Image, InspectError, ProbeSite, ProcessRuntime, Recogniser, SiteError};

/// The Go toolchains whose binaries are known. A newer one's are read as far as they say themselves what is where.
pub const GO_SUPPORTED: &str = "go1.18 to go1.27";
/// The register ABI and its pclntab came with it.
const OLDEST_MINOR: u32 = 18;
const NEWEST_MINOR: u32 = 27;
/// Bytes of DWARF that is read though the table has the version, and of any that is.
const LARGE_DWARF: u64 = 12 << 20;
const MAX_DWARF: u64 = MAX_SECTION;

/// What is known of a Go executable.
#[derive(Debug)]
pub struct GoImage {
    pub elf: ElfFacts,
    pub arch: Arch,
    pub version: GoVersion,
    /// The main module's path.
    pub module: Option<String>,
    /// cgo is linked in: `runtime.iscgo` where it can be read, else the build setting CGO_ENABLED.
    pub cgo: bool,
    /// No .symtab.
    pub stripped: bool,
    /// Struct offsets; an error without DWARF in a version that the table hasn't got.
    pub offsets: Result<GoOffsets, InspectError>,
    pub offsets_source: OffsetsSource,
    /// Addresses of the runtime's variables; an error where a stripped binary's code isn't as known.
    pub globals: Result<GoGlobals, InspectError>,
    pub globals_source: GlobalsSource,
    /// Attach points by hook.
    pub sites: BTreeMap<GoHook, Result<ProbeSite, SiteError>>,
    /// Where a thread's current g is.
    pub tls_g: Result<TlsG, SiteError>,
    pub symbols: GoSymbolizer,
}

pub(super) const RUNTIME: Recogniser = Recogniser {
    inspect: |binary| Ok(inspect(binary)?.map(|image| -> Box<dyn Image> { Box::new(image) })),
    foreign,
    other: other_toolchain,
    in_object: |binary| {
        let version = version(binary).ok()??;
        Some(format!("a Go runtime ({version})"))
    },
};

impl Image for GoImage {
    fn elf(&self) -> &ElfFacts {
        &self.elf
    }

    fn name(&self) -> String {
        self.version.raw.clone()
    }

    fn version(&self) -> Option<&str> {
        Some(&self.version.raw)
    }

    fn process_runtime(&self) -> ProcessRuntime {
        ProcessRuntime {
            language: "go",
            name: "go",
            version: Some(self.version.raw.clone()),
            description: None,
        }
    }

    fn found_by(&self) -> Option<String> {
        let offsets = match self.offsets_source {
            OffsetsSource::Dwarf => "fields from its DWARF",
            OffsetsSource::Table => "fields from the table for its version",
        };
        let globals = match self.globals_source {
            GlobalsSource::Symbols => "variables from its symbols",
            GlobalsSource::Code => "variables from its instructions",
        };
        Some(format!("{offsets}, {globals}; verified in each process before use"))
    }

    fn gaps(&self) -> Vec<String> {
        let error = self.tls_g.as_ref().err();
        let gap = error.map(|error| format!("goroutines of sockets are not reported: {error}"));
        gap.into_iter().collect()
    }

    fn unreadable(&self) -> Option<&InspectError> {
        self.offsets.as_ref().err().or(self.globals.as_ref().err())
    }

    fn has_symbols(&self) -> bool {
        true
    }

    fn frame(&self, exe: &File, vaddr: u64) -> Option<Frame> {
        self.symbols.lookup(exe, vaddr)
    }

    fn start(&self, exe: &File, vaddr: u64) -> Option<u64> {
        self.symbols.start(exe, vaddr)
    }
}

/// One for a machine of 32 bits, or of the other byte order.
fn foreign(bytes: &dyn Bytes) -> Option<InspectError> {
    buildinfo::is_marked(bytes).then(|| InspectError::UnsupportedMachine {
        runtime: "Go",
        machine: "32 bit or big endian".into(),
        supported: "linux/amd64 or linux/arm64",
    })
}

/// What offsets.json is made of: version, experiments and the DWARF's answers for every field that is read. Any machine.
pub(super) fn fields(binary: &Binary<'_>) -> Result<(GoVersion, GoFields), InspectError> {
    let malformed = InspectError::Malformed { part: "DWARF" };
    let info = buildinfo::read(binary)?.ok_or(InspectError::Malformed { part: "Go build info" })?;
    let sections = Sections::of(binary).ok_or(malformed.clone())?;
    let types = Types::index(&sections).map_err(|_| malformed)?;
    Ok((info.version, layouts::record(&types)?))
}

/// The toolchain's version; None when it is not Go's.
fn version(binary: &Binary<'_>) -> Result<Option<GoVersion>, InspectError> {
    Ok(buildinfo::read(binary)?.map(|info| info.version))
}

/// A toolchain that compiles Go, but with another runtime: gccgo keeps its export data (gcc/go/go-backend.c, GO_EXPORT_SECTION_NAME),
/// TinyGo has functions of its own (tinygo, src/internal/task and src/runtime, asm_*.S), where symbols are left.
fn other_toolchain(binary: &Binary<'_>) -> Option<InspectError> {
    let gccgo = binary.has_section(".go_export").then_some("gccgo");
    let tinygo = || binary.symbols(|symbol| symbol.name.starts_with("tinygo_").then_some("TinyGo"));
    gccgo.or_else(tinygo).map(|toolchain| InspectError::OtherToolchain {
        toolchain,
        supported: GO_SUPPORTED,
    })
}

pub(super) fn inspect(binary: &Binary<'_>) -> Result<Option<GoImage>, InspectError> {
    let Some(info) = buildinfo::read(binary)? else {
        return Ok(None);
    };
    let version = info.version;
    let unsupported = || InspectError::UnsupportedVersion {
        runtime: "Go",
        found: version.raw.clone(),
        supported: GO_SUPPORTED,
    };
    if version.major != 1 || version.minor < OLDEST_MINOR {
        return Err(unsupported());
    }
    let arch = Arch::of(binary.facts.machine).ok_or_else(|| InspectError::UnsupportedMachine {
        runtime: "Go",
        machine: format!("e_machine {}", binary.facts.machine),
        supported: "linux/amd64 or linux/arm64",
    })?;
    let symbols = match pclntab::read(binary, &version) {
        // A table of another form is a newer version's right.
        Err(_) if version.minor > NEWEST_MINOR => return Err(unsupported()),
        symbols => symbols?,
    };
    let of_release = layouts::of_release(&version, arch.name());
    // What DWARF says is in the table as well, for a release's version: that takes less than some hundred MB would.
    let sections = match Sections::size(binary) {
        Some(size) if size > LARGE_DWARF && of_release.is_ok() => None,
        Some(size) if size > MAX_DWARF => {
            return Err(InspectError::TooLarge {
                what: "bytes of DWARF",
                found: size,
                most: MAX_DWARF,
            });
        }
        _ => Sections::of(binary),
    };
    let types = sections
        .as_ref()
        .map(Types::index)
        .transpose()
        .map_err(|_| InspectError::Malformed { part: "DWARF" });
    let (types, offsets, offsets_source) = match types {
        Ok(Some(types)) => {
            let offsets = GoOffsets::read(&types);
            (Some(types), offsets, OffsetsSource::Dwarf)
        }
        Ok(None) => (None, of_release, OffsetsSource::Table),
        Err(e) => (None, Err(e), OffsetsSource::Dwarf),
    };
    let (globals, globals_source) = match GoGlobals::read(binary, types.as_ref()) {
        Some(globals) => (globals, GlobalsSource::Symbols),
        None => {
            let found = offsets.as_ref().map_err(InspectError::clone);
            let found = found.and_then(|offsets| code::find(binary, arch, &symbols, offsets, &version));
            (found, GlobalsSource::Code)
        }
    };
    let is_cgo = globals
        .as_ref()
        .ok()
        .map(|g| binary.read(g.iscgo, 1).is_some_and(|flag| flag == [1]));
    let is_cgo = is_cgo.unwrap_or(info.cgo_enabled);
    Ok(Some(GoImage {
        elf: binary.facts.clone(),
        arch,
        module: info.module,
        cgo: is_cgo,
        stripped: !binary.has_section(".symtab"),
        offsets,
        offsets_source,
        globals,
        globals_source,
        sites: hooks::sites(binary, arch, &symbols),
        tls_g: match arch {
            Arch::Amd64 => tls::find(binary, &symbols),
            Arch::Arm64 => tls::on_arm64(is_cgo),
        },
        symbols,
        version,
    }))
}
