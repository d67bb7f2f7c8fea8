//! System calls: how long each kind takes, whose they are, and the long ones.

use std::borrow::Cow;

use agent_common::{histogram::Series, hits::HitKind, thread::syscall::Syscall};

use crate::{
    aggregate::store::Reading,
    model::{Attribute, Metric, MonoNs, Span, SpanKind},
    signal::{Alternative, Hook, Point},
    signals::events::{Addresses, EventKind, SignalEvent},
    signals::go::origins::{self, function_attributes},
    signals::points::{distribution, slow_span},
    signals::{Signal, State},
    target::Target,
    telemetry::{
        go::GOROUTINE_ID,
        thread::{
            THREAD_ID,
            syscall::{DEFS, SYSCALL_DURATION, SYSCALL_NAME},
        },
    },
};

pub const NAME: &str = "thread.syscall";

/// What the agent knows of it.
pub const SIGNAL: Signal = Signal {
    probes: &[HitKind::ThreadSyscall],
    series: &[Series::Syscall, Series::GoSyscall],
    hook: Some(HOOK),
    events: &[EventKind::of::<Syscall>()],
    ..Signal::new(NAME, &DEFS, metrics)
};

const HOOK: Hook = Hook {
    signal: NAME,
    alternatives: &[Alternative {
        name: "tp_btf/sys_enter,sys_exit",
        programs: &[
            ("thread_sys_exit", Point::TpBtf("sys_exit")),
            ("thread_sys_enter", Point::TpBtf("sys_enter")),
        ],
        without_ipv6: None,
    }],
    windowed: true,
    asked: Some(
        "while a window of the hooks is open, every system call on this host takes longer (docs/design/probes.md)",
    ),
};

/// "NUMBER NAME" a line (Linux, arch/x86/entry/syscalls/syscall_64.tbl).
#[cfg(target_arch = "x86_64")]
const NAMES: &str = include_str!("syscalls_amd64.txt");
/// The same (Linux, include/uapi/asm-generic/unistd.h).
#[cfg(target_arch = "aarch64")]
const NAMES: &str = include_str!("syscalls_arm64.txt");

/// What a system call is called; its number where it is newer than the table.
fn name(number: u32) -> Cow<'static, str> {
    let found = NAMES.lines().find_map(|line| {
        let (known, name) = line.split_once(' ')?;
        (known.parse() == Ok(number)).then_some(name)
    });
    found.map_or_else(|| Cow::Owned(number.to_string()), Cow::Borrowed)
}

impl SignalEvent for Syscall {
    fn add_spans(&self, target: &Target, state: &mut State, spans: &mut Vec<Span>) {
        spans.push(span(self, target, state));
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            starts: vec![self.startpc],
            places: Vec::new(),
        }
    }
}

/// A long system call.
pub fn span(call: &Syscall, target: &Target, state: &mut State) -> Span {
    let name = name(call.number);
    let mut attributes = vec![
        Attribute::new(SYSCALL_NAME, name.to_string()),
        Attribute::new(THREAD_ID, i64::from(call.header.tid)),
    ];
    if call.goid != 0 {
        attributes.push(Attribute::new(GOROUTINE_ID, call.goid as i64));
        attributes.extend(function_attributes(call.startpc, target));
    }
    slow_span(
        state,
        (Series::Syscall, call.number),
        format!("syscall {name}"),
        SpanKind::Internal,
        (MonoNs(call.since), MonoNs(call.header.time)),
        attributes,
    )
}

/// How long system calls took by kind, and by the origin of the goroutines that made them.
pub fn metrics(target: &Target, state: &State, reading: &Reading) -> Vec<Metric> {
    let mut metrics = distribution(&SYSCALL_DURATION, target, state, Series::Syscall, reading, |number| {
        vec![Attribute::new(SYSCALL_NAME, name(number).to_string())]
    });
    metrics.extend(origins::syscalls(target, state, reading));
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_names() {
        let (read, connect) = if cfg!(target_arch = "x86_64") {
            (0, 42)
        } else {
            (63, 203)
        };
        assert_eq!((name(read), name(connect)), ("read".into(), "connect".into()));
        assert_eq!(name(1 << 20), "1048576");
    }

    #[test]
    fn every_line_is_a_number_and_a_name() {
        for table in [include_str!("syscalls_amd64.txt"), include_str!("syscalls_arm64.txt")] {
            assert!(table.lines().count() > 250);
            for line in table.lines() {
                let number = line.split_once(' ').and_then(|(number, _)| number.parse::<u32>().ok());
                assert!(number.is_some(), "{line}");
            }
        }
    }
}
