//! What commands print, for people. Names come from what is watched, which may want to write to a terminal of root's: whatever a
//! terminal would act on is escaped. OTLP and JSON carry names as they are, each by its own rules.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal as _, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use log::LevelFilter;

use crate::{
    aside::{Aside, Failure},
    deadline::{self, Late},
    intake::kernel_log::{self, KernelLog},
};

/// Log lines that may wait for who reads them, bytes.
const LOG: usize = 256 << 10;

/// Prints a line to standard output; what cannot be printed is no panic.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => { $crate::surface::output::line(::std::format_args!($($part)*)) };
}

/// Text as it may be shown: control characters, and those that turn the direction of writing or end a line, as Rust escapes them.
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain = self.0;
        while let Some((at, found)) = plain.char_indices().find(|(_, c)| is_active(*c)) {
            f.write_str(&plain[..at])?;
            write!(f, "{}", found.escape_default())?;
            plain = &plain[at + found.len_utf8()..];
        }
        f.write_str(plain)
    }
}

/// Whether a terminal may act on it: C0, DEL, C1; besides what reverses text, and Unicode's own ends of lines.
fn is_active(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A picture of many lines, none of which any part of it can break or colour.
#[derive(Default)]
pub struct Picture {
    pub text: String,
    line: String,
}

impl Picture {
    pub fn line(&mut self, parts: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a String does not fail.
        let _ = self.line.write_fmt(parts);
        let _ = writeln!(self.text, "{}", Shown(&self.line));
    }

    /// A line of fields, with a tab between each two.
    pub fn fields(&mut self, fields: &[&dyn fmt::Display]) {
        for (at, field) in fields.iter().enumerate() {
            self.line.clear();
            let _ = write!(self.line, "{field}");
            let tab = if at > 0 { "\t" } else { "" };
            let _ = write!(self.text, "{tab}{}", Shown(&self.line));
        }
        self.text.push('\n');
    }
}

/// How standard output is: [`OPEN`], [`CLOSED`], [`BROKEN`].
static STATE: AtomicU8 = AtomicU8::new(OPEN);
const OPEN: u8 = 0;
/// Nobody reads it any more, as after `| head`.
const CLOSED: u8 = 1;
/// It does not take what is written, as on a full disk.
const BROKEN: u8 = 2;

/// What [`say!`] is made of.
pub fn line(parts: fmt::Arguments<'_>) {
    if STATE.load(Relaxed) != OPEN {
        return;
    }
    let mut one = Picture::default();
    one.line(parts);
    picture(&one);
}

/// Prints many lines at once; false where nobody reads them any more, or they cannot be written.
pub fn picture(picture: &Picture) -> bool {
    if STATE.load(Relaxed) != OPEN {
        return false;
    }
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(picture.text.as_bytes()).and_then(|()| out.flush()) {
        drop(out);
        let closed = error.kind() == io::ErrorKind::BrokenPipe;
        STATE.store(if closed { CLOSED } else { BROKEN }, Relaxed);
        if !closed {
            log::error!("cannot write to standard output: {error}");
        }
        return false;
    }
    true
}

/// Whether something that was to be printed was not, other than for want of a reader.
pub fn is_broken() -> bool {
    STATE.load(Relaxed) == BROKEN
}

/// Prints to standard error why a command ends.
pub fn complain(parts: fmt::Arguments<'_>) {
    let text = parts.to_string();
    let lines: Vec<String> = text.lines().map(|line| Shown(line).to_string()).collect();
    // There may be no one left to tell, and one who does not read holds up no end.
    let text = lines.join("\n");
    let word = text.clone();
    let said = deadline::WORDS.within(deadline::HOST, deadline::SOON, move || {
        let _ = writeln!(io::stderr(), "whywait: {word}");
    });
    if said == Err(Late::NotAsked) {
        // No thread is to be had.
        let _ = writeln!(io::stderr(), "whywait: {text}");
    }
}

static LINES: OnceLock<Aside> = OnceLock::new();
static LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// Logs to standard error, by RUST_LOG, in a thread of its own: a terminal that stands still holds nobody up.
pub fn begin_log(kernel_log: KernelLog) {
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"));
    // Whatever RUST_LOG says.
    builder.filter_module(kernel_log::TARGET, kernel_log.filter());
    builder.format(|out, record| {
        let (time, style) = (out.timestamp_seconds(), out.default_level_style(record.level()));
        let text = record.args().to_string();
        writeln!(out, "[{time} {style}{:<5}{style:#}] {}", record.level(), Shown(&text))
    });
    match Aside::begin("log", io::stderr(), LOG, Failure::Passes) {
        Ok(lines) => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let style = if colours {
                env_logger::WriteStyle::Always
            } else {
                env_logger::WriteStyle::Never
            };
            let pipe = Box::new(Lines(LINES.get_or_init(|| lines).clone()));
            builder.write_style(style).target(env_logger::Target::Pipe(pipe)).init();
        }
        // Without a thread more, as is.
        Err(_) => builder.init(),
    }
}

/// Writes what was logged, waiting for it no longer than `most`, and logs no more.
pub fn end_log(most: Duration) {
    log::set_max_level(LevelFilter::Off);
    if let Some(lines) = LINES.get() {
        lines.finish(most);
    }
}

/// Lines that nobody took.
pub fn log_lost() -> u64 {
    if let Some((count, _)) = LINES.get().and_then(Aside::failed) {
        LINES_LOST.fetch_add(count, Relaxed);
    }
    LINES_LOST.load(Relaxed)
}

/// env_logger writes a record at a time.
struct Lines(Aside);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.0.offer(bytes.to_vec()) {
            LINES_LOST.fetch_add(1, Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(Shown(name).to_string(), expected);
        let mut picture = Picture::default();
        picture.line(format_args!("pid 7 {name}: go1.26"));
        assert_eq!(picture.text, format!("pid 7 {expected}: go1.26\n"));
    }

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        check("plain näme 名 \\ \" '", "plain näme 名 \\ \" '");
        check("\x1b]0;owned\x07", "\\u{1b}]0;owned\\u{7}");
        check("\x1b[2J\x1b[31mred", "\\u{1b}[2J\\u{1b}[31mred");
        check("two\nlines\r\t", "two\\nlines\\r\\t");
        // C1's own control sequence introducer, DEL.
        check("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}");
        // Turned round, and ended by Unicode's own means.
        check("a\u{202e}b\u{2066}\u{2028}", "a\\u{202e}b\\u{2066}\\u{2028}");
        check(&String::from_utf8_lossy(b"x\xff\x1by"), "x\u{fffd}\\u{1b}y");
        check("", "");
    }
}
