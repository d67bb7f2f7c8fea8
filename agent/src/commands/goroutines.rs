//! `whywait goroutines`: the stacks of all goroutines of a process, as net/http/pprof's goroutine?debug=2 prints them, or grouped as
//! debug=1 does. Out of the process' memory: it is not stopped, and nothing is loaded into the kernel.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::mpsc::SyncSender,
    time::Duration,
};

use super::stacks::{self, GoProcess};
use crate::{
    cli::GoroutinesArgs,
    clock,
    exit::{Exit, Fatal},
    runtime::go::{Goroutine, Looked, NoStack, Places, Stack, StackFrame, State, is_shown},
    signals::go::origins::is_system,
    surface::output::{self, Picture},
};

/// Bytes that are printed at once.
const CHUNK: usize = 64 << 10;
/// PCs of all stacks that are kept to be grouped: 32 MB. Goroutines with another stack than those are counted.
const KEPT: usize = 2 << 20;

/// What the thread that reads hands over.
enum Found {
    Text(Picture),
    End(std::io::Result<Looked>, Counts),
}

/// Goroutines by what became of them.
#[derive(Default)]
struct Counts {
    shown: u64,
    /// The runtime's own, which are not shown.
    hidden: u64,
    cut: u64,
    without: BTreeMap<NoStack, u64>,
    /// Not grouped, as there are too many different stacks.
    ungrouped: u64,
}

/// Prints all goroutines, and at the end how many of them have no stack.
pub fn run(args: &GoroutinesArgs) -> anyhow::Result<Exit> {
    let process = GoProcess::open(args.pid)?;
    let (grouped, system) = (args.grouped, args.system);
    let has_inlined = process.has_inlined;
    let name = format!(
        "pid {} {}, {}",
        args.pid,
        process.process.exe.display(),
        process.version
    );
    let findings = stacks::begin(args.pid, move |send: &SyncSender<Found>| {
        let end = if grouped {
            print_grouped(process, system, send)
        } else {
            print_all(process, system, send)
        };
        // Nobody takes it when the command has ended.
        let _ = send.send(end);
    })?;
    while let Some(found) = findings.next(Duration::ZERO)? {
        match found {
            Found::Text(picture) => {
                if !output::picture(&picture) {
                    return Ok(Exit::Ok);
                }
            }
            Found::End(looked, counts) => {
                let looked = looked.map_err(|error| {
                    let message = format!("pid {}: its memory cannot be read any more: {error}", args.pid);
                    Fatal::new(Exit::TargetEnded, message)
                })?;
                output::picture(&summary(&name, &looked, &counts, has_inlined));
                return Ok(Exit::Ok);
            }
        }
    }
    Err(Fatal::new(
        Exit::Failed,
        "the thread that reads stacks ended early: please report it",
    )
    .into())
}

/// One goroutine after the other, as they are read: no more of them is kept than a chunk of text.
fn print_all(process: GoProcess, system: bool, send: &SyncSender<Found>) -> Found {
    let GoProcess {
        runtime,
        mut unwinder,
        mut places,
        ..
    } = process;
    let (mut counts, mut picture) = (Counts::default(), Picture::default());
    let now = clock::now().0;
    let looked = runtime.stacks(&mut unwinder, |goroutine| {
        if !counts.note(&goroutine, system, &mut places) {
            return;
        }
        let printer = Printer {
            reasons: &runtime.wait_reasons,
            now,
            system,
        };
        printer.goroutine(&goroutine, &mut places, &mut picture);
        if picture.text.len() >= CHUNK {
            let _ = send.send(Found::Text(std::mem::take(&mut picture)));
        }
    });
    let _ = send.send(Found::Text(picture));
    Found::End(looked, counts)
}

/// Each stack once, with how many goroutines have it in the same state, most first.
fn print_grouped(process: GoProcess, system: bool, send: &SyncSender<Found>) -> Found {
    type Group = (Stack, State, u32);
    let GoProcess {
        runtime,
        mut unwinder,
        mut places,
        ..
    } = process;
    let (mut counts, mut groups, mut kept) = (Counts::default(), HashMap::<Group, u64>::new(), 0);
    let looked = runtime.stacks(&mut unwinder, |goroutine| {
        if !counts.note(&goroutine, system, &mut places) {
            return;
        }
        let (state, reason) = (goroutine.seen.state, goroutine.seen.reason);
        let stack = goroutine
            .stack
            .unwrap_or_else(|_| start(goroutine.seen.startpc, &places));
        let size = stack.pcs.len();
        let group = (stack, state, reason);
        if let Some(count) = groups.get_mut(&group) {
            *count += 1;
        } else if kept + size <= KEPT {
            kept += size;
            groups.insert(group, 1);
        } else {
            counts.ungrouped += 1;
        }
    });
    let mut picture = Picture::default();
    picture.line(format_args!("goroutine profile: total {}", counts.shown));
    let mut groups: Vec<(Group, u64)> = groups.into_iter().collect();
    groups.sort_unstable_by(|(stack, count), (other, than)| {
        (Reverse(count), &stack.0.pcs).cmp(&(Reverse(than), &other.0.pcs))
    });
    for ((stack, state, reason), count) in groups {
        let bias = places.bias;
        let addresses: Vec<String> = stack
            .pcs
            .iter()
            .map(|pc| format!("{:#x}", pc.vaddr.wrapping_add(bias)))
            .collect();
        picture.line(format_args!("{count} @ {}", addresses.join(" ")));
        picture.line(format_args!(
            "# state: {}",
            state_of(state, reason, &runtime.wait_reasons)
        ));
        for at in visible(places.frames(&stack), system) {
            let address = at.pc.place().wrapping_add(bias);
            let function = format!(
                "{}+{:#x}",
                at.frame.function,
                at.offset.saturating_sub(u64::from(at.pc.is_call))
            );
            let place = format!("{}:{}", at.frame.file, at.frame.line);
            picture.fields(&[&"#", &format_args!("{address:#x}"), &function, &place]);
        }
        picture.text.push('\n');
        if picture.text.len() >= CHUNK && send.send(Found::Text(std::mem::take(&mut picture))).is_err() {
            break;
        }
    }
    let _ = send.send(Found::Text(picture));
    Found::End(looked, counts)
}

/// In place of a stack: the function that the goroutine was started with.
pub(super) fn start(startpc: u64, places: &Places) -> Stack {
    Stack {
        pcs: vec![places.start(startpc)],
        is_cut: true,
    }
}

/// Whether a goroutine is one of the runtime's own.
pub(super) fn is_own(goroutine: &Goroutine, places: &mut Places) -> bool {
    places
        .started_with(goroutine.seen.startpc)
        .is_some_and(|function| is_system(&function))
}

impl Counts {
    /// Counts a goroutine; whether it is to be shown.
    fn note(&mut self, goroutine: &Goroutine, system: bool, places: &mut Places) -> bool {
        if !system && is_own(goroutine, places) {
            self.hidden += 1;
            return false;
        }
        self.shown += 1;
        match &goroutine.stack {
            Ok(stack) => self.cut += u64::from(stack.is_cut),
            Err(reason) => *self.without.entry(*reason).or_default() += 1,
        }
        true
    }
}

/// How goroutines are printed.
struct Printer<'a> {
    reasons: &'a [String],
    /// CLOCK_MONOTONIC, ns.
    now: u64,
    system: bool,
}

impl Printer<'_> {
    fn goroutine(&self, goroutine: &Goroutine, places: &mut Places, picture: &mut Picture) {
        let seen = &goroutine.seen;
        let mut state = state_of(seen.state, seen.reason, self.reasons);
        let minutes = self.now.saturating_sub(goroutine.since) / 60_000_000_000;
        if matches!(seen.state, State::Waiting | State::Syscall | State::Cgo) && goroutine.since != 0 && minutes > 0 {
            state += &format!(", {minutes} minutes");
        }
        if goroutine.is_locked {
            state += ", locked to thread";
        }
        picture.line(format_args!("goroutine {} [{state}]:", seen.goid));
        match &goroutine.stack {
            Ok(stack) => {
                for at in visible(places.frames(stack), self.system) {
                    picture.line(format_args!("{}(...)", at.frame.function));
                    place(&at, picture);
                }
                if stack.is_cut {
                    picture.line(format_args!("...additional frames elided..."));
                }
            }
            Err(NoStack::Running) => picture.fields(&[&"", &"goroutine running on other thread; stack unavailable"]),
            Err(reason) => picture.fields(&[&"", &format_args!("stack unavailable: {reason}")]),
        }
        let creator = places.creator(seen.gopc);
        let creator = creator.filter(|at| seen.goid != 1 && (self.system || is_shown(&at.frame.function, false)));
        if let Some(at) = creator {
            let parent = goroutine.parent.filter(|parent| *parent != 0);
            let parent = parent.map_or_else(String::new, |parent| format!(" in goroutine {parent}"));
            picture.line(format_args!("created by {}{parent}", at.frame.function));
            place(&at, picture);
        }
        picture.text.push('\n');
    }
}

/// The frames that the runtime shows; all of them where it would show none.
fn visible(frames: Vec<StackFrame>, system: bool) -> Vec<StackFrame> {
    let mut shown: Vec<StackFrame> = Vec::new();
    if !system {
        for at in &frames {
            if is_shown(&at.frame.function, shown.is_empty()) {
                shown.push(at.clone());
            }
        }
    }
    if shown.is_empty() { frames } else { shown }
}

fn place(at: &StackFrame, picture: &mut Picture) {
    let (file, line) = (&at.frame.file, at.frame.line);
    match at.offset {
        offset if offset > 0 && !at.is_inlined => picture.fields(&[&"", &format_args!("{file}:{line} +{offset:#x}")]),
        _ => picture.fields(&[&"", &format_args!("{file}:{line}")]),
    }
}

/// As the runtime prints it: the wait reason of one that waits.
pub(super) fn state_of(state: State, reason: u32, reasons: &[String]) -> String {
    let reason = reasons.get(reason as usize).filter(|reason| !reason.is_empty());
    match (state, reason) {
        (State::Waiting, Some(reason)) => reason.clone(),
        // The runtime knows a call into C only as a system call.
        (State::Cgo, _) => State::Syscall.name().to_owned(),
        _ => state.name().to_owned(),
    }
}

fn summary(name: &str, looked: &Looked, counts: &Counts, has_inlined: bool) -> Picture {
    let mut picture = Picture::default();
    let Counts { shown, hidden, .. } = counts;
    let without: u64 = counts.without.values().sum();
    picture.line(format_args!(
        "# {name}: {shown} goroutines, {} with their stacks; the runtime's own, not shown: {hidden}",
        shown - without
    ));
    for (reason, count) in &counts.without {
        picture.line(format_args!("# {count} without a stack: {reason}"));
    }
    if counts.cut > 0 {
        picture.line(format_args!(
            "# {} stacks are longer than what is shown of them",
            counts.cut
        ));
    }
    if counts.ungrouped > 0 {
        picture.line(format_args!(
            "# {} left out: too many different stacks to group",
            counts.ungrouped
        ));
    }
    if looked.unread > 0 {
        picture.line(format_args!(
            "# {} entries of the runtime's table could not be read, or are beyond the number that is looked at",
            looked.unread
        ));
    }
    if !has_inlined {
        picture.line(format_args!(
            "# inlined functions are missing: where this build says which are inlined is not known"
        ));
    }
    picture
}
