//! What a signal is to those who need not know which one: how much of it there is, and the kernel's hooks that it can be had by.

/// Why a signal is off that the user did not want.
pub const LEFT_OUT: &str = "left out by --without";

/// How much of a signal there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    Full,
    /// Something is missing; the figures say less than they could.
    Partial(String),
    Off(String),
    /// Off since this version of the runtime has nothing of the kind: nothing is missing that there could be.
    Lacking(String),
}

impl Coverage {
    /// Whether nothing comes of the signal.
    pub fn is_off(&self) -> bool {
        matches!(self, Self::Off(_) | Self::Lacking(_))
    }

    /// Adds something that is missing; what was off stays off, for its own reason.
    pub fn lessen(&mut self, reason: &str) {
        *self = match std::mem::replace(self, Self::Full) {
            Self::Full => Self::Partial(reason.to_owned()),
            Self::Partial(before) => Self::Partial(format!("{before}; {reason}")),
            off => off,
        };
    }

    /// Takes it away; what was off keeps its own reason.
    pub fn end(&mut self, reason: &str) {
        if !self.is_off() {
            *self = Self::Off(reason.to_owned());
        }
    }
}

/// A signal of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalState {
    pub signal: &'static str,
    pub coverage: Coverage,
}

/// Whether a signal is off that the user wanted, and that there could be.
pub fn is_dark(states: &[SignalState]) -> bool {
    let dark = |state: &SignalState| matches!(&state.coverage, Coverage::Off(reason) if reason != LEFT_OUT);
    states.iter().any(dark)
}

/// How one program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A BTF-typed raw tracepoint, by its name.
    TpBtf(&'static str),
    /// The exit of a kernel function, by its name.
    FExit(&'static str),
}

/// Programs that together give a hook its signal.
#[derive(Debug)]
pub struct Alternative {
    pub name: &'static str,
    /// Program name in the object, and where it goes.
    pub programs: &'static [HookProgram],
    /// What is not told by it where the host has IPv6.
    pub without_ipv6: Option<&'static str>,
}

/// A signal of plane 1.
#[derive(Debug)]
pub struct Hook {
    pub signal: &'static str,
    /// In order of preference.
    pub alternatives: &'static [Alternative],
    /// Called so often that it is detached while no target's window is open.
    pub windowed: bool,
    /// Attached only when asked for by `--with`, and why.
    pub asked: Option<&'static str>,
}

/// A program of a hook, and where it goes.
pub type HookProgram = (&'static str, Point);
