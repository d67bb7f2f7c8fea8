//! What the commands that show goroutines' stacks share: the Go process, and a thread in which its memory is read. A read may never
//! return, so who prints waits for what that thread finds no longer than [`PATIENCE`].

use std::{
    fs::File,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    deadline,
    discover::Process,
    enrich,
    exit::{Exit, Fatal, of_process},
    inspect::{Arch, GoImage, Image, InspectError},
    model::Resource,
    runtime::{
        ProofError,
        go::{GoRuntime, Places, Unwinder},
    },
};

/// How long a process' memory, or its executable, may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Findings that wait to be taken.
const WAITING: usize = 16;

/// A Go process whose stacks can be read.
pub struct GoProcess {
    pub process: Process,
    /// The toolchain's version.
    pub version: String,
    /// Whether it is known which functions are inlined where.
    pub has_inlined: bool,
    pub arch: Arch,
    pub resource: Resource,
    pub runtime: GoRuntime,
    pub unwinder: Unwinder,
    pub places: Places,
}

impl GoProcess {
    /// Verifies that the process is what its executable says. The errors name the way out.
    pub fn open(pid: u32) -> anyhow::Result<Self> {
        let process = Process::read(pid).map_err(|error| Fatal::new(of_process(&error), error))?;
        let image = image_of(&process)?;
        let Some(go) = image.downcast_ref::<GoImage>() else {
            let name = image.name();
            let message = format!(
                "{}: runs {name}, which has no goroutines; `whywait run --pid {pid}` shows what its tasks wait for",
                shown(&process)
            );
            return Err(Fatal::new(Exit::NotATarget, message).into());
        };
        let bias = process
            .bias(&go.elf)
            .map_err(|error| Fatal::new(of_process(&error), error))?;
        let runtime = match GoRuntime::of(pid, go, bias) {
            Ok(Some(runtime)) => runtime,
            Ok(None) => {
                let error = go.unreadable().map_or_else(String::new, ToString::to_string);
                return Err(unknown(&process, &error));
            }
            Err(ProofError::Memory(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let message = format!(
                    "{}: no permission to read its memory: run as root, or with the capability SYS_PTRACE",
                    shown(&process)
                );
                return Err(Fatal::new(Exit::NoPrivilege, message).into());
            }
            Err(error) => return Err(unknown(&process, &error.to_string())),
        };
        let open = || {
            process
                .open_exe()
                .map_err(|error| Fatal::new(of_process(&error), error))
        };
        let (first, second): (File, File) = (open()?, open()?);
        let resource = enrich::resource(&process, Some(go)).context("cannot read its environment")?;
        Ok(Self {
            version: go.version.raw.clone(),
            has_inlined: go.symbols.has_inlined(),
            arch: go.arch,
            resource,
            runtime,
            unwinder: Unwinder::new(go, first, bias),
            places: Places::new(go, second, bias),
            process,
        })
    }
}

fn image_of(process: &Process) -> anyhow::Result<Box<dyn Image>> {
    let asked = process.clone();
    let inspected = deadline::FILES.within(process.pid, deadline::LONG, move || asked.inspect());
    let inspected = inspected.unwrap_or_else(|late| Ok(Err(InspectError::NoAnswer(late.to_string()))));
    match inspected.map_err(|error| Fatal::new(of_process(&error), error))? {
        Ok(Some(image)) => Ok(image),
        Ok(None) | Err(InspectError::NotElf) => {
            let message = format!(
                "{}: is no Go program: give the pid of one; `whywait doctor` lists those that run",
                shown(process)
            );
            Err(Fatal::new(Exit::NotATarget, message).into())
        }
        Err(error) => Err(unknown(process, &error.to_string())),
    }
}

/// Of a Go program in which it is not known where things are.
fn unknown(process: &Process, error: &str) -> anyhow::Error {
    let message = format!(
        "{}: {error}. A program with net/http/pprof prints its goroutines itself: /debug/pprof/goroutine?debug=2",
        shown(process)
    );
    Fatal::new(Exit::Partial, message).into()
}

fn shown(process: &Process) -> String {
    format!("pid {} {}", process.pid, process.exe.display())
}

/// What a thread finds, until it ends; an error when it finds nothing for too long.
pub struct Findings<T> {
    receive: Receiver<T>,
    pid: u32,
}

/// Runs `work` in a thread of its own, which hands over what it finds; `work` ends when nobody takes it.
pub fn begin<T: Send + 'static, W>(pid: u32, work: W) -> anyhow::Result<Findings<T>>
where
    W: FnOnce(&SyncSender<T>) + Send + 'static,
{
    let (send, receive) = mpsc::sync_channel(WAITING);
    let thread = thread::Builder::new().name("stacks".to_owned());
    thread
        .spawn(move || work(&send))
        .context("cannot start a thread that reads stacks")?;
    Ok(Findings { receive, pid })
}

impl<T> Findings<T> {
    /// The next, within `most` and what an answer may take; None at the end.
    pub fn next(&self, most: Duration) -> anyhow::Result<Option<T>> {
        match self.receive.recv_timeout(most + PATIENCE) {
            Ok(found) => Ok(Some(found)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                deadline::note_late();
                let message = format!(
                    "pid {}: its memory or its executable did not answer within {PATIENCE:?}",
                    self.pid
                );
                Err(Fatal::new(Exit::Failed, message).into())
            }
        }
    }
}
