//! A URL to request, with its weight in the mix and its `{n}`.

use std::{fmt, str::FromStr};

/// The place of the counter in a URL.
const COUNTER: &str = "{n}";

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) weight: u32,
    /// Host and port to connect to, IPv6 addresses in brackets.
    pub(crate) address: String,
    /// The Host header: the authority as the user wrote it.
    host: String,
    /// Path and query, cut at each `{n}`.
    path: Vec<String>,
}

impl Target {
    /// Replaces the buffer's content with the bytes of one request.
    pub(crate) fn write_request(&self, n: u64, buffer: &mut Vec<u8>) {
        use std::io::Write as _;

        buffer.clear();
        buffer.extend_from_slice(b"GET ");
        for (index, part) in self.path.iter().enumerate() {
            if index > 0 {
                write!(buffer, "{n}").expect("a Vec takes all writes");
            }
            buffer.extend_from_slice(part.as_bytes());
        }
        write!(buffer, " HTTP/1.1\r\nHost: {}\r\nUser-Agent: load\r\n\r\n", self.host).expect("a Vec takes all writes");
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let (weight, url) = match text.split_once(':') {
            Some((weight, url)) if weight.bytes().all(|b| b.is_ascii_digit()) && !weight.is_empty() => {
                let weight = weight.parse().ok().filter(|w| (1..=1000).contains(w));
                (weight.ok_or("the weight must be from 1 to 1000")?, url)
            }
            _ => (1, text),
        };
        let rest = url.strip_prefix("http://");
        let rest = rest.ok_or("a URL that begins with http:// is needed")?;
        if let Some(odd) = rest.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("{odd:?} must be percent-encoded in a URL"));
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (host, path) = match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('?') => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_owned()),
            None => (rest, "/".to_owned()),
        };
        Ok(Target {
            weight,
            address: address(host)?,
            host: host.to_owned(),
            path: path.split(COUNTER).map(str::to_owned).collect(),
        })
    }
}

/// Adds the default port to an authority that has none.
fn address(host: &str) -> Result<String, String> {
    let after_ipv6 = host.rfind(']').map_or(0, |end| end + 1);
    let (name, port) = match host[after_ipv6..].split_once(':') {
        Some((name, port)) => (&host[..after_ipv6 + name.len()], port),
        None => (host, "80"),
    };
    if name.is_empty() || name.contains('@') || host.starts_with('[') != host.contains(']') {
        return Err(format!("{host:?} is no host"));
    }
    let port: u16 = port
        .parse()
        .map_err(|_| format!("{port:?} is no port (an IPv6 address must stand in brackets: http://[::1]:80/)"))?;
    Ok(format!("{name}:{port}"))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path.join(COUNTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares weight, address and the request line and host for n = 7.
    fn check(text: &str, expected: Option<(u32, &str, &str)>) {
        let parsed = text.parse::<Target>().ok().map(|target| {
            let mut request = Vec::new();
            target.write_request(7, &mut request);
            let request = String::from_utf8(request).unwrap();
            (
                target.weight,
                target.address,
                request.split(" HTTP/1.1").next().unwrap().to_owned(),
            )
        });
        let expected = expected.map(|(weight, address, line)| (weight, address.into(), line.into()));
        assert_eq!(parsed, expected, "{text:?}");
    }

    #[test]
    fn urls() {
        check("http://a", Some((1, "a:80", "GET /")));
        check("http://a:81/x?id={n}", Some((1, "a:81", "GET /x?id=7")));
        check("9:http://127.0.0.1:80/{n}/{n}", Some((9, "127.0.0.1:80", "GET /7/7")));
        check("http://[::1]:8080?q", Some((1, "[::1]:8080", "GET /?q")));
        check("http://[::1]/#top", Some((1, "[::1]:80", "GET /")));
        check("http://::1/", None);
        check("http://a:99999/", None);
        check("http:///x", None);
        check("https://a/", None);
        check("0:http://a/", None);
        check("http://a/b c", None);
        check("a/b", None);
    }
}
