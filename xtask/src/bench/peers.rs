//! Cost of tools of the agent's kind on the same services, as far as they are installed: windows without and with in turns.

mod catalogue;
mod guest;
mod report;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    catalogue::{Peer, Place, Service},
    guest::Guest,
};
use super::service::{self, Running, Window};
use crate::{progress, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// Windows without each peer, each followed by one with it
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Length of a window
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Measure the agent and the services as they are built
    #[arg(long)]
    as_built: bool,
}

/// The peers, and how each is run.
const PAGE: &str = "docs/peers.md";
/// Load of the same kind before each window, s.
const WARM: u32 = 1;

struct Case {
    name: &'static str,
    service: Service,
    path: &'static str,
    connections: u32,
}

/// All closed loops.
const CASES: [Case; 3] = [
    Case {
        name: "go-shop",
        service: Service::GoShop,
        path: "/item?id={n}",
        connections: 4,
    },
    Case {
        name: "go-shop, ping-pong",
        service: Service::GoShop,
        path: "/chan?n=5000",
        connections: 1,
    },
    Case {
        name: "rust-stock",
        service: Service::RustStock,
        path: "/stock/{n}",
        connections: 4,
    },
];

/// A window without a peer and the one with it that came next.
struct Pair {
    case: usize,
    alone: Window,
    with: Window,
    /// The peer's own CPU time over the second, as a share of a core, and its memory in MiB after it.
    own: Option<(f64, f64)>,
}

/// What became of a peer.
enum Outcome {
    Measured(Vec<Pair>),
    NotFound,
    /// It could not be run, and why.
    Failed(String),
}

pub(super) fn run(options: Options) -> Result<()> {
    if !sh::is_root() {
        bail!("most peers attach as root only: run this as root");
    }
    if options.pairs == 0 || options.seconds == 0 {
        bail!("--pairs and --seconds start at 1");
    }
    let text = std::fs::read_to_string(sh::root().join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let peers = catalogue::parse(&text).with_context(|| PAGE.to_owned())?;
    let (agent, folder) = service::programs(options.as_built)?;
    let bed = Bed::start(folder)?;
    let mut outcomes: Vec<Outcome> = peers.iter().map(|peer| first(peer, &agent)).collect();
    for round in 1..=options.pairs {
        for (peer, outcome) in peers.iter().zip(&mut outcomes) {
            let (Outcome::Measured(pairs), Some(program)) = (&mut *outcome, guest::program(peer, &agent)) else {
                continue;
            };
            progress::note(&format!("pair {round} of {}, {}", options.pairs, peer.name));
            match bed.pairs(peer, &program, options.seconds) {
                Ok(more) => pairs.extend(more),
                Err(error) => {
                    progress::note(&format!("{} is left out: {error:#}", peer.name));
                    *outcome = Outcome::Failed(format!("{error:#}"));
                }
            }
        }
    }
    let text = report::report(&peers, &outcomes, options.pairs, options.seconds);
    service::keep("peers.svg", &report::picture(&peers, &outcomes)?)?;
    service::publish("peers.md", &text)
}

fn first(peer: &Peer, agent: &Path) -> Outcome {
    if let Some(needs) = &peer.needs {
        return Outcome::Failed(format!("it needs {needs}"));
    }
    match guest::program(peer, agent) {
        Some(_) => Outcome::Measured(Vec::new()),
        None => {
            progress::note(&format!(
                "{} is not in PATH; it is to be had at {}",
                peer.command[0], peer.from
            ));
            Outcome::NotFound
        }
    }
}

/// The services that live through the whole run, and their addresses.
struct Bed {
    folder: PathBuf,
    shop: (Running, String),
    stock: (Running, String),
}

impl Bed {
    fn start(folder: PathBuf) -> Result<Self> {
        let stock = service::service(&folder, "rust-stock", &[])?;
        let shop = service::service(&folder, "go-shop", &["--stock", &format!("http://{}", stock.1)])?;
        Ok(Self { folder, shop, stock })
    }

    fn of(&self, service: Service) -> &(Running, String) {
        match service {
            Service::GoShop => &self.shop,
            Service::RustStock => &self.stock,
        }
    }

    /// A pair of each load of each of the peer's services; one service is watched at a time.
    fn pairs(&self, peer: &Peer, program: &Path, seconds: u32) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        for service in &peer.services {
            let cases: Vec<usize> = (0..CASES.len())
                .filter(|case| CASES[*case].service == *service)
                .collect();
            let alone: Vec<Window> = cases
                .iter()
                .map(|case| self.window(*case, seconds))
                .collect::<Result<_>>()?;
            let guest = Guest::start(peer, program, &self.place(*service)?)?;
            for (case, alone) in cases.into_iter().zip(alone) {
                self.load(case, WARM)?;
                let (before, began) = (guest.used()?, Instant::now());
                let with = self.load(case, seconds)?;
                let took = began.elapsed().as_secs_f64();
                let own = before.zip(guest.used()?);
                let own = own.map(|(before, after)| ((after.cpu - before.cpu) / took, after.rss));
                pairs.push(Pair { case, alone, with, own });
            }
            guest.dismiss()?;
        }
        Ok(pairs)
    }

    fn place(&self, service: Service) -> Result<Place> {
        let (running, address) = self.of(service);
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        let exe = self.folder.join(service.name());
        Ok(Place {
            pid: running.pid(),
            exe: exe.canonicalize()?,
            port: port.with_context(|| format!("no port in {address}"))?,
            out: sh::target().join("xtask/bench-peers"),
        })
    }

    fn window(&self, case: usize, seconds: u32) -> Result<Window> {
        self.load(case, WARM)?;
        self.load(case, seconds)
    }

    fn load(&self, case: usize, seconds: u32) -> Result<Window> {
        let case = &CASES[case];
        let (running, address) = self.of(case.service);
        let url = format!("http://{address}{}", case.path);
        service::window(&self.folder, running.pid(), &url, (0.0, case.connections), seconds)
    }
}
