//! `cargo xtask tidy`: what the compiler cannot check. Each rule is a pure function from files to complaints.

mod imports;
mod licences;
mod mirror;
mod paths;
mod picture;
mod runtimes;
mod signals;
mod sizes;
mod words;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{progress, sh};

#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Options {}

/// A tracked file: its path from the workspace's root, and its text (empty when it is no UTF-8).
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn run(_options: Options) -> Result<()> {
    let files = tracked()?;
    let mut complaints = mirror::check(files.iter().map(|file| file.path.as_str()));
    complaints.extend(imports::check(&files));
    complaints.extend(runtimes::check(&files));
    complaints.extend(signals::check(&files));
    complaints.extend(paths::check(&files));
    complaints.extend(picture::check(&files));
    complaints.extend(sizes::check(&files));
    complaints.extend(words::check(&files));
    let (licence_complaints, how) = licences::check(&files)?;
    complaints.extend(licence_complaints);
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    if !complaints.is_empty() {
        bail!("tidy: {} complaint(s)", complaints.len());
    }
    progress::note(&format!("tidy: {} files in order; {how}", files.len()));
    Ok(())
}

/// Files that git tracks or would track, as they stand in the work tree.
fn tracked() -> Result<Vec<File>> {
    let list = sh::capture(&mut sh::cmd(
        "git",
        &["ls-files", "--cached", "--others", "--exclude-standard"],
    ))?;
    let mut files = Vec::new();
    for path in list.lines() {
        let full = sh::root().join(path);
        if !full.is_file() {
            continue;
        }
        let bytes = std::fs::read(&full).with_context(|| format!("cannot read {path}"))?;
        files.push(File {
            path: path.to_owned(),
            text: String::from_utf8(bytes).unwrap_or_default(),
        });
    }
    Ok(files)
}
