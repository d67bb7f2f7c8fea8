//! What is done for every event, also those that become no span, takes no memory: a burst must not make the agent grow.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    path::Path,
};

use agent::recording::{Described, Record, replay::Replay};
use agent_common::{
    event::{Header, Kind},
    go::{gc::Cycle, sched::Wait},
    net::{connect::Connect, request::Request},
    tokio::poll::Poll,
};

/// The system's allocator, counting for each thread: the test harness has one of its own.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is the system allocator's own, with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMIT: usize = 100;
const ROUNDS: u64 = 20_000;

fn header(kind: Kind) -> Header {
    Header {
        time: 2_000_000,
        kind: kind as u32,
        target_id: 1,
        tgid: 7,
        tid: 8,
    }
}

#[test]
fn an_event_over_the_limit_takes_no_memory_and_is_counted() {
    let (wait, poll) = (Wait::default(), Poll::default());
    let events: [Vec<u8>; 5] = [
        bytemuck::bytes_of(&Wait {
            header: header(Kind::GoWait),
            ..wait
        })
        .to_vec(),
        bytemuck::bytes_of(&Poll {
            header: header(Kind::TokioPoll),
            ..poll
        })
        .to_vec(),
        bytemuck::bytes_of(&Cycle {
            header: header(Kind::GcCycle),
            number: 1,
            ..Cycle::default()
        })
        .to_vec(),
        bytemuck::bytes_of(&Connect {
            header: header(Kind::Connect),
            ..Connect::default()
        })
        .to_vec(),
        bytemuck::bytes_of(&Request {
            header: header(Kind::Request),
            ..Request::default()
        })
        .to_vec(),
    ];
    let mut replay = Replay::new(LIMIT);
    let described = Described {
        target_id: 1,
        pid: 7,
        ..Described::default()
    };
    replay.record(Record::Target(described));
    let mut feed = |rounds: u64| {
        for _ in 0..rounds {
            events.iter().for_each(|event| replay.event(event));
        }
        (
            replay.events,
            replay.span_buffer.made,
            replay.span_buffer.over_limit,
            replay.rejected + replay.strangers,
        )
    };
    let full = feed(LIMIT as u64);
    let before = ALLOCATIONS.get();
    let after = feed(ROUNDS);
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!(allocations, 0, "for {} events", ROUNDS * 5);
    // Every one of them was looked at, and none is lost silently.
    assert_eq!(after.0 - full.0, ROUNDS * 5);
    assert_eq!(after.2 - full.2, ROUNDS * 5);
    assert_eq!((after.1, after.3), (full.1, 0));
    assert!(full.1 >= LIMIT as u64, "{full:?}");
    // Not a recording: the reader says so before it takes memory for what it claims to hold.
    assert!(agent::recording::Reader::new(&[0u8; 64][..], Path::new("x")).is_err());
}
