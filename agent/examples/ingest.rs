//! How fast recorded events become spans and OTLP: `cargo run --release --example ingest RECORDING [MILLIONS]`. Prints JSON.
//!
//! The events of the recording, over and over, go the way that live ones go: decode, correlate, encode. Twice: with the
//! default limit of spans, as if the events came at three million a second; and with every event a span.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    error::Error,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use agent::{
    clock::Anchor,
    export,
    recording::{Reader, Record, replay::Replay},
};
use prost::Message as _;

/// Events a second that the limit of spans is applied for.
const RATE: u64 = 3_000_000;
/// Events between two looks at whether it is time to send.
const CHUNK: usize = 4096;
/// Default of `--max-spans`.
const LIMIT: usize = 1000;

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is the system allocator's own, with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("which recording?")?;
    let millions: u64 = args.next().map_or(Ok(20), |text| text.parse())?;
    let path = Path::new(&path);
    let rows = [
        row("decode alone", path, millions, 0)?,
        row("at most 1000 spans a target and second", path, millions, LIMIT)?,
        row("every event a span", path, millions.div_ceil(10), usize::MAX)?,
    ];
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}

#[derive(serde::Serialize)]
struct Row {
    name: &'static str,
    events: u64,
    spans: u64,
    /// Of OTLP protobuf.
    bytes: u64,
    seconds: f64,
    events_per_second: f64,
    allocations_per_event: f64,
    /// Events that made no span, and allocations while they came.
    without_span: u64,
    /// Resident set at the begin, in the midst and at the end, kB.
    rss: [u64; 3],
}

fn row(name: &'static str, path: &Path, millions: u64, limit: usize) -> Result<Row, Box<dyn Error>> {
    let mut reader = Reader::open(path)?;
    let (mut replay, mut events) = (Replay::new(limit), Vec::new());
    while let Some(record) = reader.read()? {
        match record {
            Record::Event(bytes) => events.push(bytes.to_vec()),
            record => replay.record(record),
        }
    }
    if events.is_empty() {
        return Err("the recording holds no event".into());
    }
    let (wanted, anchor) = (millions * 1_000_000, Anchor::take());
    let (mut bytes, mut rss) = (0, [resident(), 0, 0]);
    // What is made once is made.
    for chunk in events.chunks(CHUNK) {
        chunk.iter().for_each(|event| replay.event(event));
        drop(replay.take());
    }
    let (spans, before) = (replay.span_buffer.made, replay.events);
    let (begin, allocations) = (Instant::now(), ALLOCATIONS.load(Relaxed));
    let tick = if limit == usize::MAX { 10_000 } else { RATE };
    let (mut done, mut next) = (0, tick);
    for chunk in events.chunks(CHUNK).cycle() {
        for event in chunk {
            replay.event(event);
        }
        done += chunk.len() as u64;
        if done >= next || done >= wanted {
            next += tick;
            for batch in replay.take() {
                for request in export::trace_requests(batch, anchor) {
                    bytes += request.encode_to_vec().len() as u64;
                }
            }
            if rss[1] == 0 && done >= wanted / 2 {
                rss[1] = resident();
            }
        }
        if done >= wanted {
            break;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    rss[2] = resident();
    let (events, spans) = (replay.events - before, replay.span_buffer.made - spans);
    Ok(Row {
        name,
        events,
        spans,
        bytes,
        seconds,
        events_per_second: events as f64 / seconds,
        allocations_per_event: (ALLOCATIONS.load(Relaxed) - allocations) as f64 / events as f64,
        without_span: replay.span_buffer.over_limit,
        rss,
    })
}

/// Resident set, kB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
