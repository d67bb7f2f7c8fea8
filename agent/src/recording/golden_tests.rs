//! Recordings and what a replay makes of them, whole and damaged ones, against goldens/*.txt. Where the spans are meant to be others,
//! `UPDATE_GOLDENS=1 cargo test -p agent --lib golden_tests` writes them anew.

use std::{collections::HashMap, fmt::Write as _, fs, path::Path};

use agent_common::{
    event::{ACTOR_GOROUTINE, ACTOR_TASK, Actor, Header, Kind},
    go::{
        assist::{Assists, Payer},
        gc::Cycle,
        latency::SlowStart,
        sched::{Source, Wait, Waker},
        stw::{MARK_TERMINATION, SWEEP_TERMINATION, Stop},
    },
    net::{Peer, ROLE_CLIENT, ROLE_SERVER, connect::Connect, request::Request},
    process::exec::Exec,
    thread::syscall::Syscall,
    tokio::poll::Poll,
};
use bytemuck::bytes_of;

use super::{
    Described, END, EVENT, End, FRAMES, Frames, MAGIC, Preface, Reader, TARGET, VERSION, replay::Replay, write::record,
};
use crate::{
    inspect::Frame,
    model::{Span, Value},
};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/recording/goldens");
/// When the recording begins, ns; and a millisecond.
const BEGIN: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// A wrapper that the compiler made, and the function by which the runtime calls a goroutine that was started with it.
const WORKER: u64 = 0x1000;
const NAMED: u64 = WORKER + 0x8000;
const SPAWNER: u64 = 0x2000;

fn header(kind: Kind, target_id: u32, at: u64) -> Header {
    Header {
        time: BEGIN + at * MS,
        kind: kind as u32,
        target_id,
        tgid: 100 + target_id,
        tid: 100 + target_id,
    }
}

/// A recording's bytes, record by record.
struct File(Vec<u8>);

impl File {
    fn new() -> Self {
        let preface = Preface {
            agent: "0.1.0".to_owned(),
            kernel: "6.1.0".to_owned(),
            mono: BEGIN,
            wall: 1_700_000_000_000_000_000,
        };
        let preface = serde_json::to_vec(&preface).unwrap();
        let length = (preface.len() as u32).to_le_bytes();
        Self([&MAGIC[..], &VERSION.to_le_bytes(), &length, &preface].concat())
    }

    fn json(mut self, kind: u32, what: &impl serde::Serialize) -> Self {
        record(&mut self.0, kind, &serde_json::to_vec(what).unwrap());
        self
    }

    fn event(mut self, bytes: &[u8]) -> Self {
        record(&mut self.0, EVENT, bytes);
        self
    }

    /// A Go service is target 1, a tokio service is target 2.
    fn targets(self) -> Self {
        let described = |target_id: u32, name: &str| Described {
            target_id,
            pid: 100 + target_id,
            resource: vec![("service.name".to_owned(), name.into())],
            ..Described::default()
        };
        let frame = |function: &str| Frame {
            function: function.to_owned(),
            file: "/src/main.go".to_owned(),
            line: 7,
        };
        let reasons = ["", "GC assist marking", "IO wait", "chan receive"].map(str::to_owned);
        let go = Described {
            wait_reasons: reasons.to_vec(),
            throttling: Some("/pods/shop".to_owned()),
            ..described(1, "shop")
        };
        let tokio = Described {
            futures: HashMap::from([(3, "stock::handle".to_owned())]),
            ..described(2, "stock")
        };
        let frames = Frames {
            target_id: 1,
            starts: vec![(WORKER, NAMED)],
            frames: vec![
                (NAMED, frame("main.worker")),
                (WORKER, frame("main.main.gowrap1")),
                (SPAWNER - 1, frame("main.main")),
            ],
        };
        self.json(TARGET, &go).json(TARGET, &tokio).json(FRAMES, &frames)
    }

    fn end(self, events: u64) -> Vec<u8> {
        self.json(END, &End { events, lost: 2 }).0
    }
}

fn wait() -> Wait {
    Wait {
        header: header(Kind::GoWait, 1, 50),
        since: BEGIN + 20 * MS,
        goid: 42,
        startpc: WORKER,
        gopc: SPAWNER,
        wait_reason: 3,
        source: Source::RunqPut as u32,
        wakers: [
            Waker {
                goid: 41,
                startpc: WORKER,
                ran: BEGIN + 10 * MS,
            },
            Waker::default(),
            Waker::default(),
        ],
        ..Wait::default()
    }
}

fn peer(role: u8, target_id: u32) -> Peer {
    Peer {
        address: std::net::Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped().octets(),
        port: 8080,
        role,
        pad: 0,
        target_id,
    }
}

/// An event of every kind: a GC cycle with its stops and payers among them.
fn every_kind() -> Vec<u8> {
    let stop = |reason: u32, requested: u64, end: u64| Stop {
        header: header(Kind::GoStop, 1, end),
        requested: BEGIN + requested * MS,
        stopped: BEGIN + requested * MS + MS / 2,
        end: BEGIN + end * MS,
        goid: 42,
        startpc: WORKER,
        reason,
        forced: 1,
        last_goid: 43,
        last_startpc: WORKER,
        ..Stop::default()
    };
    let mut payers = [Payer::default(); 8];
    payers[0] = Payer {
        startpc: WORKER,
        time: MS,
    };
    let at = |ms: u64| (BEGIN + ms * MS) as i64;
    let cycle = Cycle {
        header: header(Kind::GcCycle, 1, 111),
        number: 5,
        sweep_term: at(100),
        mark: at(101),
        mark_term: at(109),
        end: at(110),
        pause: 2 * MS as i64,
        heap_before: 64 << 20,
        heap_after: 70 << 20,
        heap_live: 40 << 20,
        heap_goal: 80 << 20,
        gogc: 100,
        memory_limit: i64::MAX,
        max_procs: 4,
        forced: 1,
        ..Cycle::default()
    };
    let goroutine = Actor {
        id: 42,
        kind: ACTOR_GOROUTINE,
        future: 0,
    };
    let task = Actor {
        id: 9,
        kind: ACTOR_TASK,
        future: 3,
    };
    File::new()
        .targets()
        .event(bytes_of(&Exec {
            header: header(Kind::Exec, 0, 1),
        }))
        .event(bytes_of(&wait()))
        .event(bytes_of(&Poll {
            header: header(Kind::TokioPoll, 2, 60),
            since: BEGIN + 30 * MS,
            future: 3,
            ..Poll::default()
        }))
        .event(bytes_of(&Connect {
            header: header(Kind::Connect, 1, 70),
            since: BEGIN + 40 * MS,
            peer: peer(ROLE_CLIENT, 1),
            actor: goroutine,
        }))
        .event(bytes_of(&Request {
            header: header(Kind::Request, 2, 80),
            since: BEGIN + 5 * MS,
            peer: peer(ROLE_SERVER, 2),
            actor: task,
        }))
        .event(bytes_of(&Syscall {
            header: header(Kind::Syscall, 1, 90),
            since: BEGIN + 60 * MS,
            goid: 42,
            startpc: WORKER,
            ..Syscall::default()
        }))
        .event(bytes_of(&SlowStart {
            header: header(Kind::GoSlowStart, 1, 95),
            time: 30 * MS,
            goid: 42,
            parent_goid: 1,
            startpc: WORKER,
            gopc: SPAWNER,
            wait_reason: 3,
            max_procs: 4,
        }))
        .event(bytes_of(&stop(SWEEP_TERMINATION, 100, 101)))
        .event(bytes_of(&stop(MARK_TERMINATION, 109, 110)))
        .event(bytes_of(&Assists {
            header: header(Kind::GoAssists, 1, 110),
            number: 5,
            payers,
            others: 0,
        }))
        .event(bytes_of(&cycle))
        // The same again, and one later: repeated, and three missed between.
        .event(bytes_of(&cycle))
        .event(bytes_of(&Cycle { number: 9, ..cycle }))
        .end(13)
}

/// What a replay makes of it.
fn replayed(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut reader = match Reader::new(bytes, Path::new("case.rec")) {
        Ok(reader) => reader,
        Err(error) => return format!("{error}\n"),
    };
    let mut replay = Replay::new(usize::MAX);
    let (mut end, mut damage) = (None, None);
    loop {
        match reader.read() {
            Ok(Some(super::Record::End(found))) => end = Some(found),
            Ok(Some(record)) => replay.record(record),
            Ok(None) => break,
            Err(error) => {
                damage = Some(error);
                break;
            }
        }
    }
    let (events, rejected, strangers) = (replay.events, replay.rejected, replay.strangers);
    let _ = writeln!(text, "{events} events, {rejected} no events, {strangers} of no target");
    let _ = match (end, damage) {
        (_, Some(error)) => writeln!(text, "{error}"),
        (Some(End { events, lost }), None) => writeln!(text, "ends in order: {events} events, {lost} lost"),
        (None, None) => writeln!(text, "was not closed normally"),
    };
    let mut batches = replay.take();
    batches.sort_by_key(|batch| batch.resource.get("service.name").map(str::to_owned));
    for batch in batches {
        let _ = writeln!(text, "\n# {:?}", batch.resource.get("service.name").unwrap_or_default());
        batch.spans.iter().for_each(|span| say(&mut text, span));
    }
    text
}

/// A span, but for its ids, which are random.
fn say(text: &mut String, span: &Span) {
    let at = |time: crate::model::MonoNs| time.0 as i64 - BEGIN as i64;
    let of = if span.parent.is_some() { "child" } else { "root" };
    let (start, end) = (at(span.start), at(span.end));
    let _ = writeln!(
        text,
        "{} ({:?}, {of}, {} links): {start} to {end} ns",
        span.name,
        span.kind,
        span.links.len()
    );
    for attribute in &span.attributes {
        let value = match &attribute.value {
            Value::Str(text) => format!("{text:?}"),
            Value::I64(number) => number.to_string(),
            Value::F64(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::List(texts) => format!("{texts:?}"),
        };
        let _ = writeln!(text, "    {} = {value}", attribute.key);
    }
}

#[track_caller]
fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(GOLDENS).join(format!("{name}.txt"));
    let found = replayed(bytes);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == golden,
        "{} differs from what is made now:\n{found}",
        path.display()
    );
}

#[test]
fn every_kind_of_event_becomes_its_spans() {
    check("every_kind", &every_kind());
}

#[test]
fn what_is_there_of_a_recording_that_was_cut_off_is_replayed() {
    let whole = every_kind();
    check("cut_in_an_event", &whole[..whole.len() - 200]);
    // Without its last record: the agent was killed between two writes.
    let end = serde_json::to_vec(&End { events: 12, lost: 2 }).unwrap().len() + 8;
    check("not_closed", &whole[..whole.len() - end]);
    check("empty", &[]);
    check("head_only", &File::new().0);
    check("cut_in_the_head", &whole[..20]);
}

#[test]
fn what_does_not_belong_is_counted() {
    let stranger = Wait {
        header: header(Kind::GoWait, 7, 50),
        ..wait()
    };
    let unknown = header(Kind::GoWait, 1, 50);
    let file = File::new().targets();
    let file = file.event(bytes_of(&stranger)).event(bytes_of(&unknown)).event(b"no");
    check("strangers", &file.event(bytes_of(&wait())).end(4));
    // Events that come before their target is described are nobody's.
    let early = File::new().event(bytes_of(&wait())).targets();
    check("described_late", &early.event(bytes_of(&wait())).end(2));
}

#[test]
fn damage_is_said_with_its_place() {
    let mut target = File::new();
    record(&mut target.0, TARGET, b"{\"slot\": \"one\"}");
    check("damaged_target", &target.event(bytes_of(&wait())).end(1));
    let mut kind = File::new().targets().event(bytes_of(&wait()));
    record(&mut kind.0, 99, b"of a later version");
    check("unknown_record", &kind.end(1));
    let mut long = File::new().targets();
    long.0.extend(u32::MAX.to_le_bytes());
    long.0.extend(EVENT.to_le_bytes());
    check("endless_record", &long.0);
    let mut version = every_kind();
    version[8] = 1;
    check("older_version", &version);
}

/// Names may hold anything that a file's name may.
#[test]
fn names_come_through_as_they_are() {
    let odd = Described {
        target_id: 2,
        pid: 102,
        resource: vec![("service.name".to_owned(), "evil\u{1b}]0;owned\u{7}\nline".into())],
        futures: HashMap::from([(3, "f\u{1b}[2J".to_owned())]),
        ..Described::default()
    };
    let poll = Poll {
        header: header(Kind::TokioPoll, 2, 60),
        since: BEGIN + 30 * MS,
        future: 3,
        ..Poll::default()
    };
    check(
        "odd_names",
        &File::new().json(TARGET, &odd).event(bytes_of(&poll)).end(1),
    );
}
