//! A peer in place on a service, until it is dismissed.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    super::service::{Running, Used, used},
    catalogue::{Peer, Place},
};
use crate::sh;

pub(super) enum Guest {
    Program(Running),
    /// The service's answer to the endpoint: its status line and how much came after it.
    Endpoint(Line, JoinHandle<io::Result<(String, u64)>>),
}

/// A connection that is hung up when it is dropped, though the reader holds it too: the service would go on tracing.
pub(super) struct Line(TcpStream);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.shutdown(Shutdown::Both).ok();
    }
}

impl Guest {
    /// Starts `program` with the peer's arguments, or asks its endpoint, and waits until it is in place.
    pub(super) fn start(peer: &Peer, program: &Path, place: &Place) -> Result<Self> {
        if let Some(endpoint) = &peer.endpoint {
            let guest = ask(endpoint, place.port)?;
            thread::sleep(Duration::from_secs(peer.settle));
            return Ok(guest);
        }
        std::fs::create_dir_all(&place.out)?;
        let mut command = Command::new(program);
        command.args(peer.command[1..].iter().map(|arg| place.fill(arg)));
        command.envs(peer.env.iter().map(|(key, value)| (key, place.fill(value))));
        command.current_dir(&place.out);
        let wanted = peer.ready.clone();
        let lines = usize::from(wanted.is_some());
        let found = move |line: &str| wanted.as_ref().filter(|ready| line.contains(*ready)).cloned();
        let (running, _) = Running::start(command, lines, found)?;
        if lines == 0 {
            thread::sleep(Duration::from_secs(peer.settle));
        }
        used(running.pid()).with_context(|| format!("{} does not stay", peer.command[0]))?;
        Ok(Self::Program(running))
    }

    /// What it has used; None of what runs in the service itself.
    pub(super) fn used(&self) -> Result<Option<Used>> {
        match self {
            Self::Program(running) => used(running.pid()).map(Some),
            Self::Endpoint(..) => Ok(None),
        }
    }

    pub(super) fn dismiss(self) -> Result<()> {
        match self {
            Self::Program(running) => running.dismiss(),
            Self::Endpoint(line, reader) => {
                let early = reader.is_finished();
                drop(line);
                let answer = reader.join().map_err(|_| anyhow!("the reader panicked"))?;
                let (status, bytes) = answer.context("no answer from the endpoint")?;
                if !status.contains(" 200 ") || bytes == 0 {
                    bail!("the endpoint answered {:?} and {bytes} bytes", status.trim());
                }
                if early {
                    bail!("the service hung up before the end");
                }
                Ok(())
            }
        }
    }
}

/// The program of a peer: this build of the agent, or what PATH has.
pub(super) fn program(peer: &Peer, agent: &Path) -> Option<PathBuf> {
    match peer.command.first().map(String::as_str) {
        Some("whywait") => Some(agent.to_path_buf()),
        Some(name) => sh::which(name),
        None => Some(PathBuf::new()),
    }
}

/// Reads the answer, as nobody would trace what nobody reads, and throws it away.
fn ask(endpoint: &str, port: u16) -> Result<Guest> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "GET {endpoint} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = BufReader::with_capacity(1 << 16, stream.try_clone()?);
    let reader = thread::spawn(move || {
        let mut status = String::new();
        answer.read_line(&mut status)?;
        let mut bytes = 0;
        // Whatever ends it after that, hanging up among it, is its end.
        while let Ok(buffer) = answer.fill_buf() {
            let read = buffer.len();
            if read == 0 {
                break;
            }
            bytes += read as u64;
            answer.consume(read);
        }
        Ok((status, bytes))
    });
    Ok(Guest::Endpoint(Line(stream), reader))
}
