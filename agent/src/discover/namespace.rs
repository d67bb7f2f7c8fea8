//! Whether the pids that this agent sees are those that the kernel's programs see, which are the initial PID namespace's.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Inode of the initial PID namespace (linux, include/linux/proc_ns.h, PROC_PID_INIT_INO).
const INITIAL: u64 = 0xEFFF_FFFC;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    #[error(
        "whywait runs in a PID namespace of its own (pid:[{0}]), where no process has the pid that the kernel's programs see: run it in the host's \
         (Kubernetes: hostPID: true; docker and podman: --pid=host; not within WSL or LXC)"
    )]
    Own(u64),
    #[error(
        "/proc is of another PID namespace than whywait's own (it has {seen} there and is {own}): mount the proc filesystem of the one it runs in"
    )]
    OtherProc { seen: String, own: u32 },
}

/// Whether a process that has the pid `own`, and whose proc filesystem is at `root`, is in the initial PID namespace and sees that.
pub fn check(root: &Path, own: u32) -> Result<(), NamespaceError> {
    // Without a proc filesystem nothing else works either, and says so.
    if let Ok(namespace) = fs::metadata(root.join("self/ns/pid"))
        && namespace.ino() != INITIAL
    {
        return Err(NamespaceError::Own(namespace.ino()));
    }
    match fs::read_link(root.join("self")) {
        Ok(seen) if seen != Path::new(&own.to_string()) => Err(NamespaceError::OtherProc {
            seen: seen.display().to_string(),
            own,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_namespace_is_told_by_its_inode_and_a_proc_filesystem_by_our_pid() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(check(root, 7), Ok(()), "no proc filesystem");
        fs::create_dir_all(root.join("8/ns")).unwrap();
        symlink("8", root.join("self")).unwrap();
        let other = NamespaceError::OtherProc {
            seen: "8".to_owned(),
            own: 7,
        };
        assert_eq!(check(root, 7), Err(other));
        assert_eq!(check(root, 8), Ok(()));
        // A file of any other inode.
        fs::write(root.join("8/ns/pid"), "").unwrap();
        let inode = fs::metadata(root.join("8/ns/pid")).unwrap().ino();
        assert_eq!(check(root, 8), Err(NamespaceError::Own(inode)));
    }
}
