//! How processes are found, and that they are found once.

use glob::Pattern;

use super::*;

#[tokio::test]
async fn who_is_there_who_execs_and_who_only_the_look_finds() {
    let mut world = World::new();
    world.is(11, (100, 900, "service"));
    world.scan().await;
    world.check("there at the start", &[(11, "service")], 1);
    world.execs(12, (200, 800, "worker"));
    assert!(!world.life.images.is_busy(), "not looked at as long as it is young");
    world.settle().await;
    world.check("told by an exec event", &[(11, "service"), (12, "worker")], 2);
    world.is(13, (300, 800, "worker"));
    world.is(14, (300, 700, "shell"));
    world.settle().await;
    world.check("no event tells of it", &[(11, "service"), (12, "worker")], 2);
    world.look().await;
    let three = [(11, "service"), (12, "worker"), (13, "worker")];
    world.check("a fork without exec", &three, 3);
    world.is(14, (300, 600, "service"));
    world.settle().await;
    world.check("its exec event was lost", &three, 3);
    world.look().await;
    let four = [three[0], three[1], three[2], (14, "service")];
    world.check("an exec whose event was lost", &four, 4);
    for _ in 0..3 {
        world.look().await;
    }
    world.check("looks at what is known", &four, 4);
    assert_eq!(world.kept.retired, []);
}

#[tokio::test]
async fn a_process_of_no_use_is_inspected_again_only_when_it_is_another_program() {
    let mut world = World::new();
    world.is(11, (100, 900, "shell"));
    world.scan().await;
    let asked = world.asked;
    assert!(asked > 0);
    for _ in 0..3 {
        world.look().await;
    }
    assert_eq!(world.asked, asked, "it is what it was");
    world.execs(11, (100, 800, "shell"));
    world.settle().await;
    assert_eq!(world.asked, asked + 1, "it may be something else");
    world.execs(11, (100, 700, "service"));
    world.settle().await;
    world.check("now it is of use", &[(11, "service")], 1);
}

/// How a look and an event may come together.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// The event is taken before what the look found.
    EventFirst,
    /// So it is, and the process is a target by then.
    TargetFirst,
    /// The process is a target by the look while it is too young to be looked at for its event.
    LookFirst,
    /// The event comes while the process is asked which file it runs.
    WhileAsked,
    /// The event comes when the process is a target by the look.
    TargetByLook,
}

#[tokio::test]
async fn a_look_and_an_exec_event_make_one_target() {
    use Order::*;
    for order in [EventFirst, TargetFirst, LookFirst, WhileAsked, TargetByLook] {
        let mut world = World::new();
        world.scan().await;
        world.is(11, (100, 900, "service"));
        let execed = world.kept.now;
        world.kept.now += 1;
        if let LookFirst = order {
            world.event(11, execed);
        }
        let looked = world.found().await;
        match order {
            EventFirst => world.event(11, execed),
            TargetFirst => {
                world.event(11, execed);
                world.settle().await;
                world.check("by the event", &[(11, "service")], 1);
            }
            LookFirst | WhileAsked | TargetByLook => {}
        }
        world.life.reconciled(&mut world.kept, looked);
        match order {
            WhileAsked => {
                assert!(world.life.images.is_busy());
                world.event(11, execed);
                world.turn();
            }
            LookFirst | TargetByLook => {
                world.answers().await;
                world.check("by the look", &[(11, "service")], 1);
            }
            EventFirst | TargetFirst => {}
        }
        if let TargetByLook = order {
            world.event(11, execed);
        }
        world.settle().await;
        world.settle().await;
        world.check(&format!("{order:?}"), &[(11, "service")], 1);
        assert_eq!(world.kept.retired, [], "{order:?}");
    }
}

/// A process that is found as one program is another one by the time it is considered.
#[tokio::test]
async fn what_becomes_another_program_while_it_is_looked_at_is_watched_as_that() {
    let mut world = World::new();
    world.is(11, (100, 900, "worker"));
    world.life.scan(&mut world.kept).unwrap();
    assert!(world.life.images.is_busy());
    world.is(11, (100, 800, "service"));
    world.settle().await;
    world.check("before it is asked which file it runs", &[(11, "service")], 1);
    world.is(12, (200, 900, "service"));
    let looked = world.found().await;
    world.life.reconciled(&mut world.kept, looked);
    let service = world.answer().await;
    world.is(12, (200, 800, "worker"));
    world.life.looked(&mut world.kept, service);
    world.settle().await;
    world.check("after that", &[(11, "service"), (12, "worker")], 2);
    assert_eq!(world.kept.retired, []);
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
        world.kept.proc.map(11, &world.programs.path().join("service"));
        world.life.scan(&mut world.kept).unwrap();
        let host = loop {
            match world.answer().await {
                host @ Looked::Host(_) => break host,
                looked => world.life.looked(&mut world.kept, looked),
            }
        };
        let expected = if execs { "worker" } else { "shell" };
        if execs {
            world.is(11, (100, 800, "worker"));
        }
        world.life.looked(&mut world.kept, host);
        world.settle().await;
        world.check("a host", &[(11, expected)], 1);
    }
}

/// Its file is asked for when it ends, and another process has its pid before the answer is taken.
#[tokio::test]
async fn who_gets_the_pid_of_a_process_that_ended_while_it_was_asked_is_watched() {
    let mut world = World::new();
    world.scan().await;
    world.execs(11, (100, 900, "worker"));
    world.turn();
    world.kept.proc.end(11);
    let ended = world.answer().await;
    world.execs(11, (200, 900, "service"));
    world.turn();
    let looked = world.found().await;
    world.life.reconciled(&mut world.kept, looked);
    world.life.looked(&mut world.kept, ended);
    world.settle().await;
    world.look().await;
    world.check("it is found", &[(11, "service")], 1);
}

#[tokio::test]
async fn of_who_ends_before_it_is_a_target_nothing_is_said() {
    // Answers that are taken before it ends: which file it runs, what that is, and again which file.
    for taken in 0..3 {
        // Whether the next one is on its way by then.
        for given in [false, true] {
            let pid = 5_000_000 + 2 * taken + u32::from(given);
            let mut world = World::new();
            world.scan().await;
            world.execs(pid, (100, 900, "service"));
            world.turn();
            for _ in 0..taken {
                let looked = world.answer().await;
                world.life.looked(&mut world.kept, looked);
            }
            let answer = if given { Some(world.answer().await) } else { None };
            world.kept.proc.end(pid);
            if let Some(looked) = answer {
                world.life.looked(&mut world.kept, looked);
            }
            world.settle().await;
            nobody_cares(world, pid, &format!("{taken} {given}")).await;
        }
    }
    let mut world = World::new();
    world.execs(5_000_100, (100, 900, "service"));
    world.kept.proc.end(5_000_100);
    world.settle().await;
    nobody_cares(world, 5_000_100, "while it is young").await;
    let mut world = World::new();
    world.kept.meanwhile = Some(Proc::end);
    world.execs(5_000_101, (100, 900, "service"));
    world.settle().await;
    assert!(world.kept.meanwhile.is_none(), "it was about to be a target");
    nobody_cares(world, 5_000_101, "while it is attached").await;
}

/// A process that ended is no target, was not worth a word, and is not looked at any more.
async fn nobody_cares(mut world: World, pid: u32, what: &str) {
    let asked = world.asked;
    world.look().await;
    world.check(what, &[], 0);
    assert_eq!((said(pid), world.asked), (Vec::new(), asked), "{what}");
}
