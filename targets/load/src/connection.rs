//! One HTTP/1.1 keep-alive connection, with the times of each exchange.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::clock::now_ns;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a wait for an answer looks at the stop flag.
const SLICE: Duration = Duration::from_millis(100);
const MAX_HEADERS: usize = 64;

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    timeout: Duration,
}

/// One request and its answer, on CLOCK_MONOTONIC.
pub(crate) struct Exchange {
    pub(crate) status: u16,
    pub(crate) sent_ns: u64,
    pub(crate) first_byte_ns: u64,
    /// Whether the connection can carry another request.
    pub(crate) reusable: bool,
}

/// Where an answer's body ends.
#[derive(Clone, Copy)]
enum Body {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Connection {
    pub(crate) fn open(address: &str, timeout: Duration) -> anyhow::Result<Connection> {
        let mut last = None;
        for address in address
            .to_socket_addrs()
            .with_context(|| format!("resolving {address}"))?
        {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(SLICE))?;
                    stream.set_write_timeout(Some(timeout))?;
                    return Ok(Connection {
                        stream,
                        buffer: Vec::with_capacity(16 << 10),
                        timeout,
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error).with_context(|| format!("connecting to {address}")),
            None => bail!("{address} has no address"),
        }
    }

    /// Sends a request and reads the whole answer; gives up when `stop` is set and the server silent.
    pub(crate) fn exchange(&mut self, request: &[u8], stop: &AtomicBool) -> anyhow::Result<Exchange> {
        self.buffer.clear();
        let sent_ns = now_ns();
        self.stream.write_all(request).context("sending a request")?;
        let deadline_ns = sent_ns + u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX / 2);
        if self.fill(deadline_ns, stop)? == 0 {
            bail!("the server closed the connection without an answer");
        }
        let first_byte_ns = now_ns();
        loop {
            if let Some((status, keep_alive, head, body)) = parse_head(&self.buffer)? {
                let reusable = self.read_body(head, body, deadline_ns, stop)? && keep_alive;
                return Ok(Exchange {
                    status,
                    sent_ns,
                    first_byte_ns,
                    reusable,
                });
            }
            if self.fill(deadline_ns, stop)? == 0 {
                bail!("the server closed the connection in the middle of the answer's header");
            }
        }
    }

    /// Says whether the connection is still usable after the body.
    fn read_body(&mut self, head: usize, body: Body, deadline_ns: u64, stop: &AtomicBool) -> anyhow::Result<bool> {
        loop {
            let ended = match body {
                Body::Length(length) => (self.buffer.len() - head >= length).then_some(head + length),
                Body::Chunked => chunks_end(&self.buffer, head)?,
                Body::UntilClose => None,
            };
            if let Some(end) = ended {
                // Bytes behind the answer belong to no request of ours.
                return Ok(end == self.buffer.len());
            }
            if self.fill(deadline_ns, stop)? == 0 {
                match body {
                    Body::UntilClose => return Ok(false),
                    _ => bail!("the server closed the connection in the middle of an answer"),
                }
            }
        }
    }

    /// Waits for more bytes; 0 means that the server has closed.
    fn fill(&mut self, deadline_ns: u64, stop: &AtomicBool) -> anyhow::Result<usize> {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    return Ok(n);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if stop.load(Ordering::Relaxed) {
                        bail!("stopped while waiting for an answer");
                    }
                    if now_ns() >= deadline_ns {
                        bail!("no answer within {:?}", self.timeout);
                    }
                }
                Err(e) => return Err(e).context("reading an answer"),
            }
        }
    }
}

/// Gives status, keep-alive, the header's length and the kind of body, once the header is complete.
fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<(u16, bool, usize, Body)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).context("not an HTTP answer")? else {
        return Ok(None);
    };
    let status = response.code.context("an answer without a status")?;
    let mut keep_alive = response.version == Some(1);
    let mut body = Body::UntilClose;
    for header in response.headers.iter() {
        let value = str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") && !matches!(body, Body::Chunked) {
            body = Body::Length(value.parse().with_context(|| format!("Content-Length {value:?}"))?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            body = Body::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = !value.eq_ignore_ascii_case("close") && keep_alive;
        }
    }
    if matches!(status, 204 | 304) {
        body = Body::Length(0);
    }
    Ok(Some((status, keep_alive, head, body)))
}

/// Finds the end of a chunked body that begins at `at`, once all of it has come.
fn chunks_end(bytes: &[u8], mut at: usize) -> anyhow::Result<Option<usize>> {
    loop {
        let size = httparse::parse_chunk_size(&bytes[at..]);
        let Ok(size) = size else {
            bail!("an answer with a bad chunk size")
        };
        let httparse::Status::Complete((line, size)) = size else {
            return Ok(None);
        };
        // We send no TE header, so no trailers come: the last chunk is followed by an empty line.
        at += line + usize::try_from(size)? + b"\r\n".len();
        if at > bytes.len() {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_bodies() {
        let check = |body: &str, expected| {
            assert_eq!(chunks_end(body.as_bytes(), 0).ok(), expected, "{body:?}");
        };
        check("0\r\n\r\n", Some(Some(5)));
        check("3\r\nabc\r\n0\r\n\r\n", Some(Some(13)));
        check("3\r\nabc\r\n0\r\n", Some(None));
        check("3\r\nab", Some(None));
        check("A;x=y\r\n0123456789\r\n0\r\n\r\n", Some(Some(24)));
        check("zz\r\n", None);
    }
}
