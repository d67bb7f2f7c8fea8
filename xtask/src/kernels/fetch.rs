//! Fetches Debian's newest cloud kernel of a series with an apt configuration of its own; the system's is untouched.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use crate::{arch::Arch, progress, sh};

/// Debian's keyring, and the package that it is in.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const KEYRING_PACKAGE: &str = "debian-archive-keyring";
/// The last part of a mirror's address: of the archive, and of its security updates.
const ARCHIVE: &str = "debian";
const SECURITY: &str = "debian-security";
/// What apt's Python library knows of Debian's mirrors, and the package that it is in.
const TEMPLATE: &str = "/usr/share/python-apt/templates/Debian.info";
const TEMPLATE_PACKAGE: &str = "python-apt-common";
/// A mirror of debian-security other than the system's own.
const MIRROR: &str = "WHYWAIT_DEBIAN_SECURITY_MIRROR";
/// A kernel fetched longer ago is looked for again: "newest" would otherwise mean "newest when first run".
const FRESH: Duration = Duration::from_secs(14 * 24 * 3600);

/// Instead of a series: whatever is the newest in its suite.
pub(super) const NEWEST: &str = "newest";

pub(super) struct Kernel {
    pub(super) series: String,
    pub(super) arch: Arch,
    pub(super) image: PathBuf,
}

impl Kernel {
    /// One that [`all`] has fetched.
    pub(super) fn of(series: &str, arch: Arch) -> Self {
        Self {
            series: series.to_owned(),
            arch,
            image: sh::target()
                .join("kernels")
                .join(format!("vmlinuz-{}", name(series, arch))),
        }
    }

    /// Such as `6.1` and `6.1-arm64`.
    pub(super) fn name(&self) -> String {
        name(&self.series, self.arch)
    }
}

fn name(series: &str, arch: Arch) -> String {
    match arch {
        Arch::Amd64 => series.to_owned(),
        Arch::Arm64 => format!("{series}-{}", arch.name()),
    }
}

/// The packages that fetching needs on a system that is not Debian itself.
pub(crate) fn missing_packages() -> Vec<String> {
    let is_mirror_known =
        std::env::var_os(MIRROR).is_some() || configured(SECURITY).is_some() || Path::new(TEMPLATE).exists();
    let needed = [
        (Path::new(KEYRING).exists(), KEYRING_PACKAGE),
        (is_mirror_known, TEMPLATE_PACKAGE),
    ];
    let missing = needed.into_iter().filter(|(is_there, _)| !is_there);
    missing.map(|(_, package)| package.to_owned()).collect()
}

pub(super) fn all(series: &[(&str, &str)], arch: Arch) -> Result<Vec<Kernel>> {
    let folder = sh::target().join("kernels");
    let kernels: Vec<Kernel> = series.iter().map(|(series, _)| Kernel::of(series, arch)).collect();
    if kernels.iter().all(|kernel| is_fresh(&kernel.image)) {
        return Ok(kernels);
    }
    let private = Private::new(&folder, series, arch)?;
    progress::step("Updating the list of kernels", &mut private.apt("apt-get", &["update"]))?;
    let found = sh::capture(&mut private.apt(
        "apt-cache",
        &[
            "search",
            "--names-only",
            &format!("^linux-image-[0-9.-]+.*cloud-{}$", arch.name()),
        ],
    ))?;
    for kernel in &kernels {
        let package = newest(&found, &kernel.series)
            .with_context(|| format!("no cloud kernel {} in the configured mirror", kernel.series))?;
        private.fetch(package, &kernel.image)?;
    }
    Ok(kernels)
}

fn is_fresh(image: &Path) -> bool {
    let modified = fs::metadata(image).and_then(|about| about.modified());
    modified.is_ok_and(|when| SystemTime::now().duration_since(when).is_ok_and(|age| age < FRESH))
}

/// The newest signed image of a series among lines of `apt-cache search`.
fn newest<'a>(found: &'a str, series: &str) -> Option<&'a str> {
    let names = found.lines().filter_map(|line| line.split(' ').next());
    let of_series = |name: &&str| {
        let Some(version) = name.strip_prefix("linux-image-") else {
            return false;
        };
        // A package of all of a series, such as linux-image-6.12-cloud-amd64, holds no kernel.
        let number = version.split(['+', '-']).next().unwrap_or_default();
        let whole = number.split('.').count() == 3;
        whole && (series == NEWEST || number.strip_prefix(series).is_some_and(|rest| rest.starts_with('.')))
    };
    names
        .filter(|name| ["unsigned", "-rt-", "-dbg"].iter().all(|other| !name.contains(other)))
        .filter(of_series)
        .max_by_key(|name| -> Vec<u32> {
            name.split(|c: char| !c.is_ascii_digit())
                .filter_map(|n| n.parse().ok())
                .collect()
        })
}

/// An apt whose lists, cache and sources lie under target/.
struct Private {
    folder: PathBuf,
    arch: Arch,
}

impl Private {
    fn new(kernels: &Path, series: &[(&str, &str)], arch: Arch) -> Result<Self> {
        let folder = kernels.join(name("apt", arch));
        for part in ["etc", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let mirror = match std::env::var(MIRROR) {
            Ok(mirror) => mirror,
            Err(_) => configured(SECURITY)
                .or_else(templated)
                .with_context(|| format!("no Debian mirror in apt's sources, nor in {TEMPLATE}: set {MIRROR}"))?,
        };
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: install {KEYRING_PACKAGE}");
        }
        // Backports lie in the archive itself, which most mirrors have beside debian-security.
        let archive = configured(ARCHIVE).unwrap_or_else(|| mirror.replace(SECURITY, ARCHIVE));
        let sources = series.iter().map(|(_, suite)| {
            let from = if suite.ends_with("-security") { &mirror } else { &archive };
            format!(
                "Types: deb\nURIs: {from}\nSuites: {suite}\nComponents: main\nArchitectures: {}\nSigned-By: {KEYRING}\n",
                arch.name()
            )
        });
        let mut sources: Vec<String> = sources.collect();
        sources.dedup();
        let sources = sources.join("\n");
        fs::write(folder.join("etc/kernels.sources"), sources)?;
        Ok(Self { folder, arch })
    }

    fn apt(&self, program: &str, args: &[&str]) -> Command {
        let at = self.folder.display();
        let mut command = Command::new(program);
        for option in [
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            format!("Dir::Etc::sourceparts={at}/etc"),
            format!("Dir::State::lists={at}/state/lists"),
            format!("Dir::Cache={at}/cache"),
            format!("APT::Architecture={}", self.arch.name()),
            format!("APT::Architectures={}", self.arch.name()),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "APT::Sandbox::User=".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.args(args).current_dir(&self.folder);
        command
    }

    /// Downloads a package and takes its kernel out.
    fn fetch(&self, package: &str, image: &Path) -> Result<()> {
        // Debian's newest kernels lie in a package of their own.
        let binary = package.replacen("linux-image-", "linux-binary-", 1);
        let split = sh::capture(&mut self.apt("apt-cache", &["show", &binary])).is_ok();
        let package = if split { binary.as_str() } else { package };
        progress::step(
            &format!("Fetching {package}"),
            &mut self.apt("apt-get", &["download", package]),
        )?;
        let unpacked = self.folder.join("unpacked");
        fs::remove_dir_all(&unpacked).ok();
        let deb = find(&self.folder, &format!("{package}_"))?;
        sh::capture(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&unpacked))?;
        let kernel = find(&unpacked.join("boot"), "vmlinuz").or_else(|_| {
            let modules = find(&unpacked.join("usr/lib/modules"), "")?;
            find(&modules, "vmlinuz")
        })?;
        fs::copy(kernel, image).context("cannot keep the kernel")?;
        fs::remove_dir_all(&unpacked)?;
        fs::remove_file(deb)?;
        Ok(())
    }
}

fn find(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    });
    found.with_context(|| format!("no {prefix}* in {}", folder.display()))
}

/// The mirror that the system's own apt uses, of [`ARCHIVE`] or [`SECURITY`].
fn configured(last: &str) -> Option<String> {
    let folder = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let files = std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(folder);
    let mut texts = files.filter_map(|file| fs::read_to_string(file).ok());
    texts.find_map(|text| mirror(&text, last))
}

/// Debian's own mirror, as a system that is not Debian knows it (Ubuntu).
fn templated() -> Option<String> {
    security_beside(&fs::read_to_string(TEMPLATE).ok()?)
}

/// The archive in a template of apt's Python library; debian-security lies beside it.
fn security_beside(template: &str) -> Option<String> {
    let mut archives = template.lines().filter_map(|line| line.strip_prefix("BaseURI:"));
    archives.find_map(|archive| {
        let archive = archive.trim().trim_end_matches('/');
        archive.ends_with("/debian").then(|| format!("{archive}-security"))
    })
}

/// The first address that ends in `last`, in either of apt's formats.
fn mirror(text: &str, last: &str) -> Option<String> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    let mut words = lines
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'));
    words
        .find(|word| word.contains("://") && word.rsplit('/').next() == Some(last))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_is_by_number() {
        let found = "linux-image-6.1.0-9-cloud-amd64 - x\nlinux-image-6.1.0-41-cloud-amd64 - x\n\
                     linux-image-6.1.0-50-rt-cloud-amd64 - x\nlinux-image-6.1.0-60-cloud-amd64-unsigned - x\nlinux-image-6.12.1-cloud-amd64 - x";
        assert_eq!(newest(found, "6.1"), Some("linux-image-6.1.0-41-cloud-amd64"));
        assert_eq!(newest(found, "5.10"), None);
        // The third of a series' packages is one that asks for the newest.
        let backports = "linux-image-6.18.15+deb13-cloud-amd64 - x\nlinux-image-7.3.4+deb13-cloud-amd64 - x\n\
                         linux-image-7.3-cloud-amd64 - x\nlinux-image-7.3.4+deb13-cloud-amd64-dbg - x";
        assert_eq!(newest(backports, "6.18"), Some("linux-image-6.18.15+deb13-cloud-amd64"));
        assert_eq!(newest(backports, NEWEST), Some("linux-image-7.3.4+deb13-cloud-amd64"));
    }

    #[test]
    fn mirrors_in_both_formats() {
        for (text, expected) in [
            (
                "Types: deb\nURIs: http://a/debian\n\nURIs: http://a/debian-security\n",
                Some("http://a/debian-security"),
            ),
            (
                "deb [signed-by=/x] http://b/debian-security bookworm-security main",
                Some("http://b/debian-security"),
            ),
            (
                "# deb http://c/debian-security x main\ndeb http://c/ubuntu noble main",
                None,
            ),
        ] {
            assert_eq!(mirror(text, SECURITY).as_deref(), expected, "{text}");
        }
    }
    #[test]
    fn security_lies_beside_the_archive() {
        let template = "Suite: sid\nBaseURI: http://d/debian-ports/\n\nSuite: {series}\nBaseURI: http://d/debian/\n";
        assert_eq!(security_beside(template).as_deref(), Some("http://d/debian-security"));
        assert_eq!(security_beside("BaseURI: http://d/ubuntu/"), None);
    }
}
