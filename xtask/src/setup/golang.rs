//! A Go toolchain for the demo: from 1.21 on, Go fetches by itself the version a go.mod asks for.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::{progress, sh};

/// The first version that understands `toolchain` lines and GOTOOLCHAIN.
const OLDEST: (u32, u32) = (1, 21);
/// What an older packaged Go fetches for us through the module proxy: Go's releases are modules, checksums and all.
const FETCHED: &str = "golang.org/toolchain@v0.0.1-go1.26.11.linux-amd64";

pub(crate) struct Go {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

impl Go {
    /// A go command in one of the modules of this repository.
    pub(crate) fn command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(args).current_dir(folder).env("GOTOOLCHAIN", "auto");
        command
    }

    /// Gofmt stands beside go.
    pub(crate) fn gofmt(&self) -> PathBuf {
        self.path.with_file_name("gofmt")
    }
}

/// The first Go that is new enough: PATH, the usual folders, what an earlier setup fetched.
pub(crate) fn find() -> Option<Go> {
    let fetched = std::fs::read_to_string(fetched_file()).ok().map(PathBuf::from);
    candidates()
        .into_iter()
        .chain(fetched)
        .find_map(|path| about(path).filter(|(version, _)| *version >= OLDEST))
        .map(|(_, go)| go)
}

fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = sh::which("go").into_iter().collect();
    found.push("/usr/local/go/bin/go".into());
    let packaged = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut versioned: Vec<PathBuf> = packaged
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("go-1."))
        .map(|entry| entry.path().join("bin/go"))
        .collect();
    versioned.sort();
    found.extend(versioned);
    found
}

fn about(path: PathBuf) -> Option<((u32, u32), Go)> {
    let mut ask = Command::new(&path);
    let version = sh::capture(ask.arg("version").env("GOTOOLCHAIN", "local")).ok()?;
    Some((parse(&version)?, Go { path, version }))
}

/// Reads `go version go1.26.8 linux/amd64`.
fn parse(version: &str) -> Option<(u32, u32)> {
    apt::major_minor(version.split(' ').nth(2)?.strip_prefix("go")?)
}

/// The newest Go that apt has, whatever its age; none when some Go is here, as even an old one can fetch a newer.
pub(super) fn package() -> Result<Option<String>> {
    if candidates().into_iter().any(|path| about(path).is_some()) {
        return Ok(None);
    }
    let found = apt::candidates("^golang-1[.][0-9]+-go$")?;
    let names = found.keys().map(String::as_str);
    newest(names)
        .map(|name| Some(name.to_owned()))
        .context("no Go here and none packaged: install Go 1.21 or newer")
}

fn newest<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .filter_map(|name| Some((apt::major_minor(name.strip_prefix("golang-")?)?, name)))
        .max()
        .map(|(_, name)| name)
}

/// After the package is there: the Go it brought, or a newer one fetched by it.
pub(super) fn after_install() -> Result<Go> {
    if let Some(go) = find() {
        return Ok(go);
    }
    let Some((_, old)) = candidates().into_iter().find_map(about) else {
        bail!("the Go package was installed but has no `go`");
    };
    progress::note(&format!(
        "{} is older than {}.{}: fetching {FETCHED} with it",
        old.version, OLDEST.0, OLDEST.1
    ));
    let mut download = Command::new(&old.path);
    download.args(["mod", "download", "-json", FETCHED]).env("GOFLAGS", "");
    let answer: serde_json::Value = serde_json::from_str(&sh::capture(&mut download)?)?;
    let folder = answer["Dir"].as_str().context("go mod download names no folder")?;
    make_executable(Path::new(folder))?;
    let path = Path::new(folder).join("bin/go");
    sh::create(&fetched_file())?;
    std::fs::write(fetched_file(), path.to_string_lossy().as_bytes())?;
    about(path)
        .map(|(_, go)| go)
        .with_context(|| format!("the Go in {folder} does not run"))
}

/// Modules carry no permission bits; only a Go that knows toolchains restores them.
fn make_executable(folder: &Path) -> Result<()> {
    let tools = folder.join("pkg/tool");
    let mut folders = vec![folder.join("bin")];
    folders.extend(std::fs::read_dir(&tools)?.flatten().map(|entry| entry.path()));
    for program in folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
    {
        std::fs::set_permissions(program.path(), std::fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", program.path().display()))?;
    }
    Ok(())
}

fn fetched_file() -> PathBuf {
    sh::target().join("xtask/go")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions() {
        for (text, expected) in [
            ("go version go1.26.8 linux/amd64", Some((1, 26))),
            ("go version go1.19.8 linux/amd64", Some((1, 19))),
            ("go version devel +abc linux/amd64", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn newest_package_is_by_number_not_by_letter() {
        assert_eq!(
            newest(["golang-1.9-go", "golang-1.19-go"].into_iter()),
            Some("golang-1.19-go")
        );
        assert_eq!(newest(["golang-go"].into_iter()), None);
    }
}
