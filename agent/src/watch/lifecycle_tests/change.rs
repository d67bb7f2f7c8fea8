//! How targets end: they become other programs, or others have their pids.

use super::*;

#[tokio::test]
async fn a_target_that_execs_is_retired_and_what_it_is_now_is_considered() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.scan().await;
    world.execs(11, (100, 800, "worker"));
    assert_eq!(
        world.kept.retired,
        [(11, Why::Execed)],
        "its last figures are to be read at once"
    );
    world.check("the new program is young", &[], 1);
    world.settle().await;
    world.check("another service", &[(11, "worker")], 2);
    world.execs(11, (100, 700, "worker"));
    world.settle().await;
    world.check("the same program anew", &[(11, "worker")], 3);
    world.execs(11, (100, 600, "shell"));
    world.settle().await;
    world.check("a program of no use", &[], 3);
    assert_eq!(world.kept.retired, [(11, Why::Execed); 3]);
}

#[tokio::test]
async fn an_exec_whose_event_was_lost_is_found_at_the_next_look() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.scan().await;
    world.is(11, (100, 800, "worker"));
    world.settle().await;
    world.check("nobody knows", &[(11, "service")], 1);
    world.look().await;
    world.check("the look does", &[(11, "worker")], 2);
    assert_eq!(world.kept.retired, [(11, Why::Execed)]);
}

/// Events are taken later than they happen.
#[tokio::test]
async fn an_event_that_is_older_than_the_target_tells_nothing_new() {
    let mut world = World::new();
    let before = world.kept.now;
    world.is(11, (100, 900, "service"));
    world.scan().await;
    world.event(11, before);
    world.settle().await;
    world.check("it was attached after its exec", &[(11, "service")], 1);
    assert_eq!(world.kept.retired, []);
    // Of two events one was lost.
    world.is(11, (100, 800, "worker"));
    world.event(11, before);
    world.settle().await;
    world.check("it is not what it was attached as", &[(11, "worker")], 2);
    assert_eq!(world.kept.retired, [(11, Why::Execed)]);
}

#[tokio::test]
async fn another_process_of_the_same_pid_is_another_target() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.scan().await;
    let before = world.kept.now;
    // Between two looks, and what its pidfd says has not come yet.
    world.is(11, (200, 900, "service"));
    world.look().await;
    assert_eq!(world.kept.retired, [(11, Why::Ended)]);
    world.check("the new process", &[(11, "service")], 2);
    assert_eq!(world.kept.targets[&11].process.start, 200);
    world.event(11, before);
    world.settle().await;
    world.check("an event of the old one", &[(11, "service")], 2);
    world.ends(11);
    world.check("the new one ends", &[], 2);
    world.is(11, (300, 900, "shell"));
    world.look().await;
    world.check("the third is of no use", &[], 2);
    assert_eq!(world.kept.retired, [(11, Why::Ended); 2]);
}

/// A look takes its time: what it found may be over, and what came after it a target.
#[tokio::test]
async fn a_target_is_judged_by_what_there_is_now() {
    let mut world = World::new();
    world.scan().await;
    for (start, after) in [
        (100, "a program that its process is no more"),
        (200, "a process that ended"),
    ] {
        world.is(11, (100, 900, "worker"));
        let looked = world.found().await;
        world.execs(11, (start, 800, "service"));
        world.settle().await;
        let taken = world.kept.taken;
        world.life.reconciled(&mut world.kept, looked);
        world.settle().await;
        world.check(after, &[(11, "service")], taken);
        assert_eq!(world.kept.retired, [], "{after}");
        world.ends(11);
        world.look().await;
        world.kept.retired.clear();
    }
}

#[tokio::test]
async fn a_target_that_cannot_be_read_just_now_is_judged_at_the_next_look() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.scan().await;
    world.is(11, (100, 800, "worker"));
    let looked = world.found().await;
    world.kept.proc.spoil(11);
    world.life.reconciled(&mut world.kept, looked);
    world.settle().await;
    world.check("nobody knows", &[(11, "service")], 1);
    world.is(11, (100, 800, "worker"));
    world.look().await;
    world.check("it is read now", &[(11, "worker")], 2);
    assert_eq!(world.kept.retired, [(11, Why::Execed)]);
}

/// New probes would be hit beside the old ones.
#[tokio::test]
async fn a_process_waits_until_the_probes_of_what_it_was_are_out() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.scan().await;
    world.execs(11, (100, 800, "service"));
    world.kept.leaving.insert(11);
    for _ in 0..3 {
        world.settle().await;
        world.check("they are not", &[], 1);
        assert!(world.life.is_waiting());
    }
    world.look().await;
    world.check("they are not yet", &[], 1);
    world.kept.leaving.clear();
    world.settle().await;
    world.check("they are", &[(11, "service")], 2);
    assert!(!world.life.is_waiting());
}
