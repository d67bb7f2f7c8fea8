//! What is under way in the maps of the loaded object, before and after a walk.

use agent_common::{
    go::{
        assist::{AssistTime, Payer, PayerKey, ProcessorKey},
        sched::{Goroutine, GoroutineKey},
    },
    net::{connect::Connecting, request::Socket},
    thread::{run_queue::Thread, syscall::Call},
    tokio::{
        poll::Thread as Worker,
        wake::{POLLED, WokenKey},
    },
};

use super::*;
use crate::{intake::kernel_log::KernelLog, pipeline, signals};

/// Target ids: both windows are open, none is, one that has just ended, nobody's.
const OPEN: u32 = 1;
const CLOSED: u32 = 2;
const ENDED: u32 = 3;
const NOBODY: u32 = 4;
/// When the open one's window of probes began; from when on a wake is not old, and a poll.
const SINCE: u64 = 100;
const OLD: u64 = 60;
const IDLE: u64 = 110;

fn stands(target_id: u32) -> Option<Standing> {
    match target_id {
        OPEN => Some(Standing {
            sockets: true,
            threads: true,
            probes: SINCE,
        }),
        CLOSED => Some(Standing {
            sockets: false,
            threads: false,
            probes: u64::MAX,
        }),
        ENDED => Some(Standing::WHOLE),
        _ => None,
    }
}

/// Every map, each with an entry of every target: before the window, and in it.
fn filled() -> TargetMaps {
    let (mut object, _hooks) =
        pipeline::load(1 << 16, KernelLog::Off, &signals::NAMES.map(str::to_owned), &[]).unwrap();
    let mut maps = TargetMaps::new(&mut |name| object.ebpf.take_map(name)).unwrap();
    for target_id in [OPEN, CLOSED, ENDED, NOBODY] {
        let of = u64::from(target_id);
        for time in [50, OLD, SINCE] {
            let (key, goroutine) = (
                GoroutineKey { g: time, target_id: of },
                Goroutine {
                    window: time,
                    ..Goroutine::default()
                },
            );
            maps.goroutines.insert(&key, &goroutine).unwrap();
            maps.woken
                .insert(
                    &WokenKey {
                        task: time,
                        target_id: of,
                    },
                    &time,
                )
                .unwrap();
        }
        for (task, time) in [(1, SINCE), (2, IDLE)] {
            let key = WokenKey { task, target_id: of };
            maps.woken.insert(&key, &(time | POLLED)).unwrap();
        }
        for tid in [target_id * 10, target_id * 10 + 1] {
            maps.workers
                .insert(
                    &tid,
                    &Worker {
                        target_id,
                        ..Worker::default()
                    },
                )
                .unwrap();
            maps.threads
                .insert(
                    &tid,
                    &Thread {
                        target_id,
                        ..Thread::default()
                    },
                )
                .unwrap();
            maps.syscalls
                .insert(
                    &tid,
                    &Call {
                        target_id,
                        ..Call::default()
                    },
                )
                .unwrap();
        }
        maps.connecting
            .insert(
                &of,
                &Connecting {
                    target_id,
                    ..Connecting::default()
                },
            )
            .unwrap();
        maps.sockets
            .insert(
                &of,
                &Socket {
                    target_id,
                    ..Socket::default()
                },
            )
            .unwrap();
        maps.assist_times
            .insert(&ProcessorKey { p: 7, target_id: of }, &AssistTime::default())
            .unwrap();
        maps.paid
            .insert(
                &PayerKey {
                    target_id,
                    ..PayerKey::default()
                },
                &Payer::default(),
            )
            .unwrap();
        maps.set_types(target_id, &[(7, 1)]);
        maps.set_sites(target_id, &[(7, 1)]);
    }
    maps
}

/// How many entries each target has, where `each` shows the target ids of all.
fn left(each: impl FnOnce(&mut dyn FnMut(u32)) -> Result<(), MapError>) -> [i64; 4] {
    let mut left = [0; 4];
    each(&mut |target_id| left[target_id as usize - 1] += 1).unwrap();
    left
}

fn left_of(maps: &TargetMaps, of: SharedMap) -> [i64; 4] {
    match of {
        SharedMap::Goroutines => left(|found| maps.goroutines.each(|_, key, _| found(key.target_id as u32))),
        SharedMap::TokioWoken => left(|found| maps.woken.each(|_, key, _| found(key.target_id as u32))),
        SharedMap::TokioThreads => left(|found| maps.workers.each(|_, _, value| found(value.target_id))),
        SharedMap::Connecting => left(|found| maps.connecting.each(|_, value| found(value.target_id))),
        SharedMap::Sockets => left(|found| maps.sockets.each(|_, _, value| found(value.target_id))),
        SharedMap::Threads => left(|found| maps.threads.each(|_, _, value| found(value.target_id))),
        SharedMap::Syscalls => left(|found| maps.syscalls.each(|_, value| found(value.target_id))),
    }
}

#[test]
fn what_is_over_is_removed_and_what_is_left_is_counted() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this test as root");
        return eprintln!("SKIPPED: needs root");
    }
    let mut maps = filled();
    let target = |target_id| Target {
        id: target_id,
        index: target_id,
        ..Target::default()
    };
    let mut held = maps.sweep(stands, OLD, IDLE);
    let expected = |of| match of {
        SharedMap::Goroutines => [1, 0, 3, 0],
        // Of two wakes and two polls of the open one, and of three that are not older than the window.
        SharedMap::TokioWoken => [2, 0, 3, 0],
        SharedMap::Connecting => [1, 1, 1, 0],
        SharedMap::Sockets => [1, 0, 1, 0],
        SharedMap::TokioThreads | SharedMap::Threads | SharedMap::Syscalls => [2, 0, 2, 0],
    };
    for of in SharedMap::ALL {
        assert_eq!(left_of(&maps, of), expected(of), "{of:?}");
    }
    assert_eq!(
        left(|found| maps.assist_times.each(|key, _| found(key.target_id as u32))),
        [1, 0, 1, 0]
    );
    assert_eq!(
        left(|found| maps.paid.each(|key, _| found(key.target_id))),
        [1, 1, 1, 0]
    );
    assert_eq!(
        left(|found| maps.types.each(|_, key, _| found(key.target_id as u32))),
        [1, 1, 1, 0]
    );
    assert_eq!(
        left(|found| maps.sites.each(|_, key, _| found(key.target_id as u32))),
        [1, 1, 1, 0]
    );
    assert_eq!(held.with_threads(), [OPEN, ENDED].into());
    maps.forget_threads(&mut held, |target_id, tid| target_id == OPEN && tid == 11);
    assert_eq!(left_of(&maps, SharedMap::Threads), [1, 0, 2, 0]);
    // As the map says it, whatever stood there.
    for of in SharedMap::ALL {
        maps.held.set(of.held(OPEN), 77, 0).unwrap();
    }
    maps.set_held(&[target(OPEN), target(CLOSED)], &held);
    for of in SharedMap::ALL {
        let [open, closed, ..] = left_of(&maps, of);
        let told = |target_id| maps.held.get(&of.held(target_id), 0).unwrap();
        assert_eq!([told(OPEN), told(CLOSED)], [open, closed], "{of:?}");
    }
    maps.forget(|target_id| target_id != CLOSED);
    assert_eq!(left_of(&maps, SharedMap::Connecting), [0, 1, 0, 0]);
    assert_eq!(left_of(&maps, SharedMap::Threads), [0; 4]);
    assert_eq!(maps.failed(), None);
}
