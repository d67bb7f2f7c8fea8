//! Where the locations of fields come from: a binary's own DWARF, or offsets.json, the table of what Go's releases have.
//!
//! The table is made by `cargo xtask offsets`, which has the same code read the DWARF of real builds and keeps what was
//! asked for: a field that is added to [`GoOffsets`](super::offsets::GoOffsets) gets into it by running that again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::super::InspectError;
use super::GO_SUPPORTED;
use super::buildinfo::GoVersion;
use super::dwarf::{FieldLoc, Types};
use super::offsets::GoOffsets;

/// Answers where the fields of the runtime's types are.
pub(crate) trait Layouts {
    /// The field at `path` (names joined by dots) of a named type, or of a variable's type.
    fn field(&self, root: &str, path: &str) -> Option<FieldLoc>;
    /// Size of a named type in bytes.
    fn size_of(&self, root: &str) -> Option<u64>;
    /// Size in bytes of one element of the array field at `path`.
    fn element_size(&self, root: &str, path: &str) -> Option<u64>;
}

/// Type → path → (offset, size), bytes. Path "" is the type itself, `path[]` an array's element.
pub type GoFields = BTreeMap<String, BTreeMap<String, (u64, u64)>>;

/// Where the offsets of an image come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetsSource {
    /// The binary's own DWARF.
    Dwarf,
    /// offsets.json, by version, architecture and experiments.
    Table,
}

impl Layouts for Types<'_> {
    fn field(&self, root: &str, path: &str) -> Option<FieldLoc> {
        Types::field(self, root, path)
    }

    fn size_of(&self, root: &str) -> Option<u64> {
        Types::size_of(self, root)
    }

    fn element_size(&self, root: &str, path: &str) -> Option<u64> {
        Types::element_size(self, root, path)
    }
}

impl Layouts for GoFields {
    fn field(&self, root: &str, path: &str) -> Option<FieldLoc> {
        let (offset, size) = *self.get(root)?.get(path)?;
        Some(FieldLoc { offset, size })
    }

    fn size_of(&self, root: &str) -> Option<u64> {
        self.field(root, "").map(|all| all.size)
    }

    fn element_size(&self, root: &str, path: &str) -> Option<u64> {
        self.field(root, &format!("{path}[]")).map(|element| element.size)
    }
}

/// Everything that [`GoOffsets`] asks for, as the DWARF answers it.
pub(super) fn record(types: &Types<'_>) -> Result<GoFields, InspectError> {
    let recorder = Recorder {
        types,
        seen: RefCell::default(),
    };
    GoOffsets::read(&recorder)?;
    Ok(recorder.seen.into_inner())
}

struct Recorder<'t, 'd> {
    types: &'t Types<'d>,
    seen: RefCell<GoFields>,
}

impl Recorder<'_, '_> {
    fn note(&self, root: &str, path: &str, offset: u64, size: u64) {
        let mut seen = self.seen.borrow_mut();
        seen.entry(root.to_owned())
            .or_default()
            .insert(path.to_owned(), (offset, size));
    }
}

impl Layouts for Recorder<'_, '_> {
    fn field(&self, root: &str, path: &str) -> Option<FieldLoc> {
        let field = self.types.field(root, path)?;
        self.note(root, path, field.offset, field.size);
        Some(field)
    }

    fn size_of(&self, root: &str) -> Option<u64> {
        let size = self.types.size_of(root)?;
        self.note(root, "", 0, size);
        Some(size)
    }

    fn element_size(&self, root: &str, path: &str) -> Option<u64> {
        let size = self.types.element_size(root, path)?;
        self.note(root, &format!("{path}[]"), 0, size);
        Some(size)
    }
}

/// offsets.json.
#[derive(Debug, Serialize, Deserialize)]
struct Tables {
    tables: Vec<Table>,
}

/// The fields of one minor version's builds.
#[derive(Debug, Serialize, Deserialize)]
struct Table {
    /// 26 of go1.26.
    minor: u32,
    /// The first patch it holds for, and the last; None when the newest that was read is like the first.
    patches: (u32, Option<u32>),
    /// GOARCH.
    arch: Vec<String>,
    /// Values of GOEXPERIMENT that move fields, for builds with all of them; none for ordinary builds.
    with: Vec<String>,
    /// The versions whose builds were read.
    read: Vec<String>,
    /// Values of GOEXPERIMENT that were tried besides and move no field.
    unmoved_by: Vec<String>,
    fields: GoFields,
}

static TABLES: LazyLock<Option<Tables>> = LazyLock::new(|| serde_json::from_str(include_str!("offsets.json")).ok());

/// The offsets of a release, for a binary without DWARF. The error says what is not known.
pub(super) fn of_release(version: &GoVersion, arch: &str) -> Result<GoOffsets, InspectError> {
    let tables = TABLES.as_ref().map_or(&[][..], |tables| &tables.tables);
    lookup(tables, version, arch)
        .map_err(|reason| InspectError::NoOffsets {
            found: version.raw.clone(),
            reason,
            supported: GO_SUPPORTED,
        })
        .and_then(GoOffsets::read)
}

fn lookup<'t>(tables: &'t [Table], version: &GoVersion, arch: &str) -> Result<&'t GoFields, String> {
    if !version.is_release {
        return Err("it is not a release".to_owned());
    }
    let of_minor = tables
        .iter()
        .filter(|table| (1, table.minor) == (version.major, version.minor))
        .filter(|table| table.arch.iter().any(|known| known == arch));
    let of_minor: Vec<&Table> = of_minor.collect();
    let mut of_patch = of_minor
        .iter()
        .filter(|table| table.has_patch(version.patch))
        .peekable();
    if of_patch.peek().is_none() {
        let ranges: Vec<String> = of_minor
            .iter()
            .filter(|table| table.with.is_empty())
            .map(|table| table.range())
            .collect();
        return Err(match ranges.is_empty() {
            true => format!("it has no such release for {arch}"),
            false => format!("it has no such release for {arch}, but {}", ranges.join(", ")),
        });
    }
    let fitting = of_patch.find(|table| table.fits(&version.experiments));
    fitting.map(|table| &table.fields).ok_or_else(|| {
        format!(
            "the experiments it was built with ({}) may move fields, or were not tried",
            version.experiments.join(", ")
        )
    })
}

impl Table {
    fn has_patch(&self, patch: u32) -> bool {
        let (first, last) = self.patches;
        first <= patch && last.is_none_or(|last| patch <= last)
    }

    /// Whether it is for a build with just these experiments.
    fn fits(&self, experiments: &[String]) -> bool {
        let known = |name: &String| self.with.contains(name) || self.unmoved_by.contains(name);
        self.with.iter().all(|name| experiments.contains(name)) && experiments.iter().all(known)
    }

    /// The releases it holds for, as people read it.
    fn range(&self) -> String {
        let (minor, (first, last)) = (self.minor, self.patches);
        match last {
            None => format!("go1.{minor}.{first} and later"),
            Some(last) if last == first => format!("go1.{minor}.{first}"),
            Some(last) => format!("go1.{minor}.{first} to go1.{minor}.{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::go::buildinfo::parse_version;

    #[test]
    fn a_release_has_its_table_and_nothing_else_has() {
        let table = |minor, patches, arch: &str| Table {
            minor,
            patches,
            arch: vec![arch.to_owned()],
            with: Vec::new(),
            read: Vec::new(),
            unmoved_by: vec!["boringcrypto".to_owned()],
            fields: GoFields::from([(format!("{minor} {arch}"), BTreeMap::new())]),
        };
        let tables = [
            table(18, (0, None), "amd64"),
            table(26, (0, Some(3)), "amd64"),
            table(26, (0, None), "arm64"),
            Table {
                with: vec!["greenteagc".to_owned()],
                fields: GoFields::from([("green".to_owned(), BTreeMap::new())]),
                ..table(26, (0, Some(3)), "amd64")
            },
        ];
        let check = |raw: &str, arch: &str, expected: Result<&str, &str>| {
            let version = parse_version(raw).expect("a version");
            match (lookup(&tables, &version, arch), expected) {
                (Ok(fields), Ok(name)) => assert!(fields.contains_key(name), "{raw}: {fields:?}"),
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{raw}: {reason}"),
                (found, expected) => panic!("{raw}: {found:?}, not {expected:?}"),
            }
        };
        check("go1.18", "amd64", Ok("18 amd64"));
        check("go1.18.99", "amd64", Ok("18 amd64"));
        check("go1.26.3", "amd64", Ok("26 amd64"));
        check(
            "go1.26.4",
            "amd64",
            Err("it has no such release for amd64, but go1.26.0 to go1.26.3"),
        );
        check("go1.26.4", "arm64", Ok("26 arm64"));
        check("go1.26.3 (Red Hat 1.26.3-1.el9)", "amd64", Ok("26 amd64"));
        check("go1.18.10 X:boringcrypto", "amd64", Ok("18 amd64"));
        check("go1.18.10 X:boringcrypto,arenas", "amd64", Err("boringcrypto, arenas"));
        check("go1.26.3 X:greenteagc", "amd64", Ok("green"));
        check("go1.26.3 X:boringcrypto,greenteagc", "amd64", Ok("green"));
        check("go1.18.10 X:greenteagc", "amd64", Err("greenteagc"));
        check("go1.28.0", "amd64", Err("no such release"));
        check("go1.26rc1", "amd64", Err("not a release"));
        check("devel go1.28-0123abcd Mon Jan 2", "amd64", Err("not a release"));
    }

    /// What is embedded can be read whole: a field that is needed is in the table of every newest patch.
    #[test]
    fn every_supported_version_has_whole_tables() {
        for minor in 18..=27 {
            for arch in ["amd64", "arm64"] {
                let version = parse_version(&format!("go1.{minor}.99")).expect("a version");
                let offsets = of_release(&version, arch);
                assert!(offsets.is_ok(), "go1.{minor} {arch}: {offsets:?}");
            }
        }
    }

    /// go1.18.3 could not be had, and fields moved about then: the error names it, and what there is beside it.
    #[test]
    fn a_patch_that_was_not_read_has_no_table_and_its_neighbours_are_named() {
        let version = parse_version("go1.18.3").expect("a version");
        let error = of_release(&version, "amd64").expect_err("no table").to_string();
        for part in ["go1.18.3", "go1.18.0 to go1.18.2, go1.18.4 and later"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }

    /// The GC that is not a version's own moves fields, and has a table of its own; the old map moves none.
    #[test]
    fn builds_with_experiments_are_known() {
        for arch in ["amd64", "arm64"] {
            for (raw, moves) in [
                ("go1.24.13 X:noswissmap", false),
                ("go1.25.14 X:noswissmap", false),
                ("go1.25.14 X:greenteagc", true),
                ("go1.26.11-X:nogreenteagc", true),
                ("go1.27.14-X:nogreenteagc", true),
            ] {
                let version = parse_version(raw).expect("a version");
                let ordinary = parse_version(&raw[.."go1.24.13".len()]).expect("a version");
                let found = [&version, &ordinary].map(|version| of_release(version, arch).expect("offsets"));
                assert_eq!(found[0] != found[1], moves, "{raw} {arch}");
            }
        }
    }
}
