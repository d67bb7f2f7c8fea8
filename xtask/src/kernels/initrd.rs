//! Packs the VMs' file system: static programs and an init.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::progress;

/// `init` becomes the first process; programs go to /bin, and other files, from where they lie, to a path of their own.
pub(super) fn pack(init: &Path, programs: &[PathBuf], files: &[(PathBuf, PathBuf)], image: &Path) -> Result<()> {
    let tree = image.with_extension("tree");
    fs::remove_dir_all(&tree).ok();
    for folder in ["bin", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::copy(init, tree.join("init")).with_context(|| format!("cannot copy {}", init.display()))?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
    for program in programs.iter().map(PathBuf::as_path) {
        let name = program.file_name().context("a program has a name")?;
        if !is_static(program)? {
            bail!(
                "{} is linked dynamically and cannot run in a VM without libraries",
                program.display()
            );
        }
        fs::copy(program, tree.join("bin").join(name)).with_context(|| format!("cannot copy {}", program.display()))?;
    }
    for (from, to) in files {
        let to = tree.join(to);
        fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let mut archive = Command::new("sh");
    archive
        .args([
            "-c",
            "find . | cpio --create --format=newc --owner=0:0 --quiet | gzip -1 > \"$1\"",
            "sh",
        ])
        .arg(image)
        .current_dir(&tree)
        .stdin(Stdio::null());
    progress::step("Packing the VMs' initrd", &mut archive)
}

/// True when no program header asks for an interpreter (PT_INTERP = 3), as in a static or static-pie ELF file.
fn is_static(program: &Path) -> Result<bool> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    wants_no_interpreter(&bytes).with_context(|| format!("{} is not a 64-bit ELF file", program.display()))
}

fn wants_no_interpreter(elf: &[u8]) -> Option<bool> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    // Elf64_Ehdr: e_phoff at 32, e_phentsize at 54, e_phnum at 56.
    let table = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    for header in 0..count {
        let at = table.checked_add(header * size)?;
        if u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?) == 3 {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[32], bytes[54], bytes[56], bytes[64]) = (64, 56, 1, kind);
        bytes
    }

    #[test]
    fn interpreters_are_found() {
        assert_eq!(wants_no_interpreter(&elf(1)), Some(true));
        assert_eq!(wants_no_interpreter(&elf(3)), Some(false));
        assert_eq!(wants_no_interpreter(&elf(3)[..80]), Some(false));
        assert_eq!(wants_no_interpreter(&elf(3)[..66]), None);
        assert_eq!(wants_no_interpreter(b"#!/bin/sh"), None);
    }
}
