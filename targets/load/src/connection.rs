//! One HTTP/1.1 connection, blocking, kept alive.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that hold the answer so far.
    filled: usize,
}

pub struct Answer {
    pub status: u16,
    /// When the first bytes came.
    pub first_byte: Instant,
    pub keep_alive: bool,
}

/// What follows the head.
enum Body {
    Length(usize),
    Chunked,
    UntilClose,
}

struct Head {
    status: u16,
    length: usize,
    body: Body,
    keep_alive: bool,
}

impl Connection {
    pub fn open(authority: &str, timeout: Duration) -> Result<Self> {
        let mut failed = None;
        for address in authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(timeout))?;
                    stream.set_write_timeout(Some(timeout))?;
                    return Ok(Self {
                        stream,
                        buffer: vec![0; 16 << 10],
                        filled: 0,
                    });
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.context("the name has no address")?.into())
    }

    pub fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).context("sending")?;
        self.filled = 0;
        self.read()?;
        let first_byte = Instant::now();
        let head = loop {
            match parse_head(&self.buffer[..self.filled])? {
                Some(head) => break head,
                None => self.read()?,
            }
        };
        self.skip_body(&head)?;
        Ok(Answer {
            status: head.status,
            first_byte,
            keep_alive: head.keep_alive,
        })
    }

    fn skip_body(&mut self, head: &Head) -> Result<()> {
        match head.body {
            Body::Length(length) => {
                // What doesn't fit isn't kept: nobody looks at it.
                let mut missing = (head.length + length).saturating_sub(self.filled);
                while missing > 0 {
                    self.filled = 0;
                    self.read()?;
                    missing = missing.saturating_sub(self.filled);
                }
            }
            Body::Chunked => {
                let mut at = head.length;
                loop {
                    match httparse::parse_chunk_size(&self.buffer[at..self.filled]) {
                        Ok(httparse::Status::Complete((used, size))) => {
                            let end = at + used + usize::try_from(size)? + 2;
                            while self.filled < end {
                                self.read()?;
                            }
                            if size == 0 {
                                break;
                            }
                            at = end;
                        }
                        Ok(httparse::Status::Partial) => self.read()?,
                        Err(_) => bail!("invalid chunk size"),
                    }
                }
            }
            Body::UntilClose => loop {
                self.filled = 0;
                if self.read_some()? == 0 {
                    break;
                }
            },
        }
        Ok(())
    }

    /// Reads more of the answer, which isn't complete yet.
    fn read(&mut self) -> Result<()> {
        if self.read_some()? == 0 {
            bail!("closed before the answer was complete");
        }
        Ok(())
    }

    fn read_some(&mut self) -> Result<usize> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(count) => {
                    self.filled += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    bail!("no answer within --timeout")
                }
                Err(error) => return Err(error).context("receiving"),
            }
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => bail!("no HTTP answer: {error}"),
    };
    let status = response.code.unwrap_or_default();
    // A 204 or 304 has no body, whatever its headers say.
    let mut body = if matches!(status, 204 | 304) {
        Body::Length(0)
    } else {
        Body::UntilClose
    };
    let mut keep_alive = response.version == Some(1);
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = !value.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            body = Body::Chunked;
        } else if header.name.eq_ignore_ascii_case("content-length") && matches!(body, Body::UntilClose) {
            body = Body::Length(value.parse().with_context(|| format!("content-length: {value}"))?);
        }
    }
    keep_alive &= !matches!(body, Body::UntilClose);
    Ok(Some(Head {
        status,
        length,
        body,
        keep_alive,
    }))
}
