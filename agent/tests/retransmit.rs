//! Segments that are sent again, against a network that loses a known number of them and against the kernel's own count.

mod common;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "common/delay.rs"]
mod delay;

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::{Agent, Service, attribute, demo, number_of, privileged};
use delay::{Delay, FAR};
use serde_json::Value;

/// For what is still on its way when a load ends.
const SETTLE: Duration = Duration::from_millis(500);

#[test]
fn what_the_kernel_sends_again_is_counted_by_peer_and_state() {
    if !privileged() {
        return;
    }
    let (delay, dropped) = Delay::losing(Duration::from_millis(5));
    let ip = Path::new("ip");
    let listen = format!("{FAR}:0");
    let stock_program = demo("rust-stock");
    let mut args = delay.far(&stock_program);
    args.extend(["--listen", &listen]);
    let stock = Service::start(ip, &args, &[]);
    let (stock_url, shop_program) = (stock.url(""), demo("go-shop"));
    let mut args = delay.near(&shop_program);
    args.extend(["-listen", "127.0.0.1:0", "-stock", &stock_url]);
    let shop = Service::start(ip, &args, &[]);
    let agent = Agent::run(&["--pid", &shop.pid().to_string()], 1);
    let before = sent_again(&delay);
    let status = Command::new(ip)
        .args(delay.near(&demo("load")))
        .args(["--url", &shop.url("/slow-peer?ms=1"), "--rate", "0"])
        .args(["--duration", "4s", "--connections", "4"])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    thread::sleep(SETTLE);
    let all = sent_again(&delay) - before;
    let output = agent.stop();
    let points = output.points("go-shop", "whywait.tcp.retransmits");
    let (host, port) = stock.address.rsplit_once(':').unwrap();
    let of = |state: &str| -> i64 {
        let has = |point: &&Value, key: &str, value: Value| attribute(point, key) == Some(value);
        let points = points.iter().filter(|point| {
            has(point, "network.connection.state", state.into())
                && has(point, "network.peer.address", host.into())
                && has(point, "network.peer.port", port.parse::<i64>().unwrap().into())
        });
        points.map(|point| number_of(&point["asInt"])).sum()
    };
    let (syns, data) = (of("syn_sent"), of("established"));
    let lost = [dropped.syns(), dropped.data()].map(|count| count as i64);
    println!("{syns} SYNs and {data} others sent again, of {lost:?} that were lost; the kernel's count {all}");
    assert!(lost[0] >= 4 && lost[1] >= 10, "{lost:?} lost are too few");
    // Each that was lost was sent again; what was not lost hardly ever, and then the kernel counts it.
    assert!(syns >= lost[0] && data >= lost[1] && syns + data <= all);
    assert!(syns + data <= (lost[0] + lost[1]) * 11 / 10 + 1);
    let counted: i64 = points.iter().map(|point| number_of(&point["asInt"])).sum();
    assert!(counted <= all, "{counted} of {all}: {points:?}");
}

/// Of the near end, segments that the kernel sent again.
fn sent_again(delay: &Delay) -> i64 {
    let output = Command::new("ip")
        .args(delay.near(Path::new("cat")))
        .arg("/proc/net/snmp")
        .output()
        .unwrap();
    let counters = String::from_utf8(output.stdout).unwrap();
    let mut lines = counters.lines().filter(|line| line.starts_with("Tcp:"));
    let [names, values] = [(); 2].map(|()| lines.next().unwrap().split_whitespace());
    let counter = names.zip(values).find(|(name, _)| *name == "RetransSegs");
    counter.unwrap().1.parse().unwrap()
}
