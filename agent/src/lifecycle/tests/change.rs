//! How targets end: they become other programs, or others have their pids.

use super::*;

#[tokio::test]
async fn a_target_that_execs_is_retired_and_its_new_program_is_checked() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.first_scan().await;
    world.execs(11, (100, 800, "worker"));
    assert_eq!(
        world.targets.retired,
        [(11, EndReason::Execed)],
        "its last figures are to be read at once"
    );
    world.check("the new program is not checked yet", &[], 1);
    world.turn_and_inspect().await;
    world.check("another service", &[(11, "worker")], 2);
    world.execs(11, (100, 700, "worker"));
    world.turn_and_inspect().await;
    world.check("the same program anew", &[(11, "worker")], 3);
    world.execs(11, (100, 600, "shell"));
    world.turn_and_inspect().await;
    world.check("a program of no use", &[], 3);
    assert_eq!(world.targets.retired, [(11, EndReason::Execed); 3]);
}

#[tokio::test]
async fn an_exec_whose_event_was_lost_is_found_at_the_next_scan() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.first_scan().await;
    world.is(11, (100, 800, "worker"));
    world.turn_and_inspect().await;
    world.check("not known yet", &[(11, "service")], 1);
    world.rescan().await;
    world.check("the scan does", &[(11, "worker")], 2);
    assert_eq!(world.targets.retired, [(11, EndReason::Execed)]);
}

/// Events are handled later than they happen.
#[tokio::test]
async fn an_event_that_is_older_than_the_target_is_ignored() {
    let mut world = World::new();
    let before = world.targets.now;
    world.is(11, (100, 900, "service"));
    world.first_scan().await;
    world.event(11, before);
    world.turn_and_inspect().await;
    world.check("it was attached after its exec", &[(11, "service")], 1);
    assert_eq!(world.targets.retired, []);
    // Of two events one was lost.
    world.is(11, (100, 800, "worker"));
    world.event(11, before);
    world.turn_and_inspect().await;
    world.check("it is not what it was attached as", &[(11, "worker")], 2);
    assert_eq!(world.targets.retired, [(11, EndReason::Execed)]);
}

#[tokio::test]
async fn another_process_of_the_same_pid_is_another_target() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.first_scan().await;
    let before = world.targets.now;
    // Between two scans, before its pidfd reports the end.
    world.is(11, (200, 900, "service"));
    world.rescan().await;
    assert_eq!(world.targets.retired, [(11, EndReason::Exited)]);
    world.check("the new process", &[(11, "service")], 2);
    assert_eq!(world.targets.by_pid[&11].process.start, 200);
    world.event(11, before);
    world.turn_and_inspect().await;
    world.check("an event of the old one", &[(11, "service")], 2);
    world.ends(11);
    world.check("the new one ends", &[], 2);
    world.is(11, (300, 900, "shell"));
    world.rescan().await;
    world.check("the third is of no use", &[], 2);
    assert_eq!(world.targets.retired, [(11, EndReason::Exited); 2]);
}

/// A scan takes time: what it found may have ended, and a process that came later may be a target.
#[tokio::test]
async fn a_target_is_judged_by_what_there_is_now() {
    let mut world = World::new();
    world.first_scan().await;
    for (start, after) in [
        (100, "a program that its process is no more"),
        (200, "a process that ended"),
    ] {
        world.is(11, (100, 900, "worker"));
        let scan = world.scan().await;
        world.execs(11, (start, 800, "service"));
        world.turn_and_inspect().await;
        let admitted = world.targets.admitted;
        world.life.on_scan(&mut world.targets, scan);
        world.turn_and_inspect().await;
        world.check(after, &[(11, "service")], admitted);
        assert_eq!(world.targets.retired, [], "{after}");
        world.ends(11);
        world.rescan().await;
        world.targets.retired.clear();
    }
}

#[tokio::test]
async fn a_target_that_cannot_be_read_just_now_is_judged_at_the_next_scan() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.first_scan().await;
    world.is(11, (100, 800, "worker"));
    let scan = world.scan().await;
    world.targets.proc.spoil(11);
    world.life.on_scan(&mut world.targets, scan);
    world.turn_and_inspect().await;
    world.check("not known yet", &[(11, "service")], 1);
    world.is(11, (100, 800, "worker"));
    world.rescan().await;
    world.check("it is read now", &[(11, "worker")], 2);
    assert_eq!(world.targets.retired, [(11, EndReason::Execed)]);
}

/// Otherwise a hit would run old and new probes.
#[tokio::test]
async fn a_process_waits_until_its_old_probes_are_detached() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.first_scan().await;
    world.execs(11, (100, 800, "service"));
    world.targets.detaching.insert(11);
    for _ in 0..3 {
        world.turn_and_inspect().await;
        world.check("they are not", &[], 1);
        assert!(world.life.has_retries());
    }
    world.rescan().await;
    world.check("they are not yet", &[], 1);
    world.targets.detaching.clear();
    world.turn_and_inspect().await;
    world.check("they are", &[(11, "service")], 2);
    assert!(!world.life.has_retries());
}
