//! What all targets share has room for each of them.

mod common;
#[path = "common/processes.rs"]
mod processes;

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use agent_common::{
    go::sched::GoroutineKey,
    target::{SharedMap, TARGET_LIMIT},
    tokio::{poll::TypeKey, wake::SiteKey},
};
use aya::maps::{Array, Map, MapData};
use common::{
    Agent, Output, attribute, demo, list, load,
    maps::{array, data, keys},
    number_of, of_cause, privileged, shop, stock,
};
use processes::{NEVER, built, start, step, wait_for};

/// One target with more peers than there is room for leaves room for another's.
#[test]
fn a_target_with_many_peers_takes_no_room_from_others() {
    const PEERS: usize = 5000;
    if !privileged() {
        return;
    }
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut byte = [0];
            // A client that is gone has no use for an answer.
            let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
        }
    });
    let (folder, paths) = built(&["many", "few"]);
    let start = |program: &Path, peers: usize| {
        let said = folder.path().join(format!("{peers}"));
        let service = start(program, &["peers", &peers.to_string(), &port, said.to_str().unwrap()]);
        (service, said)
    };
    let ((mut many, many_said), (mut few, few_said)) = (start(&paths[0], PEERS), start(&paths[1], 3));
    let pids = ["--pid", &many.pid().to_string(), "--pid", &few.pid().to_string()].map(str::to_owned);
    let pids: Vec<&str> = pids.iter().map(String::as_str).collect();
    let agent = Agent::run(&[&NEVER[..], &pids].concat(), 2);
    step(&mut many);
    wait_for(&many_said);
    step(&mut few);
    wait_for(&few_said);
    thread::sleep(Duration::from_secs(1));
    let output = agent.stop();
    // Many points leave in several requests.
    let whole = |service: &str| -> Vec<_> {
        let lines = output.metrics.iter().flat_map(|line| list(&line["resourceMetrics"]));
        let own = lines.filter(|of| attribute(&of["resource"], "service.name") == Some(service.into()));
        let metrics = own
            .flat_map(|of| list(&of["scopeMetrics"]))
            .flat_map(|scope| list(&scope["metrics"]));
        let requests = metrics.filter(|metric| metric["name"] == "whywait.client.request.duration");
        requests
            .flat_map(|metric| list(&metric["exponentialHistogram"]["dataPoints"]))
            .collect()
    };
    let peers = |service| {
        let points = whole(service);
        let apart = points
            .iter()
            .filter(|point| attribute(point, "server.address").is_some());
        let apart = apart.count();
        (apart, points.len() - apart)
    };
    assert_eq!(peers("few"), (3, 0));
    let (apart, others) = peers("many");
    assert!(
        (500..=1024).contains(&apart) && others == 1,
        "{apart} peers apart, {others} others"
    );
    let over = output.points("many", "whywait.quota.exceeded");
    assert!(!over.is_empty() && output.points("few", "whywait.quota.exceeded").is_empty());
}

/// One target with more goroutines than there is room for leaves room for another's.
#[test]
fn a_target_with_many_goroutines_takes_no_room_from_others() {
    const ROUNDS: i64 = 500;
    if !privileged() {
        return;
    }
    let [many, few] = ["many", "few"].map(|name| shop(None, &[("OTEL_SERVICE_NAME", name)]));
    let pids = ["--pid", &many.pid().to_string(), "--pid", &few.pid().to_string()].map(str::to_owned);
    let pids: Vec<&str> = pids.iter().map(String::as_str).collect();
    let agent = Agent::run(&[&NEVER[..], &["--budget", "off"], &pids].concat(), 2);
    many.get("/leak?n=70000");
    few.get(&format!("/chan?n={ROUNDS}"));
    let output = agent.stop();
    let over = |service: &str| -> i64 {
        let points = output.points(service, "whywait.quota.exceeded");
        let of_quota = of_cause(&points, "goroutine_quota");
        assert_eq!(
            of_quota,
            points.iter().map(|point| number_of(&point["asInt"])).sum::<i64>()
        );
        of_quota
    };
    let waits = |service: &str| -> i64 {
        let points = output.points(service, "go.goroutine.wait.duration");
        let channels = points.iter().filter(|point| {
            ["chan receive", "chan send"]
                .iter()
                .any(|reason| attribute(point, "go.goroutine.wait_reason") == Some((*reason).into()))
        });
        channels.map(|point| number_of(&point["count"])).sum()
    };
    println!("many: {} over, few: {} waits", over("many"), waits("few"));
    // Some 33,000 are followed; each of the others is refused whenever it does something.
    assert!(over("many") >= 20_000 && over("few") == 0);
    // At each round one of both sides waits at least, and one for the end.
    assert!((ROUNDS..=2 * ROUNDS + 1).contains(&waits("few")), "{}", waits("few"));
}

/// An answer that is read of a connection which is closed on both sides leaves nothing behind, and is told or counted as lost.
#[test]
fn what_is_read_of_a_closed_connection_is_not_kept() {
    const CALLS: i64 = 100;
    if !privileged() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = Vec::new();
            // Until the client says that it sends no more.
            let _ = stream.read_to_end(&mut bytes).and_then(|_| stream.write_all(&[1]));
        }
    });
    let (folder, paths) = built(&["half"]);
    let said = folder.path().join("said");
    let mut half = start(&paths[0], &["half", &CALLS.to_string(), &port, said.to_str().unwrap()]);
    let pid = half.pid().to_string();
    let agent = Agent::run(&[&NEVER[..], &["--budget", "off", "--pid", &pid]].concat(), 1);
    step(&mut half);
    wait_for(&said);
    let kept = keys::<u64>(&agent, "SOCKET_KEYS").len();
    let output = agent.stop();
    let points = output.points("half", "whywait.client.request.duration");
    let told: i64 = points.iter().map(|point| number_of(&point["count"])).sum();
    let dropped = output.points("whywait", "whywait.events.dropped");
    let lost: i64 = dropped
        .iter()
        .filter(|point| attribute(point, "whywait.cause") == Some("socket_closed".into()))
        .map(|point| number_of(&point["asInt"]))
        .sum();
    println!("{kept} kept, {told} told, {lost} lost");
    assert!(kept < 10, "{kept}");
    assert!(told + lost >= CALLS, "{told} told, {lost} lost");
}

/// What a target holds is counted as it is: connections that come and go, goroutines and threads.
#[test]
fn what_is_held_is_counted_as_it_comes_and_goes() {
    if !privileged() {
        return;
    }
    let shop = shop(None, &[]);
    let pid = shop.pid().to_string();
    let agent = Agent::run(&[&NEVER[..], &["--budget", "off", "--pid", &pid]].concat(), 1);
    for _ in 0..300 {
        shop.get("/sleep?ms=0");
    }
    // Each takes a thread.
    shop.get("/blocked-reads?goroutines=20");
    thread::sleep(Duration::from_millis(500));
    let held: Array<MapData, i64> = Map::Array(data(&agent, "HELD")).try_into().unwrap();
    let of_all = |of: SharedMap| -> i64 {
        (0..TARGET_LIMIT)
            .map(|index| held.get(&of.held(index), 0).unwrap())
            .sum()
    };
    let sockets = keys::<u64>(&agent, "SOCKET_KEYS").len() as i64;
    let threads = keys::<u32>(&agent, "THREAD_KEYS").len() as i64;
    let goroutines = keys::<GoroutineKey>(&agent, "GOROUTINE_KEYS").len() as i64;
    for (of, there) in [
        (SharedMap::Sockets, sockets),
        (SharedMap::Threads, threads),
        (SharedMap::Goroutines, goroutines),
    ] {
        println!("{of:?}: {} counted, {there} there", of_all(of));
    }
    assert!(sockets < 50 && threads > 0 && goroutines > 0, "{sockets} sockets");
    assert_eq!(of_all(SharedMap::Sockets), sockets);
    // One may come or go between the two looks.
    assert!((of_all(SharedMap::Threads) - threads).abs() <= 2, "{threads}");
    assert!((of_all(SharedMap::Goroutines) - goroutines).abs() <= 2, "{goroutines}");
    agent.stop();
}

/// A tokio service that comes when the map `name` is full is watched all the same; `signal` is in part, and it is said
/// why.
fn check_full<K: aya::Pod>(name: &str, key: &K, words: &str, signal: &str) -> Output {
    // The agent of one would watch the service of the other.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (_folder, paths) = built(&["before"]);
    let _before = start(&paths[0], &["stay"]);
    let exe = demo("rust-stock");
    let exes = ["--exe", paths[0].to_str().unwrap(), "--exe", exe.to_str().unwrap()];
    let agent = Agent::run(&[&NEVER[..], &exes].concat(), 1);
    let mut keys = array::<K>(&agent, name);
    (0..keys.len()).for_each(|place| keys.set(place, key, 0).unwrap());
    let stock = stock(false);
    let agent = agent.watching(1);
    load(&[stock.url("/stock/{n}")], 200, 2, 4);
    let output = agent.stop();
    let line = output.said.lines().find(|line| line.contains(words));
    let line = line.unwrap_or_else(|| panic!("no {words:?} in {}", output.said));
    let place = format!("process {}: {signal}: ", stock.pid());
    assert!(line.contains("WARN") && line.contains(&place), "{line}");
    let states = output.points("rust-stock", "whywait.signal.state");
    let state = |of: &str| {
        let point = states
            .iter()
            .find(|point| attribute(point, "whywait.signal") == Some(of.into()));
        let coverage = point.and_then(|point| attribute(point, "whywait.coverage"));
        coverage.unwrap_or_else(|| panic!("nothing of {of}: {states:?}"))
    };
    for of in ["tokio.poll", "tokio.wake"] {
        let expected = if of == signal { "partial" } else { "full" };
        assert_eq!(state(of), expected, "{of}: {}", output.said);
    }
    output
}

#[test]
fn without_room_for_its_types_a_process_is_watched_in_part() {
    if privileged() {
        let key = TypeKey {
            vtable: 1,
            target_id: u64::MAX,
        };
        check_full(
            "TOKIO_TYPE_KEYS",
            &key,
            "types of tasks are not distinguished",
            "tokio.poll",
        );
    }
}

/// A wake at a place that the kernel side knows nothing of is lost, and counted as that; polls are told as ever.
#[test]
fn without_room_for_the_places_of_its_wakes_a_process_is_watched_in_part() {
    if !privileged() {
        return;
    }
    let key = SiteKey {
        ip: 1,
        target_id: u64::MAX,
    };
    let output = check_full(
        "TOKIO_SITE_KEYS",
        &key,
        "places where tasks are woken are not observed",
        "tokio.wake",
    );
    let count = |metric: &str| -> i64 {
        let points = output.points("rust-stock", metric);
        points.iter().map(|point| number_of(&point["count"])).sum()
    };
    let lost = output.dropped("site_unknown");
    let polls = count("tokio.task.poll.duration");
    println!("{polls} polls, {lost} wakes lost");
    assert!(
        polls > 400
            && output
                .points("rust-stock", "tokio.task.wake_to_poll.duration")
                .is_empty()
    );
    // Each poll comes of one wake; of the last few one is told without the other.
    assert!((polls - lost).abs() <= 10, "{polls} polls, {lost} wakes lost");
}
