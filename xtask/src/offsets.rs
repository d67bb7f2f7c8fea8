//! `cargo xtask offsets`: agent/src/inspect/go/offsets.json, from builds by real toolchains. Go fetches them itself.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{progress, setup, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// Leave out the builds with experiments: binaries with any then get no table
    #[arg(long)]
    no_experiments: bool,
    /// Only this minor version, such as 18, and perhaps others; what there is of the rest stays
    #[arg(long = "minor", value_name = "MINOR")]
    minors: Vec<u32>,
}

/// Minor versions, and the newest patch of each.
const VERSIONS: [(u32, u32); 10] = [
    (18, 10),
    (19, 13),
    (20, 14),
    (21, 13),
    (22, 12),
    (23, 12),
    (24, 13),
    (25, 14),
    (26, 11),
    (27, 4),
];
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// Experiments that programs are shipped with, or that change the runtime; tried where the version has them.
const EXPERIMENTS: [&str; 14] = [
    "arenas",
    "boringcrypto",
    "cgocheck2",
    "goroutineleakprofile",
    "greenteagc",
    "jsonv2",
    "nogreenteagc",
    "norandomizedheapbase64",
    "nosizespecializedmalloc",
    "noswissmap",
    "runtimefreegc",
    "runtimesecret",
    "simd",
    "synctest",
];
const PROGRAM: &str = include_str!("../assets/offsets/main.go");
const TABLE: &str = "agent/src/inspect/go/offsets.json";

/// Type → path → (offset, size), as agent::inspect::GoFields.
type Fields = BTreeMap<String, BTreeMap<String, (u64, u64)>>;

/// What the example prints of an executable.
#[derive(Deserialize)]
struct Read {
    version: String,
    fields: Fields,
}

/// As the agent reads it (agent/src/inspect/go/layouts.rs, `Table`).
#[derive(Clone, Serialize, Deserialize)]
struct Table {
    minor: u32,
    patches: (u32, Option<u32>),
    arch: Vec<String>,
    with: Vec<String>,
    read: Vec<String>,
    unmoved_by: Vec<String>,
    fields: Fields,
}

#[derive(Deserialize)]
struct Tables {
    tables: Vec<Table>,
}

/// Experiments, and what was read with each.
type Moved = Vec<(String, Read)>;

pub(crate) fn run(options: Options) -> Result<()> {
    let tools = setup::ensure(setup::Wanted::default())?;
    progress::step(
        "Building what reads offsets",
        &mut sh::cargo(&["build", "--release", "--package", "agent", "--example", "offsets"]),
    )?;
    let folder = sh::target().join("offsets");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("main.go"), PROGRAM)?;
    std::fs::write(folder.join("go.mod"), "module example.org/offsets\n\ngo 1.18\n")?;
    let builder = Builder { tools, folder };
    let (mut tables, mut kept) = (Vec::new(), Vec::new());
    if !options.minors.is_empty() {
        let known = std::fs::read_to_string(sh::root().join(TABLE))?;
        kept = serde_json::from_str::<Tables>(&known).context(TABLE)?.tables;
    }
    for (minor, newest) in VERSIONS {
        if !options.minors.is_empty() && !options.minors.contains(&minor) {
            tables.extend(kept.iter().filter(|table| table.minor == minor).cloned());
            continue;
        }
        let mut by_arch = Vec::new();
        for arch in ARCHITECTURES {
            by_arch.extend(builder.tables(minor, newest, arch)?);
        }
        let mut shared = share(by_arch);
        if !options.no_experiments {
            let moved = builder.experiments(&mut shared)?;
            shared.extend(moved);
        }
        tables.extend(shared);
    }
    std::fs::write(sh::root().join(TABLE), text(&tables)?)?;
    progress::note(&format!("{TABLE}: {} tables", tables.len()));
    Ok(())
}

struct Builder {
    tools: setup::Tools,
    folder: PathBuf,
}

impl Builder {
    /// A table for every range of patches with equal fields; one range when the first is like the newest. The patch at which
    /// fields moved is searched for by halves.
    fn tables(&self, minor: u32, newest: u32, arch: &'static str) -> Result<Vec<Table>> {
        let ends = [0, newest].map(|patch| self.patch(minor, patch, arch));
        let [Some(first), Some(last)] = ends else {
            bail!("go1.{minor}.0 or go1.{minor}.{newest} does not build for {arch}");
        };
        let mut all = BTreeMap::from([(0, first), (newest, last)]);
        let mut open = vec![(0, newest)];
        while let Some((low, high)) = open.pop() {
            if all[&low].fields == all[&high].fields || high - low < 2 {
                continue;
            }
            // Where none of them can be had the patches between have no table.
            let between = from_the_middle(low, high);
            let found = between
                .into_iter()
                .find_map(|patch| Some((patch, self.patch(minor, patch, arch)?)));
            if let Some((patch, read)) = found {
                all.insert(patch, read);
                open.extend([(low, patch), (patch, high)]);
            }
        }
        let mut tables: Vec<Table> = Vec::new();
        for (patch, read) in all {
            match tables.last_mut() {
                Some(table) if table.fields == read.fields => {
                    table.patches.1 = Some(patch);
                    table.read.push(read.version);
                }
                _ => tables.push(Table {
                    minor,
                    patches: (patch, Some(patch)),
                    arch: vec![arch.to_owned()],
                    with: Vec::new(),
                    read: vec![read.version],
                    unmoved_by: Vec::new(),
                    fields: read.fields,
                }),
            }
        }
        // Of later patches the newest range is the best guess, and it is proved in each process.
        if let Some(last) = tables.last_mut() {
            last.patches.1 = None;
        }
        Ok(tables)
    }

    /// None when this patch can't be had or built.
    fn patch(&self, minor: u32, patch: u32, arch: &str) -> Option<Read> {
        let read = self.read(&named(minor, patch), arch, None);
        read.inspect_err(|error| progress::note(&format!("{error:#}")))
            .ok()
            .flatten()
    }

    /// Notes in each table which experiments leave its fields in place; the tables of those that do not. Of architectures with equal
    /// tables the first stands for all.
    fn experiments(&self, tables: &mut [Table]) -> Result<Vec<Table>> {
        let mut moved = Vec::new();
        for table in tables {
            let (unmoved, others) = self.tried(table)?;
            table.unmoved_by = unmoved;
            for (name, read) in others {
                let mut of_name = Table {
                    arch: vec![table.arch[0].clone()],
                    with: vec![name],
                    read: vec![read.version],
                    fields: read.fields,
                    ..table.clone()
                };
                self.reaches_back(table, &mut of_name)?;
                of_name.unmoved_by = self.unmoved_besides(table, &of_name)?;
                moved.push(of_name);
            }
        }
        Ok(moved)
    }

    /// Experiments that leave the fields of a table in place at its newest patch, and what was read with each that does not.
    fn tried(&self, table: &Table) -> Result<(Vec<String>, Moved)> {
        let (mut unmoved, mut moved) = (Vec::new(), Vec::new());
        for name in EXPERIMENTS {
            // A version that has not got it refuses to build.
            let Some(read) = self.read(&newest_of(table), &table.arch[0], Some(name))? else {
                continue;
            };
            // Without effect when it is the default.
            if !read.version.contains(name) {
                continue;
            }
            if read.fields == table.fields {
                unmoved.push(name.to_owned());
            } else {
                progress::note(&format!("{}: fields move", read.version));
                moved.push((name.to_owned(), read));
            }
        }
        Ok((unmoved, moved))
    }

    /// The table of an experiment goes as far back as the ordinary builds' when the first patch is like the newest with it too.
    fn reaches_back(&self, ordinary: &Table, of_name: &mut Table) -> Result<()> {
        let newest = ordinary.patches.1.unwrap_or_else(|| patch_of(&newest_of(ordinary)));
        let first = ordinary.read.first().context("a table was read of something")?;
        let read = self.read(
            first.trim_start_matches("go"),
            &ordinary.arch[0],
            Some(&of_name.with[0]),
        )?;
        match read {
            Some(read) if read.fields == of_name.fields => of_name.read.insert(0, read.version),
            _ => of_name.patches.0 = newest,
        }
        of_name.read.dedup();
        Ok(())
    }

    /// Of the experiments that leave ordinary builds' fields in place, those that do so with the table's own as well.
    fn unmoved_besides(&self, ordinary: &Table, of_name: &Table) -> Result<Vec<String>> {
        let mut unmoved = Vec::new();
        for name in &ordinary.unmoved_by {
            let both = format!("{},{name}", of_name.with[0]);
            let read = self.read(&newest_of(ordinary), &ordinary.arch[0], Some(&both))?;
            if read.is_some_and(|read| read.fields == of_name.fields) {
                unmoved.push(name.clone());
            }
        }
        Ok(unmoved)
    }

    /// None when the toolchain refuses the experiment.
    fn read(&self, version: &str, arch: &str, experiment: Option<&str>) -> Result<Option<Read>> {
        let what = format!("go{version} {arch} {}", experiment.unwrap_or_default());
        progress::note(what.trim());
        let mut build = self.tools.go.command(&self.folder, &["build", "-o", "probe", "."]);
        build
            .env("GOTOOLCHAIN", format!("go{version}"))
            .env("GOARCH", arch)
            .env("CGO_ENABLED", "0")
            .env("GOEXPERIMENT", experiment.unwrap_or_default());
        let built = sh::capture(&mut build);
        if experiment.is_some() && built.is_err() {
            return Ok(None);
        }
        built.with_context(|| format!("building with {what}"))?;
        let example = sh::target().join("release/examples/offsets");
        let line = sh::capture(sh::cmd(example, &[]).arg(self.folder.join("probe")))?;
        let read: Read = serde_json::from_str(&line).with_context(|| format!("it printed {line}"))?;
        // Outside a module GOTOOLCHAIN would be ignored without a word.
        if !read.version.starts_with(&format!("go{version}")) {
            bail!("asked for go{version}, built by {}", read.version);
        }
        Ok(Some(read))
    }
}

/// A release's name: the first patch had no number until go1.20.
fn named(minor: u32, patch: u32) -> String {
    match (minor, patch) {
        (..=20, 0) => format!("1.{minor}"),
        _ => format!("1.{minor}.{patch}"),
    }
}

/// The newest release that a table was read of, without `go`.
fn newest_of(table: &Table) -> String {
    let newest = table.read.last().map_or("", String::as_str);
    newest.trim_start_matches("go").to_owned()
}

/// 10 of 1.18.10.
fn patch_of(release: &str) -> u32 {
    let patch = release.split('.').nth(2);
    patch.map_or(0, |patch| patch.parse().unwrap_or(0))
}

/// What lies between two patches, the middle first: not every patch is kept where toolchains come from.
fn from_the_middle(low: u32, high: u32) -> Vec<u32> {
    let middle = low + (high - low) / 2;
    let mut between: Vec<u32> = (low + 1..high).collect();
    between.sort_by_key(|patch| patch.abs_diff(middle));
    between
}

/// Architectures with equal tables share one.
fn share(tables: Vec<Table>) -> Vec<Table> {
    let mut shared: Vec<Table> = Vec::new();
    for table in tables {
        let like = |known: &&mut Table| (known.patches, &known.fields) == (table.patches, &table.fields);
        match shared.iter_mut().find(like) {
            Some(known) => known.arch.extend(table.arch),
            None => shared.push(table),
        }
    }
    shared
}

/// A line a type, so that a change shows what moved.
fn text(tables: &[Table]) -> Result<String> {
    let mut text = "{\"tables\": [\n".to_owned();
    for (index, table) in tables.iter().enumerate() {
        let _ = writeln!(
            text,
            "{{\"minor\": {}, \"patches\": {}, \"arch\": {}, \"with\": {}, \"read\": {},",
            table.minor,
            serde_json::to_string(&table.patches)?,
            serde_json::to_string(&table.arch)?,
            serde_json::to_string(&table.with)?,
            serde_json::to_string(&table.read)?,
        );
        let _ = writeln!(
            text,
            "\"unmoved_by\": {}, \"fields\": {{",
            serde_json::to_string(&table.unmoved_by)?
        );
        for (at, (name, fields)) in table.fields.iter().enumerate() {
            let comma = if at + 1 < table.fields.len() { "," } else { "" };
            let _ = writeln!(text, "  \"{name}\": {}{comma}", serde_json::to_string(fields)?);
        }
        text.push_str(if index + 1 < tables.len() { "}},\n" } else { "}}\n" });
    }
    text.push_str("]}\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(arch: &'static str, offset: u64) -> Table {
        Table {
            minor: 26,
            patches: (0, None),
            arch: vec![arch.to_owned()],
            with: Vec::new(),
            read: vec!["go1.26.0".to_owned()],
            unmoved_by: Vec::new(),
            fields: BTreeMap::from([(
                "runtime.g".to_owned(),
                BTreeMap::from([("goid".to_owned(), (offset, 8))]),
            )]),
        }
    }

    #[test]
    fn releases_have_their_names() {
        let names = [(18, 0), (20, 14), (21, 0), (27, 4)].map(|(minor, patch)| named(minor, patch));
        assert_eq!(names, ["1.18", "1.20.14", "1.21.0", "1.27.4"]);
    }

    #[test]
    fn what_is_between_is_tried_from_the_middle() {
        for (low, high, expected) in [(0, 10, &[5, 4, 6, 3, 7, 2, 8, 1, 9][..]), (3, 4, &[]), (4, 6, &[5])] {
            assert_eq!(from_the_middle(low, high), expected, "{low} {high}");
        }
    }

    #[test]
    fn equal_tables_are_one_and_what_is_written_is_json() {
        let shared = share(vec![table("amd64", 152), table("arm64", 152)]);
        assert_eq!((shared.len(), shared[0].arch.join(" ")), (1, "amd64 arm64".to_owned()));
        let apart = share(vec![table("amd64", 152), table("arm64", 160)]);
        assert_eq!(apart.len(), 2);
        let text = text(&apart).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["tables"][1]["fields"]["runtime.g"]["goid"][0], 160);
    }
}
