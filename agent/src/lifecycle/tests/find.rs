//! How processes are found, and that they are found once.

use glob::Pattern;

use super::*;

#[tokio::test]
async fn processes_are_found_at_the_start_by_exec_events_and_by_scans() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.first_scan().await;
    world.check("there at the start", &[(11, "service")], 1);
    world.execs(12, (200, 800, "worker"));
    assert!(!world.life.images.is_busy(), "a new program is not checked yet");
    world.turn_and_inspect().await;
    world.check("shown by an exec event", &[(11, "service"), (12, "worker")], 2);
    world.is(13, (300, 800, "worker"));
    world.is(14, (300, 700, "shell"));
    world.turn_and_inspect().await;
    world.check("no event shows it", &[(11, "service"), (12, "worker")], 2);
    world.rescan().await;
    let three = [(11, "service"), (12, "worker"), (13, "worker")];
    world.check("a fork without exec", &three, 3);
    world.is(14, (300, 600, "service"));
    world.turn_and_inspect().await;
    world.check("its exec event was lost", &three, 3);
    world.rescan().await;
    let four = [three[0], three[1], three[2], (14, "service")];
    world.check("an exec whose event was lost", &four, 4);
    for _ in 0..3 {
        world.rescan().await;
    }
    world.check("scans without news", &four, 4);
    assert_eq!(world.targets.retired, []);
}

#[tokio::test]
async fn a_process_of_no_use_is_inspected_again_only_when_it_is_another_program() {
    let mut world = World::new();
    world.is(11, (100, 900, "shell"));
    world.first_scan().await;
    let identified = world.identified;
    assert!(identified > 0);
    for _ in 0..3 {
        world.rescan().await;
    }
    assert_eq!(world.identified, identified, "it is what it was");
    world.execs(11, (100, 800, "shell"));
    world.turn_and_inspect().await;
    assert_eq!(world.identified, identified + 1, "it may be something else");
    world.execs(11, (100, 700, "service"));
    world.turn_and_inspect().await;
    world.check("now it is of use", &[(11, "service")], 1);
}

/// The order of a scan and an event for the same process.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// The event is handled before the result of the scan.
    EventFirst,
    /// So it is, and the process is a target by then.
    TargetFirst,
    /// The process becomes a target by the scan while the check for its event is deferred.
    ScanFirst,
    /// The event comes while the file of the process is identified.
    WhileIdentified,
    /// The event comes when the process is a target by the scan.
    TargetByScan,
}

#[tokio::test]
async fn a_scan_and_an_exec_event_make_one_target() {
    use Order::*;
    for order in [EventFirst, TargetFirst, ScanFirst, WhileIdentified, TargetByScan] {
        let mut world = World::new();
        world.first_scan().await;
        world.is(11, (100, 900, "service"));
        let execed = world.targets.now;
        world.targets.now += 1;
        if let ScanFirst = order {
            world.event(11, execed);
        }
        let scan = world.scan().await;
        match order {
            EventFirst => world.event(11, execed),
            TargetFirst => {
                world.event(11, execed);
                world.turn_and_inspect().await;
                world.check("by the event", &[(11, "service")], 1);
            }
            ScanFirst | WhileIdentified | TargetByScan => {}
        }
        world.life.on_scan(&mut world.targets, scan);
        match order {
            WhileIdentified => {
                assert!(world.life.images.is_busy());
                world.event(11, execed);
                world.turn();
            }
            ScanFirst | TargetByScan => {
                world.inspect().await;
                world.check("by the scan", &[(11, "service")], 1);
            }
            EventFirst | TargetFirst => {}
        }
        if let TargetByScan = order {
            world.event(11, execed);
        }
        world.turn_and_inspect().await;
        world.turn_and_inspect().await;
        world.check(&format!("{order:?}"), &[(11, "service")], 1);
        assert_eq!(world.targets.retired, [], "{order:?}");
    }
}

/// A process that is found as one program is another one by the time it is considered.
#[tokio::test]
async fn a_process_that_execs_while_it_is_checked_is_watched_as_the_new_program() {
    let mut world = World::new();
    world.is(11, (100, 900, "worker"));
    world.life.first_scan(&mut world.targets).unwrap();
    assert!(world.life.images.is_busy());
    world.is(11, (100, 800, "service"));
    world.turn_and_inspect().await;
    world.check("before its file is identified", &[(11, "service")], 1);
    world.is(12, (200, 900, "service"));
    let scan = world.scan().await;
    world.life.on_scan(&mut world.targets, scan);
    let service = world.inspection().await;
    world.is(12, (200, 800, "worker"));
    world.life.on_inspection(&mut world.targets, service);
    world.turn_and_inspect().await;
    world.check("after that", &[(11, "service"), (12, "worker")], 2);
    assert_eq!(world.targets.retired, []);
}

/// The user named it, its executable is no program of a runtime, but it has loaded a Go library.
#[tokio::test]
async fn a_host_of_a_runtime_is_watched_if_it_still_is_one_by_then() {
    for execs in [false, true] {
        let mut world = World::of(Selector {
            exes: vec![Pattern::new("*").unwrap()],
            ..Selector::default()
        });
        world.is(11, (100, 900, "shell"));
        world.targets.proc.map(11, &world.programs.path().join("service"));
        world.life.first_scan(&mut world.targets).unwrap();
        let host = loop {
            match world.inspection().await {
                host @ Inspection::Libraries(_) => break host,
                inspection => world.life.on_inspection(&mut world.targets, inspection),
            }
        };
        let expected = if execs { "worker" } else { "shell" };
        if execs {
            world.is(11, (100, 800, "worker"));
        }
        world.life.on_inspection(&mut world.targets, host);
        world.turn_and_inspect().await;
        world.check("a host", &[(11, expected)], 1);
    }
}

/// It ends while its file is identified, and another process has its pid before that result is handled.
#[tokio::test]
async fn a_process_with_the_pid_of_one_that_ended_while_it_was_identified_is_watched() {
    let mut world = World::new();
    world.first_scan().await;
    world.execs(11, (100, 900, "worker"));
    world.turn();
    world.targets.proc.end(11);
    let ended = world.inspection().await;
    world.execs(11, (200, 900, "service"));
    world.turn();
    let scan = world.scan().await;
    world.life.on_scan(&mut world.targets, scan);
    world.life.on_inspection(&mut world.targets, ended);
    world.turn_and_inspect().await;
    world.rescan().await;
    world.check("it is found", &[(11, "service")], 1);
}

#[tokio::test]
async fn nothing_is_logged_of_a_process_that_ends_before_it_is_a_target() {
    // Results that are handled before it ends: its file, what that is, and again its file.
    for taken in 0..3 {
        // Whether the next one is on its way by then.
        for given in [false, true] {
            let pid = 5_000_000 + 2 * taken + u32::from(given);
            let mut world = World::new();
            world.first_scan().await;
            world.execs(pid, (100, 900, "service"));
            world.turn();
            for _ in 0..taken {
                let inspection = world.inspection().await;
                world.life.on_inspection(&mut world.targets, inspection);
            }
            let answer = if given { Some(world.inspection().await) } else { None };
            world.targets.proc.end(pid);
            if let Some(inspection) = answer {
                world.life.on_inspection(&mut world.targets, inspection);
            }
            world.turn_and_inspect().await;
            check_ignored(world, pid, &format!("{taken} {given}")).await;
        }
    }
    let mut world = World::new();
    world.execs(5_000_100, (100, 900, "service"));
    world.targets.proc.end(5_000_100);
    world.turn_and_inspect().await;
    check_ignored(world, 5_000_100, "while it is young").await;
    let mut world = World::new();
    world.targets.while_attaching = Some(Proc::end);
    world.execs(5_000_101, (100, 900, "service"));
    world.turn_and_inspect().await;
    assert!(world.targets.while_attaching.is_none(), "it was about to be a target");
    check_ignored(world, 5_000_101, "while it is attached").await;
}

/// Checks that a process that ended is no target, was not logged, and is not checked any more.
async fn check_ignored(mut world: World, pid: u32, what: &str) {
    let identified = world.identified;
    world.rescan().await;
    world.check(what, &[], 0);
    assert_eq!((logged(pid), world.identified), (Vec::new(), identified), "{what}");
}
