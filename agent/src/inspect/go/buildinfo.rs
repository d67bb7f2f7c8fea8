//! The build info that the Go linker embeds: toolchain version, module, build settings.
//!
//! Format: go1.26, debug/buildinfo/buildinfo.go, `readRawBuildInfo`.

use std::fmt;

use super::super::InspectError;
use super::super::elf::Binary;
use super::super::source::{Bytes, Windows};

/// A Go toolchain's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoVersion {
    pub major: u32,
    pub minor: u32,
    /// 0 for a development or pre-release version.
    pub patch: u32,
    /// Neither a development version nor a pre-release.
    pub is_release: bool,
    /// GOEXPERIMENT, as far as it differs from the version's defaults.
    pub experiments: Vec<String>,
    /// As the linker wrote it, such as `go1.26.8 X:greenteagc`.
    pub raw: String,
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

/// What build info holds of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BuildInfo {
    pub(super) version: GoVersion,
    /// The main module's path, else the main package's.
    pub(super) module: Option<String>,
    /// The CGO_ENABLED build setting.
    pub(super) cgo_enabled: bool,
}

const MAGIC: &[u8] = b"\xff Go buildinf:";
const ALIGN: usize = 16;
const HEADER: usize = 32;
const INLINE_STRINGS: u8 = 2;
/// Module lists of the largest binaries are some 100 KB.
const MAX_STRING: usize = 1 << 20;
const MAX_SECTION: u64 = 4 << 20;

/// Whether the magic stands anywhere in a file that can't be parsed further.
pub(in crate::inspect) fn is_marked(bytes: &dyn Bytes) -> bool {
    let file = Windows::new(bytes);
    let found = file.scan(0..file.size(), 0, |_, bytes| {
        let mut chunks = bytes.chunks(ALIGN);
        chunks.any(|chunk| chunk.starts_with(MAGIC)).then_some(())
    });
    found.is_some()
}

/// Ok(None) when the binary has no build info: it isn't Go's.
pub(super) fn read(binary: &Binary<'_>) -> Result<Option<BuildInfo>, InspectError> {
    let broken = InspectError::Malformed { part: "Go build info" };
    let Some(blob) = find(binary) else {
        return if binary.has_section(".go.buildinfo") {
            Err(broken)
        } else {
            Ok(None)
        };
    };
    let (version, modules) = strings(binary, &blob).ok_or(broken.clone())?;
    let version = parse_version(&version).ok_or_else(|| InspectError::Obfuscated {
        sign: format!("its build info calls the version {version:?}"),
    })?;
    Ok(Some(summarise(version, &modules)))
}

/// The bytes from the magic on, in the section of that name or at the start of the data segment.
fn find(binary: &Binary<'_>) -> Option<Vec<u8>> {
    let data = match binary.section(".go.buildinfo") {
        Some(section) => {
            let range = section.file_range()?;
            binary
                .file
                .copy(range.start, (range.end - range.start).min(MAX_SECTION))?
        }
        None => {
            let segment = binary.facts.segments.iter().find(|s| s.writable && s.file_size > 0)?;
            // The linker puts it near the segment's beginning (cmd/link/internal/ld, Link.buildinfo).
            binary.read_up_to(segment.vaddr, 1 << 20)?
        }
    };
    let at = (0..data.len())
        .step_by(ALIGN)
        .find(|at| data[*at..].starts_with(MAGIC))?;
    Some(data[at..].to_vec())
}

fn strings(binary: &Binary<'_>, blob: &[u8]) -> Option<(String, String)> {
    let header = blob.get(..HEADER)?;
    if header[15] & INLINE_STRINGS != 0 {
        let (version, rest) = varint_string(blob.get(HEADER..)?)?;
        let (modules, _) = varint_string(rest)?;
        return Some((text(version)?, module_text(modules)));
    }
    // Before go1.18: addresses of two Go string headers.
    let pointed = |at: usize| -> Option<Vec<u8>> {
        let header = u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?);
        let len = binary.word(header.checked_add(8)?)?;
        (len <= MAX_STRING as u64).then(|| binary.read(binary.pointer(header)?, len))?
    };
    Some((
        text(&pointed(16)?)?,
        pointed(24).as_deref().map(module_text).unwrap_or_default(),
    ))
}

fn varint_string(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len = 0usize;
    for (i, byte) in data.iter().take(5).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let rest = &data[i + 1..];
            return (len <= MAX_STRING && len <= rest.len()).then(|| rest.split_at(len));
        }
    }
    None
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// Without the 16-byte sentinels around it (cmd/go/internal/modload, infoStart and infoEnd).
fn module_text(bytes: &[u8]) -> String {
    let framed = bytes.len() >= 33 && bytes[bytes.len() - 17] == b'\n';
    let inner = if framed { &bytes[16..bytes.len() - 16] } else { &[] };
    String::from_utf8_lossy(inner).into_owned()
}

fn summarise(mut version: GoVersion, modules: &str) -> BuildInfo {
    let field = |key: &str| {
        let mut lines = modules.lines().filter_map(|l| l.strip_prefix(key)?.strip_prefix('\t'));
        lines.next().map(|v| v.split('\t').next().unwrap_or(v).to_owned())
    };
    let set = modules.lines().find_map(|l| l.strip_prefix("build\tGOEXPERIMENT="));
    version.experiments.extend(set.into_iter().flat_map(names));
    version.experiments.sort_unstable();
    version.experiments.dedup();
    BuildInfo {
        version,
        module: field("mod").or_else(|| field("path")),
        cgo_enabled: modules.lines().any(|l| l == "build\tCGO_ENABLED=1"),
    }
}

fn names(list: &str) -> impl Iterator<Item = String> {
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned)
}

/// `go1.26.8`, `go1.27rc1`, `go1.26.8 X:…`, `devel go1.28-0123abcd …`.
pub(super) fn parse_version(raw: &str) -> Option<GoVersion> {
    // ` X:` until go1.25, `-X:` since go1.26 (cmd/link/internal/ld/main.go).
    let (named, listed) = match raw.split_once("X:") {
        Some((named, listed)) => (named.trim_end_matches('-'), listed.split_whitespace().next()),
        None => (raw, None),
    };
    let word = named.split_whitespace().find_map(|w| w.strip_prefix("go"))?;
    let mut parts = word.splitn(3, '.');
    let number = |part: Option<&str>| -> Option<u32> {
        let part = part?;
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    };
    Some(GoVersion {
        major: number(parts.next())?,
        minor: number(parts.next())?,
        patch: number(parts.next()).unwrap_or(0),
        is_release: raw.starts_with("go") && word.bytes().all(|b| b.is_ascii_digit() || b == b'.'),
        experiments: listed.into_iter().flat_map(names).collect(),
        raw: raw.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let check = |raw: &str, expected: Option<(u32, u32, u32)>| {
            assert_eq!(
                parse_version(raw).map(|v| (v.major, v.minor, v.patch)),
                expected,
                "{raw}"
            );
        };
        check("go1.26.8", Some((1, 26, 8)));
        check("go1.18", Some((1, 18, 0)));
        check("go1.27rc1", Some((1, 27, 0)));
        check("go1.26.8 X:greenteagc", Some((1, 26, 8)));
        check("devel go1.28-0123abcd Mon Jan 2", Some((1, 28, 0)));
        check("", None);
        check("go", None);
        check("gone.wild", None);
        check("go99999999999.1", None);
    }

    #[test]
    fn settings() {
        let modules = "path\texample.org/shop/cmd/api\nmod\texample.org/shop\t(devel)\t\nbuild\tCGO_ENABLED=1\n";
        let version = parse_version("go1.22.1").expect("a version");
        let info = summarise(version.clone(), modules);
        assert_eq!(
            (info.module.as_deref(), info.cgo_enabled),
            (Some("example.org/shop"), true)
        );
        assert_eq!(summarise(version, "").module, None);
        let version = parse_version("go1.26.8 X:greenteagc").expect("a version");
        assert!(version.is_release);
        let info = summarise(version, "build\tGOEXPERIMENT=arenas,greenteagc\n");
        assert_eq!(info.version.experiments, ["arenas", "greenteagc"]);
        let version = parse_version("go1.27.4-X:nogreenteagc,simd").expect("a version");
        assert_eq!((version.patch, version.is_release), (4, true));
        assert_eq!(version.experiments, ["nogreenteagc", "simd"]);
    }

    #[test]
    fn lengths_are_not_believed() {
        let check = |data: &[u8], expected: Option<&[u8]>| assert_eq!(varint_string(data).map(|(s, _)| s), expected);
        check(b"\x03abc", Some(b"abc"));
        check(b"\x03ab", None);
        check(b"\xff\xff\xff\xff\xff\xff", None);
        check(b"\x80", None);
        check(b"", None);
    }
}
