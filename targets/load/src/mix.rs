//! Which request comes next: URLs with weights, keys at random.

use std::fmt;
use std::net::ToSocketAddrs;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::connection::Connection;

/// One `--url`.
#[derive(Clone)]
pub struct Request {
    weight: u64,
    /// Host and port as in the URL, for the Host header and for connecting.
    pub authority: String,
    /// Path and query on both sides of `{n}`, which may be missing.
    before: String,
    after: Option<String>,
}

impl FromStr for Request {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (weight, url) = match text.split_once(':') {
            Some((weight, url)) if !weight.is_empty() && weight.bytes().all(|b| b.is_ascii_digit()) => (
                weight
                    .parse()
                    .map_err(|_| format!("{weight}: the weight is too large"))?,
                url,
            ),
            _ => (1, text),
        };
        if weight == 0 || weight > u64::from(u32::MAX) {
            return Err(format!("{weight}: the weight wants to be from 1 to {}", u32::MAX));
        }
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| format!("{url}: wants to begin with http://"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let host = if has_port {
            authority.rsplit_once(':').map_or("", |(host, _)| host)
        } else {
            authority
        };
        if host.is_empty() || !url.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("{url}: wants to be like http://host:port/path"));
        }
        let authority = if has_port {
            authority.to_string()
        } else {
            format!("{authority}:80")
        };
        let path = if path.is_empty() { "/" } else { path };
        let (before, after) = match path.split_once("{n}") {
            Some((before, after)) => (before.to_string(), Some(after.to_string())),
            None => (path.to_string(), None),
        };
        Ok(Self {
            weight,
            authority,
            before,
            after,
        })
    }
}

impl Request {
    /// Connects once, so that a wrong address is told before any load, with its URL.
    pub fn check(&self, timeout: Duration) -> Result<()> {
        self.authority
            .to_socket_addrs()
            .with_context(|| format!("{self}: no such host"))?;
        Connection::open(&self.authority, timeout)
            .map(drop)
            .with_context(|| format!("{self}: not reachable"))
    }

    fn write(&self, key: u64, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(b"GET ");
        into.extend_from_slice(self.before.as_bytes());
        if let Some(after) = &self.after {
            into.extend_from_slice(key.to_string().as_bytes());
            into.extend_from_slice(after.as_bytes());
        }
        into.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        into.extend_from_slice(self.authority.as_bytes());
        into.extend_from_slice(b"\r\n\r\n");
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, after) = self.after.as_deref().map_or(("", ""), |after| ("{n}", after));
        write!(f, "http://{}{}{key}{after}", self.authority, self.before)
    }
}

pub struct Mix {
    requests: Vec<Request>,
    weights: u64,
    keys: u64,
}

impl Mix {
    pub fn new(requests: Vec<Request>, keys: u64) -> Self {
        let weights = requests.iter().map(|request| request.weight).sum();
        Self {
            requests,
            weights,
            keys,
        }
    }

    /// Writes the next request's bytes, and says which URL's it is.
    pub fn next(&self, random: &mut Random, into: &mut Vec<u8>) -> (usize, &str) {
        let mut left = random.below(self.weights);
        let mut chosen = 0;
        while left >= self.requests[chosen].weight {
            left -= self.requests[chosen].weight;
            chosen += 1;
        }
        let request = &self.requests[chosen];
        request.write(random.below(self.keys), into);
        (chosen, &request.authority)
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }
}

/// xorshift64*: plenty for choosing keys.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}
