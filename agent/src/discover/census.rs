//! A reconciling look at every process: exec events tell of new programs, but not of a process that was forked and stays what it is,
//! as daemons are; events may be lost; and a process may be left out for want of room that there is later.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{Process, ProcessError, process::Program};

/// What there was at the last look.
pub struct Census {
    /// Where the proc filesystem is.
    root: PathBuf,
    known: HashMap<u32, Program>,
}

impl Census {
    /// Nothing was seen yet.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            known: HashMap::new(),
        }
    }

    /// Processes that were not there at the last look, or are another program since; of the others no more is read than a line each.
    pub fn look(&mut self) -> io::Result<Vec<Process>> {
        let pids = fs::read_dir(&self.root)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let (mut there, mut found) = (HashMap::new(), Vec::new());
        for pid in pids {
            // One that ended meanwhile.
            let Ok(program) = Program::read(&self.root, pid) else {
                continue;
            };
            if self.known.get(&pid) != Some(&program) {
                match Process::read_in(&self.root, pid) {
                    Ok(process) => found.push(process),
                    Err(ProcessError::KernelThread { .. }) => {}
                    // It ended, or is about to begin.
                    Err(_) => continue,
                }
            }
            there.insert(pid, program);
        }
        self.known = there;
        Ok(found)
    }

    /// The next look shows a process again.
    pub fn forget(&mut self, pid: u32) {
        self.known.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A proc filesystem that is written by hand.
    struct Proc(tempfile::TempDir);

    impl Proc {
        /// Lets a process be: (its start, where its stack begins, what it runs).
        fn set(&self, pid: u32, (start, stack, exe): (u64, u64, &str)) {
            self.end(pid);
            let of = self.0.path().join(pid.to_string());
            fs::create_dir(&of).unwrap();
            // proc(5): fields 3 to 52, of which 22 is the start, 28 the stack's.
            let field = |number| match number {
                4 => 100,
                22 => start,
                28 => stack,
                _ => 1,
            };
            let fields: Vec<String> = (4..=52).map(|number| field(number).to_string()).collect();
            fs::write(of.join("stat"), format!("{pid} (a name) S {}\n", fields.join(" "))).unwrap();
            symlink(exe, of.join("exe")).unwrap();
        }

        fn end(&self, pid: u32) {
            // At first there is none.
            let _ = fs::remove_dir_all(self.0.path().join(pid.to_string()));
        }
    }

    fn check(census: &mut Census, what: &str, expected: &[(u32, &str)]) {
        let mut found: Vec<(u32, String)> = census
            .look()
            .unwrap()
            .into_iter()
            .map(|process| (process.pid, process.exe.display().to_string()))
            .collect();
        found.sort();
        let found: Vec<(u32, &str)> = found.iter().map(|(pid, exe)| (*pid, exe.as_str())).collect();
        assert_eq!(found, expected, "{what}");
    }

    #[test]
    fn what_is_new_is_shown_once() {
        let proc = Proc(tempfile::tempdir().unwrap());
        fs::create_dir(proc.0.path().join("sys")).unwrap();
        let census = &mut Census::new(proc.0.path());
        check(census, "nobody", &[]);
        proc.set(7, (10, 900, "/bin/shell"));
        proc.set(8, (20, 800, "/bin/service"));
        check(census, "two that are new", &[(7, "/bin/shell"), (8, "/bin/service")]);
        check(census, "the same", &[]);
        proc.set(9, (30, 800, "/bin/service"));
        check(census, "a fork without exec, as daemons do", &[(9, "/bin/service")]);
        proc.set(7, (10, 700, "/bin/service"));
        check(census, "an exec whose event was lost", &[(7, "/bin/service")]);
        proc.set(8, (40, 800, "/bin/service"));
        check(census, "another process of the same pid", &[(8, "/bin/service")]);
        census.forget(9);
        check(census, "one that was refused", &[(9, "/bin/service")]);
        proc.end(9);
        check(census, "one that ended", &[]);
        proc.set(9, (30, 800, "/bin/service"));
        check(census, "the pid of one that ended", &[(9, "/bin/service")]);
    }

    #[test]
    fn what_cannot_be_read_yet_is_shown_when_it_can() {
        let proc = Proc(tempfile::tempdir().unwrap());
        proc.set(7, (10, 900, "/bin/service"));
        fs::remove_file(proc.0.path().join("7/exe")).unwrap();
        let census = &mut Census::new(proc.0.path());
        check(census, "without an executable", &[]);
        proc.set(7, (10, 900, "/bin/service"));
        check(census, "with one", &[(7, "/bin/service")]);
    }

    #[test]
    fn this_process_is_seen_once() {
        let mut census = Census::new(Path::new("/proc"));
        let own = |found: Vec<Process>| found.iter().filter(|process| process.pid == std::process::id()).count();
        assert_eq!(own(census.look().unwrap()), 1);
        assert_eq!(own(census.look().unwrap()), 0);
    }
}
