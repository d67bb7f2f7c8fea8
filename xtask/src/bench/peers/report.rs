//! docs/bench/peers.md.

use std::fmt::Write as _;

use anyhow::Result;

use super::{
    super::{
        plot::{self, Panel},
        service::{self, Window},
        stats::{Estimate, estimate, median},
    },
    CASES, Outcome, PAGE, Pair, Peer, WARM,
};

pub(super) fn report(peers: &[Peer], outcomes: &[Outcome], pairs: usize, seconds: u32) -> String {
    let mut text = format!(
        "# Cost of peers\nMeasured by `cargo xtask bench peers` with the command lines of [{PAGE}](../peers.md): {pairs} pairs of \
         windows of {seconds} s, each after {WARM} s of the same load, without and with a peer in turns, on the same live processes. \
         Closed loops of 4 connections; the ping-pong (5000 round trips between two goroutines per request) has 1. {}; load generator, \
         services and peers share the cores.\nA peer watches one service at a time. Ratios are with / without: the median of the \
         pairs, and its 95 % interval (bootstrap of the pairs' ratios). CPU/request is that of the service's threads; the peer's own \
         CPU is a separate column, as a share of a core, and is additional.\n\n",
        service::machine()
    );
    text += "![CPU/request with a peer over that without](peers.svg)\n\n";
    text += "| peer | load | requests/s | CPU/request, µs | requests/s ratio | CPU/request ratio | p50 ratio | p99 ratio | own CPU | own RSS, MiB |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|\n";
    let mut absent = String::new();
    for (peer, outcome) in peers.iter().zip(outcomes) {
        let _ = match outcome {
            Outcome::Measured(pairs) => {
                text += &rows(&peer.name, pairs);
                Ok(())
            }
            Outcome::NotFound => writeln!(
                absent,
                "- {}: `{}` is not in PATH; <{}>",
                peer.name, peer.command[0], peer.from
            ),
            Outcome::Failed(why) => writeln!(absent, "- {}: {why}; <{}>", peer.name, peer.from),
        };
    }
    if !absent.is_empty() {
        text += "\n## Not measured here\n";
        text += &absent;
    }
    text
}

/// CPU/request with each peer over that without, a panel for each load.
pub(super) fn picture(peers: &[Peer], outcomes: &[Outcome]) -> Result<String> {
    let figure = |outcome: &Outcome, number: usize| -> Option<Estimate> {
        let Outcome::Measured(pairs) = outcome else { return None };
        let pairs = pairs.iter().filter(|pair| pair.case == number);
        let ratios: Vec<f64> = pairs.map(|pair| pair.with.cpu / pair.alone.cpu).collect();
        estimate(&ratios)
    };
    let panel = |(number, name): (usize, &str)| Panel {
        title: format!("{name}: CPU/request, with / without"),
        rows: peers
            .iter()
            .zip(outcomes)
            .filter_map(|(peer, outcome)| Some((peer.name.clone(), figure(outcome, number)?)))
            .collect(),
        even: Some(1.0),
        bar: None,
    };
    let panels: Vec<Panel> = CASES.iter().map(|case| case.name).enumerate().map(panel).collect();
    plot::panels(&panels)
}

fn rows(name: &str, pairs: &[Pair]) -> String {
    let mut text = String::new();
    for (number, case) in CASES.iter().enumerate() {
        let pairs: Vec<&Pair> = pairs.iter().filter(|pair| pair.case == number).collect();
        if pairs.is_empty() {
            continue;
        }
        let middle = |figure: &dyn Fn(&Pair) -> f64| {
            let mut values: Vec<f64> = pairs.iter().map(|pair| figure(pair)).collect();
            median(&mut values)
        };
        let ratio = |figure: fn(&Window) -> f64| {
            let ratios: Vec<f64> = pairs
                .iter()
                .map(|pair| figure(&pair.with) / figure(&pair.alone))
                .collect();
            estimate(&ratios).map_or_else(String::new, |ratio| {
                format!("{:.3} ({:.3}–{:.3})", ratio.value, ratio.low, ratio.high)
            })
        };
        let own = match pairs[0].own {
            None => "in the service | in the service".to_owned(),
            Some(_) => {
                let of = |pair: &Pair| pair.own.unwrap_or_default();
                let (cpu, rss) = (middle(&|pair| of(pair).0), middle(&|pair| of(pair).1));
                format!("{:.1} % | {rss:.0}", cpu * 100.0)
            }
        };
        let _ = writeln!(
            text,
            "| {name} | {} | {:.0} → {:.0} | {:.1} → {:.1} | {} | {} | {} | {} | {own} |",
            case.name,
            middle(&|pair| pair.alone.per_second),
            middle(&|pair| pair.with.per_second),
            middle(&|pair| pair.alone.cpu / 1e3),
            middle(&|pair| pair.with.cpu / 1e3),
            ratio(|window| window.per_second),
            ratio(|window| window.cpu),
            ratio(|window| window.p50),
            ratio(|window| window.p99),
        );
    }
    text
}
