//! docs/peers.md → peers: each a fenced block of TOML among prose.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Result, anyhow};
use serde::Deserialize;

/// A tool, and how it is put on a service.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) name: String,
    /// Where it is to be had.
    pub(super) from: String,
    pub(super) services: Vec<Service>,
    /// The program, looked for in PATH, and its arguments.
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// What it prints once it is in place.
    pub(super) ready: Option<String>,
    /// How long it is given to be in place when it prints nothing of the kind, s.
    #[serde(default = "settle")]
    pub(super) settle: u64,
    /// Instead of a command: what the service is asked for, and answers until the bench hangs up.
    pub(super) endpoint: Option<String>,
    /// What the demo's services lack for it: it isn't run.
    pub(super) needs: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Service {
    GoShop,
    RustStock,
}

impl Service {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::GoShop => "go-shop",
            Self::RustStock => "rust-stock",
        }
    }
}

/// What the placeholders stand for.
pub(super) struct Place {
    pub(super) pid: u32,
    pub(super) exe: PathBuf,
    pub(super) port: u16,
    /// A folder for what it writes.
    pub(super) out: PathBuf,
}

const PLACEHOLDERS: [&str; 4] = ["pid", "exe", "port", "out"];

impl Place {
    pub(super) fn fill(&self, text: &str) -> String {
        text.replace("{pid}", &self.pid.to_string())
            .replace("{exe}", &self.exe.to_string_lossy())
            .replace("{port}", &self.port.to_string())
            .replace("{out}", &self.out.to_string_lossy())
    }
}

/// The peers of a text; an error says its line.
pub(super) fn parse(text: &str) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    let mut names = BTreeSet::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let number = at + 1;
        match &mut open {
            None if line.trim_end() == "```toml" => open = Some((number, String::new())),
            None => {}
            Some((first, block)) if line.trim_end() == "```" => {
                let peer = peer(*first, block)?;
                if !names.insert(peer.name.clone()) {
                    return Err(anyhow!("line {first}: there is a peer {:?} already", peer.name));
                }
                peers.push(peer);
                open = None;
            }
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    match open {
        Some((first, _)) => Err(anyhow!("line {first}: the block is not closed")),
        None if peers.is_empty() => Err(anyhow!("line 1: there is no block of ```toml")),
        None => Ok(peers),
    }
}

/// A block that begins after line `first`.
fn peer(first: usize, block: &str) -> Result<Peer> {
    let peer: Peer = toml::from_str(block).map_err(|error| {
        // What is missing is missing in the whole block.
        let before = error
            .span()
            .map_or(0, |span| block[..span.start].matches('\n').count() + 1);
        anyhow!("line {}: {}", first + before, error.message())
    })?;
    let complaint = if peer.services.is_empty() {
        Some("no service".to_owned())
    } else if peer.command.is_empty() == peer.endpoint.is_none() {
        Some("give either a command or an endpoint".to_owned())
    } else {
        let texts = peer.command.iter().chain(peer.env.values());
        texts.flat_map(|text| unknown(text)).next().map(|name| {
            format!(
                "{{{name}}} is no placeholder; there are {{{}}}",
                PLACEHOLDERS.join("}, {")
            )
        })
    };
    match complaint {
        Some(complaint) => Err(anyhow!("line {first}: {complaint}")),
        None => Ok(peer),
    }
}

/// Words in braces that are no placeholder. A script's own braces have spaces in them.
fn unknown(text: &str) -> Vec<&str> {
    let opened = text.split('{').skip(1);
    let words = opened.filter_map(|rest| Some(rest.split_once('}')?.0));
    words
        .filter(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase()))
        .filter(|word| !PLACEHOLDERS.contains(word))
        .collect()
}

fn settle() -> u64 {
    3
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "# Peers\nProse.\n```toml\nname = \"a\"\nfrom = \"https://a.example\"\nservices = [\"go-shop\"]\n";

    fn check(rest: &str, expected: Result<&[&str], &str>) {
        let text = format!("{HEAD}{rest}");
        let found = parse(&text).map(|peers| peers.into_iter().map(|peer| peer.name).collect::<Vec<_>>());
        let found = found.map_err(|error| error.to_string());
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}\n{text}"),
            _ => panic!("{found:?}, expected {expected:?}\n{text}"),
        }
    }

    #[test]
    fn blocks() {
        check(
            "command = [\"a\", \"{pid}\", \"{exe}\", \"{port}\", \"{out}\"]\n```\n",
            Ok(&["a"]),
        );
        check("endpoint = \"/trace\"\n```\nProse.\n```sh\nname = 1\n```\n", Ok(&["a"]));
        check("command = [\"a\", \"-e\", \"probe { @x = 1 }\"]\n```\n", Ok(&["a"]));
        let other = HEAD.replace("\"a\"", "\"b\"");
        let two = format!("command = [\"a\"]\n```\n{other}command = [\"b\"]\n```\n");
        check(&two, Ok(&["a", "b"]));
    }

    #[test]
    fn malformed_blocks_are_told_with_their_line() {
        check("command = [\"a\"]\n", Err("line 3: the block is not closed"));
        check("```\n", Err("line 3: give either a command or an endpoint"));
        check("command = [\"a\"]\nendpoint = \"/\"\n```\n", Err("line 3: give either"));
        check(
            "command = [\"{pd}\"]\n```\n",
            Err("line 3: {pd} is no placeholder; there are {pid}, "),
        );
        check(
            "command = [\"a\"]\nenv = { A = \"{x}\" }\n```\n",
            Err("line 3: {x} is no placeholder"),
        );
        check("command = \"a\"\n```\n", Err("line 7: invalid type"));
        check("comand = [\"a\"]\n```\n", Err("line 7: unknown field `comand`"));
        check("command = [\n```\n", Err("line 7: "));
        let again = format!("command = [\"a\"]\n```\n{HEAD}command = [\"a\"]\n```\n");
        check(&again, Err("line 11: there is a peer \"a\" already"));
    }

    #[test]
    fn what_is_missing_in_a_block_or_the_text() {
        let told = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(told("# Peers\n"), "line 1: there is no block of ```toml");
        assert_eq!(told("\n```toml\nname = \"a\"\n```\n"), "line 3: missing field `from`");
        assert!(told(&HEAD.replace("go-shop", "shop")).starts_with("line 3: the block is not closed"));
        let unknown = format!("{}command = [\"a\"]\n```\n", HEAD.replace("go-shop", "shop"));
        assert!(told(&unknown).starts_with("line 6: unknown variant `shop`"));
    }

    #[test]
    fn placeholders() {
        let place = Place {
            pid: 7,
            exe: "/x/go-shop".into(),
            port: 80,
            out: "/out".into(),
        };
        assert_eq!(
            place.fill("{pid} {exe}:{port} {out}/t { x }"),
            "7 /x/go-shop:80 /out/t { x }"
        );
    }

    #[test]
    fn the_page_is_well_formed() {
        let text = std::fs::read_to_string(crate::sh::root().join(super::super::PAGE)).unwrap();
        assert!(parse(&text).unwrap().len() > 1);
    }
}
