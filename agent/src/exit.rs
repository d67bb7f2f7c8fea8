//! How a run ends, as the process' exit code.

use std::process::{ExitCode, Termination};

use crate::discover::ProcessError;

/// Exit codes, documented in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    /// Anything without a code of its own.
    Failed = 1,
    /// The command line, or a variable in its place, cannot be understood; clap's own code too.
    Usage = 2,
    /// eBPF or a process' memory is not permitted.
    NoPrivilege = 3,
    /// A process that was named is not there.
    NoSuchProcess = 4,
    /// A process that was named is no Go or tokio service.
    NotATarget = 5,
    /// The kernel lacks what whywait needs.
    UnsupportedKernel = 6,
    /// A signal of a named service is off that was not left out: its build, its version or the kernel does not permit it.
    Partial = 7,
    /// Every named service ended before the run did.
    TargetEnded = 8,
    /// Nothing could be delivered to the OTLP endpoint, or written.
    Undelivered = 9,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// An error that ends the run with a code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    pub exit: Exit,
    pub message: String,
}

impl Fatal {
    /// An error for people and its code for scripts.
    pub fn new(exit: Exit, message: impl ToString) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }
}

/// The code an error ends the process with.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Fatal>().map_or(Exit::Failed, |fatal| fatal.exit)
}

/// The code for a process that cannot be read.
pub fn of_process(error: &ProcessError) -> Exit {
    match error {
        ProcessError::NotFound(_) | ProcessError::Ended { .. } => Exit::NoSuchProcess,
        ProcessError::NoPermission { .. } => Exit::NoPrivilege,
        ProcessError::KernelThread { .. } => Exit::NotATarget,
        _ => Exit::Failed,
    }
}

/// An error with its causes on one line; what a cause repeats of its effect is left out.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}
