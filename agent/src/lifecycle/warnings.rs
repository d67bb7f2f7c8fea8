//! Which messages about a process are warnings: each one once per executable, because a compiler may start by the hundred.

use std::{collections::HashSet, path::PathBuf};

use log::Level;

use crate::discover::Process;

/// Most messages that are remembered.
const LIMIT: usize = 4096;

/// Executables and the warnings that were logged for them.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    logged: HashSet<(PathBuf, String)>,
}

impl Warnings {
    /// The level for a message about a process' executable: a warning the first time.
    pub(super) fn level(&mut self, process: &Process, message: &str) -> Level {
        if self.logged.len() == LIMIT {
            self.logged.clear();
        }
        if self.logged.insert((process.exe.clone(), message.to_owned())) {
            Level::Warn
        } else {
            Level::Debug
        }
    }

    /// The same for an error whose cause may be that the process has just ended: then it is no warning.
    pub(super) fn level_while_alive(&mut self, process: &Process, message: &str) -> Level {
        if process.is_alive() {
            self.level(process, message)
        } else {
            Level::Debug
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_warning_once_per_executable() {
        let mut warnings = Warnings::default();
        let own = Process::read(std::process::id()).unwrap();
        let other = Process {
            exe: "/bin/other".into(),
            ..own.clone()
        };
        let mut check =
            |process: &Process, message: &str, expected: Level| assert_eq!(warnings.level(process, message), expected);
        check(&own, "stripped", Level::Warn);
        check(&own, "stripped", Level::Debug);
        check(&own, "too old", Level::Warn);
        check(&other, "stripped", Level::Warn);
        let ended = Process {
            start: own.start + 1,
            exe: "/bin/ended".into(),
            ..own
        };
        assert_eq!(warnings.level_while_alive(&ended, "stripped"), Level::Debug);
    }
}
