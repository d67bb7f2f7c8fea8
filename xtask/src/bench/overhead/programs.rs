//! What each kernel program costs a hit, by the kernel's own account (kernel.bpf_stats_enabled), read by bpftool.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{
    cases::{CASES, Case, UNLIMITED},
    measure::Bed,
};
use crate::sh;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Time in each kernel program under the closed loops, in a run of its own, as the account itself costs.
pub(super) fn table(bed: &Bed, seconds: u32) -> Result<String> {
    let Some(accounting) = Accounting::begin()? else {
        return Ok("\nNo bpftool here: no table of the kernel programs.\n".to_owned());
    };
    let mut text = "\n## Kernel programs, closed loop, without a budget\nTime inside each program by the kernel's account; the trap of a uprobe \
                    comes on top. Hits are the whole machine's: kernel programs see every process.\n\n| load | program | hits/request | ns/hit | ns/request \
                    |\n|---|---|---|---|---|\n"
        .to_owned();
    bed.watched(UNLIMITED, seconds, |pid| {
        for case in &CASES {
            let Case { name, .. } = case;
            let before = accounting.read(pid)?;
            let window = bed.window(case, 0.0, seconds)?;
            for (program, (hits, ns)) in added(&before, &accounting.read(pid)?) {
                let (hits, ns) = (hits as f64, ns as f64);
                let _ = writeln!(
                    text,
                    "| {name} | {program} | {:.2} | {:.0} | {:.0} |",
                    hits / window.requests,
                    ns / hits,
                    ns / window.requests
                );
            }
        }
        Ok(())
    })?;
    Ok(text)
}

/// Hits and time in the program, ns, by name.
pub(in super::super) type Account = BTreeMap<String, (u64, u64)>;

#[derive(Deserialize)]
struct Program {
    id: u32,
    #[serde(default)]
    name: String,
    #[serde(default)]
    run_time_ns: u64,
    #[serde(default)]
    run_cnt: u64,
    #[serde(default)]
    bytes_xlated: u64,
}

/// The kernel's account while it is switched on; as it was before once dropped.
pub(in super::super) struct Accounting {
    before: String,
}

impl Accounting {
    /// None when there is no bpftool to read it with.
    pub(in super::super) fn begin() -> Result<Option<Self>> {
        if sh::which("bpftool").is_none() {
            return Ok(None);
        }
        let before = std::fs::read_to_string(SWITCH)?;
        std::fs::write(SWITCH, "1").context("cannot switch the kernel's account of programs on")?;
        Ok(Some(Self { before }))
    }

    /// Of the programs that process `pid` holds, by name (of which the kernel keeps 15 characters, or BTF all).
    pub(in super::super) fn read(&self, pid: u32) -> Result<Account> {
        let mut account = Account::new();
        for program in programs(pid)? {
            let entry = account.entry(program.name).or_default();
            entry.0 += program.run_cnt;
            entry.1 += program.run_time_ns;
        }
        Ok(account)
    }

    /// How many instructions they have, as the kernel has translated them.
    pub(in super::super) fn instructions(&self, pid: u32) -> Result<BTreeMap<String, u64>> {
        const INSTRUCTION: u64 = 8;
        let programs = programs(pid)?.into_iter();
        Ok(programs
            .map(|program| (program.name, program.bytes_xlated / INSTRUCTION))
            .collect())
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        std::fs::write(SWITCH, self.before.trim()).ok();
    }
}

/// The programs that a process has open.
fn programs(pid: u32) -> Result<Vec<Program>> {
    let held = held(pid)?;
    let json = sh::capture(&mut sh::cmd("bpftool", &["-j", "prog", "show"]))?;
    let programs: Vec<Program> = serde_json::from_str(&json).context("bpftool's answer")?;
    Ok(programs
        .into_iter()
        .filter(|program| held.contains(&program.id))
        .collect())
}

/// Ids of the programs that a process has open.
fn held(pid: u32) -> Result<HashSet<u32>> {
    let mut ids = HashSet::new();
    for open in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor that was closed meanwhile is no program.
        let text = std::fs::read_to_string(open?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}

/// What was added between two accounts; programs without a hit are left out.
pub(in super::super) fn added(before: &Account, after: &Account) -> Account {
    after
        .iter()
        .map(|(name, now)| {
            let then = before.get(name).copied().unwrap_or_default();
            (
                name.clone(),
                (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1)),
            )
        })
        .filter(|(_, (hits, _))| *hits > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_hit_in_between_counts() {
        let before = Account::from([("a".to_owned(), (5, 100)), ("b".to_owned(), (1, 10))]);
        let after = Account::from([
            ("a".to_owned(), (7, 160)),
            ("b".to_owned(), (1, 10)),
            ("c".to_owned(), (2, 8)),
        ]);
        let expected = Account::from([("a".to_owned(), (2, 60)), ("c".to_owned(), (2, 8))]);
        assert_eq!(added(&before, &after), expected);
    }
}
