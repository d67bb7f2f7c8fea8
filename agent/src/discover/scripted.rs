//! A proc filesystem that a test writes by hand.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
    sync::Arc,
};

pub(crate) struct Proc(tempfile::TempDir);

impl Proc {
    /// Nobody is there.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // As in any other, not everything is a process.
        fs::create_dir(folder.path().join("sys")).unwrap();
        Self(folder)
    }

    pub(crate) fn root(&self) -> Arc<Path> {
        self.0.path().into()
    }

    /// Lets a process be: its start, where its stack begins, what it runs.
    pub(crate) fn set(&self, pid: u32, (start, stack, exe): (u64, u64, impl AsRef<Path>)) {
        self.set_named(pid, "a name", (start, stack, Some(exe.as_ref())));
    }

    /// The same, by the kernel's name of it; what runs nothing is a kernel thread.
    pub(crate) fn set_named(&self, pid: u32, name: &str, (start, stack, exe): (u64, u64, Option<&Path>)) {
        self.end(pid);
        let of = self.0.path().join(pid.to_string());
        fs::create_dir(&of).unwrap();
        // proc(5): fields 3 to 52, of which 22 is the start, 28 the stack's.
        let field = |number| match number {
            4 => exe.map_or(2, |_| 100),
            22 => start,
            28 => stack,
            _ => 1,
        };
        let fields: Vec<String> = (4..=52).map(|number| field(number).to_string()).collect();
        fs::write(of.join("stat"), format!("{pid} ({name}) S {}\n", fields.join(" "))).unwrap();
        if let Some(exe) = exe {
            symlink(exe, of.join("exe")).unwrap();
        }
    }

    /// It has mapped code of a file.
    pub(crate) fn map(&self, pid: u32, file: &Path) {
        let of = self.0.path().join(pid.to_string());
        let inode = fs::metadata(file).unwrap().ino();
        let line = format!(
            "7f0000000000-7f0000001000 r-xp 00000000 08:01 {inode} {}\n",
            file.display()
        );
        fs::write(of.join("maps"), line).unwrap();
        symlink("/", of.join("root")).unwrap();
    }

    /// It runs, and what it runs is not to be had.
    pub(crate) fn hide_exe(&self, pid: u32) {
        fs::remove_file(self.0.path().join(pid.to_string()).join("exe")).unwrap();
    }

    /// What it is cannot be read, as where the agent has no descriptor left.
    pub(crate) fn spoil(&self, pid: u32) {
        fs::write(self.0.path().join(pid.to_string()).join("stat"), "").unwrap();
    }

    pub(crate) fn end(&self, pid: u32) {
        // At first there is none.
        let _ = fs::remove_dir_all(self.0.path().join(pid.to_string()));
    }
}
