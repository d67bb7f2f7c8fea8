//! A reconciling look at every process: exec events tell of new programs, but not of a process that was forked and stays what it is,
//! as daemons are; events may be lost; a process may be left out for want of room that there is later, or for its name, which it may
//! change.

use std::{collections::HashMap, fs, io, path::Path, sync::Arc};

use super::{Process, ProcessError, process::Program};

/// What there was at the last look.
pub struct Census {
    /// Where the proc filesystem is.
    root: Arc<Path>,
    known: HashMap<u32, Known>,
}

/// A process as it was shown.
#[derive(PartialEq, Eq)]
struct Known {
    program: Program,
    /// None of a kernel thread: those of work queues are called otherwise with each piece of work, and are never shown.
    name: Option<String>,
}

impl Census {
    /// Nothing was seen yet.
    pub fn new(root: Arc<Path>) -> Self {
        Self {
            root,
            known: HashMap::new(),
        }
    }

    /// Processes that were not there at the last look, are another program since, or are called otherwise; of the others no more is read
    /// than a line each.
    pub fn look(&mut self) -> io::Result<Vec<Process>> {
        let pids = fs::read_dir(&self.root)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let (mut there, mut found) = (HashMap::new(), Vec::new());
        for pid in pids {
            // One that ended meanwhile.
            let Ok((program, name)) = Program::read(&self.root, pid) else {
                continue;
            };
            let before = self.known.get(&pid).filter(|known| known.program == program);
            let is_thread = before.is_some_and(|known| known.name.is_none());
            let mut now = Known {
                program,
                name: Some(name).filter(|_| !is_thread),
            };
            if before != Some(&now) {
                match Process::read_in(&self.root, pid) {
                    Ok(process) => found.push(process),
                    Err(ProcessError::KernelThread { .. }) => now.name = None,
                    // It ended, or is about to begin.
                    Err(_) => continue,
                }
            }
            there.insert(pid, now);
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
    use super::*;
    use crate::discover::{Selector, process, scripted::Proc};

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
        let proc = Proc::new();
        let census = &mut Census::new(proc.root());
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

    /// The names of the processes that a look shows and the user chose.
    fn chosen(census: &mut Census, selector: &Selector) -> Vec<String> {
        let found = census.look().unwrap().into_iter();
        found
            .filter(|process| selector.matches(process))
            .map(|process| process.name)
            .collect()
    }

    #[test]
    fn a_process_that_takes_the_name_the_user_gave_is_shown_again() {
        let proc = Proc::new();
        let census = &mut Census::new(proc.root());
        let selector = Selector {
            names: vec!["shop".to_owned()],
            ..Selector::default()
        };
        let named = |name| proc.set_named(7, name, (10, 900, Some(Path::new("/usr/bin/python3"))));
        named("python3");
        assert!(chosen(census, &selector).is_empty());
        // prctl(PR_SET_NAME), as setproctitle does.
        named("shop");
        assert_eq!(chosen(census, &selector), ["shop"]);
        assert!(chosen(census, &selector).is_empty(), "once");
        named("shop: idle");
        assert!(chosen(census, &selector).is_empty());
        named("shop");
        assert_eq!(chosen(census, &selector), ["shop"]);
    }

    #[test]
    fn a_kernel_thread_is_never_shown_whatever_its_name() {
        let proc = Proc::new();
        let census = &mut Census::new(proc.root());
        for name in ["kworker/0:1-events", "kworker/0:1-mm_percpu_wq"] {
            proc.set_named(9, name, (10, 0, None));
            check(census, name, &[]);
        }
        // Nothing but its line is read again.
        proc.set_named(9, "kworker/0:1", (10, 0, Some(Path::new("/bin/service"))));
        check(census, "known as one", &[]);
    }

    #[test]
    fn what_cannot_be_read_yet_is_shown_when_it_can() {
        let proc = Proc::new();
        proc.set(7, (10, 900, "/bin/service"));
        proc.hide_exe(7);
        let census = &mut Census::new(proc.root());
        check(census, "without an executable", &[]);
        proc.set(7, (10, 900, "/bin/service"));
        check(census, "with one", &[(7, "/bin/service")]);
    }

    #[test]
    fn this_process_is_seen_once() {
        let mut census = Census::new(process::proc());
        let own = |found: Vec<Process>| found.iter().filter(|process| process.pid == std::process::id()).count();
        assert_eq!(own(census.look().unwrap()), 1);
        assert_eq!(own(census.look().unwrap()), 0);
    }
}
