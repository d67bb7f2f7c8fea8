//! The coarse form of `cargo xtask bench overhead`: the service's own CPU time a request, nobody watching, watched under the
//! default budget, and watched whole, in turns on one live service.

mod common;

use common::{Agent, Load, Service, attribute, load, number_of, privileged, schedstat, shop, stock};
use serde_json::Value;

const ROUNDS: usize = 3;
/// Length of a window, and of the load before it: the agent's first windows are on credit, s.
const WINDOW: u32 = 2;
const SETTLE: u32 = 3;

/// CPU time of all threads so far, ns, by the scheduler's account.
fn cpu(service: &Service) -> i64 {
    let [ran, ..] = schedstat(service.pid());
    ran
}

/// CPU time for each answer of a closed loop, ns.
fn each(service: &Service, settle: u32) -> f64 {
    let urls = [service.url("/item?id={n}")];
    if settle > 0 {
        load(&urls, 0, settle, 4);
    }
    let before = cpu(service);
    let answers = number_of(&load(&urls, 0, WINDOW, 4)["count"]);
    assert!(answers > 1000, "{answers} answers");
    (cpu(service) - before) as f64 / answers as f64
}

fn watched(service: &Service, budget: &str) -> f64 {
    let agent = Agent::run_with(
        &["--pid", &service.pid().to_string()],
        1,
        &[("WHYWAIT_BUDGET", budget), ("WHYWAIT_LIMIT_CPU", "5%")],
    );
    let each = each(service, SETTLE);
    let output = agent.stop();
    assert!(output.status.success(), "{}", output.said);
    each
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Watched whole, a request costs the service half as much again and more; what the budget leaves of that is a small part.
#[test]
fn the_budget_takes_away_most_of_what_watching_costs() {
    if !privileged() {
        return;
    }
    let stock = stock(false);
    let shop = shop(Some(&stock), &[]);
    each(&shop, 1);
    let (mut whole, mut budgeted) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare = each(&shop, 1);
        budgeted.push(watched(&shop, "1%") / bare);
        whole.push(watched(&shop, "off") / bare);
    }
    println!("CPU/request with / without: budget {budgeted:.3?}, whole {whole:.3?}");
    let (whole, budgeted) = (median(whole) - 1.0, median(budgeted) - 1.0);
    assert!(
        whole > 0.2,
        "{whole}: the probes are not in place, and this test tells nothing"
    );
    assert!(budgeted < whole / 3.0, "{budgeted} of {whole}");
}

/// The hooks of an idle service's window are called by the busy one beside it, which pays for that with a part of its budget at most;
/// and the idle one still has windows.
#[test]
fn a_busy_service_pays_little_for_an_idle_neighbours_windows() {
    if !privileged() {
        return;
    }
    let stock = stock(false);
    let shop = shop(None, &[]);
    let load = Load::start(&[stock.url("/stock/{n}")], 0, 0, 4);
    let pids = format!("{},{}", shop.pid(), stock.pid());
    let args = [
        "--pid",
        &pids,
        "--duration",
        "14s",
        "--metric-interval",
        "1s",
        "--budget-p99",
        "off",
    ];
    let before = cpu(&stock);
    let output = Agent::run_with(&args, 2, &[("WHYWAIT_BUDGET", "1%"), ("WHYWAIT_LIMIT_CPU", "5%")]).wait();
    let used = (cpu(&stock) - before) as f64;
    let answers = load.stop();
    assert!(output.status.success(), "{}", output.said);
    let points = |service, metric| output.points(service, metric);
    let sum = |points: Vec<Value>, key, value: &str| {
        let of = |point: &&Value| attribute(point, key) == Some(Value::from(value));
        let values = points.iter().filter(of).map(|point| number_of(&point["asInt"]));
        values.sum::<i64>() as f64
    };
    let idle = points("rust-stock", "whywait.overhead.cpu.time");
    let idle = sum(idle, "whywait.probe", "hook_idle") / used;
    let window = points("go-shop", "whywait.window.open");
    let seen = sum(window, "whywait.plane", "threads") / 1e9;
    println!(
        "{} answers/s; calls for the neighbour: {:.2} % of its CPU; the neighbour was seen for {seen:.1} s",
        answers["achieved_rate"],
        100.0 * idle
    );
    assert!(idle > 0.0 && idle < 0.005, "{idle} of its CPU");
    assert!(seen > 1.0, "{seen} s");
}
