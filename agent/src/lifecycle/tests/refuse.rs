//! Processes that cannot be admitted now: they are checked again later.

use agent_common::target::TARGET_LIMIT;

use super::{super::images::Images, *};

/// The most targets that there can be at a time.
const MOST: u32 = TARGET_LIMIT - 1;

#[tokio::test]
async fn processes_that_come_while_the_agent_is_at_its_limits_are_watched_later() {
    let mut world = World::new();
    let pids @ [there, execs, forks] = [5_001_001, 5_001_002, 5_001_003];
    world.targets.budget_scale = 0.0;
    world.is(there, (100, 900, "service"));
    world.first_scan().await;
    world.execs(execs, (200, 900, "service"));
    world.turn_and_inspect().await;
    world.is(forks, (300, 900, "service"));
    for _ in 0..3 {
        world.rescan().await;
        world.check("the agent is at its own limits", &[], 0);
    }
    for pid in pids {
        assert!(logged(pid).len() <= 1, "{:?}", logged(pid));
    }
    let refused = logged(there);
    assert!(
        refused.len() == 1 && refused[0].contains("not watched yet"),
        "{refused:?}"
    );
    world.targets.budget_scale = 0.25;
    world.turn_and_inspect().await;
    world.rescan().await;
    world.check("it is not any more", &pids.map(|pid| (pid, "service")), 3);
    let identified = world.identified;
    world.rescan().await;
    assert_eq!(world.identified, identified, "they are known");
}

#[tokio::test]
async fn processes_above_the_limit_are_watched_when_others_end() {
    let mut world = World::new();
    assert_eq!(MOST, 1023);
    let pids = 5_002_001..=5_002_000 + MOST + 2;
    for pid in pids.clone() {
        world.is(pid, (100, 900, "service"));
    }
    world.first_scan().await;
    let left_out = |world: &World| -> Vec<u32> {
        let out = pids.clone().filter(|pid| !world.targets.by_pid.contains_key(pid));
        out.collect()
    };
    let first = left_out(&world);
    assert_eq!((first.len(), world.targets.admitted), (2, MOST));
    world.rescan().await;
    assert_eq!(
        (left_out(&world), world.targets.admitted),
        (first.clone(), MOST),
        "there is no free index"
    );
    // A busy machine may say besides that a file was late.
    let refused = first.iter().flat_map(|pid| logged(*pid));
    let refused: Vec<String> = refused.filter(|line| line.contains("not watched")).collect();
    assert_eq!(refused.len(), 1, "once an executable: {refused:?}");
    let leaves = pids.clone().find(|pid| !first.contains(pid)).unwrap();
    world.ends(leaves);
    world.rescan().await;
    assert_eq!(world.targets.admitted, MOST, "its last figures are not read yet");
    world.read_last_figures();
    world.rescan().await;
    let second = left_out(&world);
    assert_eq!(
        (second.len(), world.targets.admitted),
        (2, MOST + 1),
        "one of them has its index"
    );
    assert!(second.contains(&leaves) && second.iter().any(|pid| first.contains(pid)));
}

/// A process that scans know and that was retired is checked anew; at one step of that it cannot be read.
#[tokio::test]
async fn a_process_that_cannot_be_read_just_now_is_checked_again() {
    // Results that are handled before: its file, what that is, and again its file; in the last round it is being attached.
    for taken in 0..=4 {
        let (mut world, is) = (World::new(), (100, 900, "service"));
        world.is(11, is);
        world.first_scan().await;
        world.life.images = Images::new(Process::inspect);
        world.event(11, world.targets.now);
        if taken == 0 {
            world.targets.proc.spoil(11);
        }
        world.turn();
        for answer in 1..=taken.min(3) {
            let inspection = world.inspection().await;
            match taken {
                4 => world.targets.while_attaching = Some(Proc::spoil),
                _ if answer == taken => world.targets.proc.spoil(11),
                _ => {}
            }
            world.life.on_inspection(&mut world.targets, inspection);
        }
        world.turn_and_inspect().await;
        world.check(&format!("{taken}: it cannot be read"), &[], 1);
        world.is(11, is);
        world.rescan().await;
        world.check(&format!("{taken}: now it can"), &[(11, "service")], 2);
    }
}

#[tokio::test]
async fn a_runtime_that_has_not_started_is_waited_for_and_in_the_end_left_out() {
    for (pid, not_started, warnings) in [(5_003_001, 0, 0), (5_003_002, 3, 0), (5_003_003, u32::MAX, 1)] {
        let mut world = World::new();
        world.targets.not_started = not_started;
        world.is(pid, (100, 900, "service"));
        world.first_scan().await;
        for _ in 0..1000 {
            if world.targets.admitted > 0 {
                break;
            }
            world.check("its runtime has not started", &[], 0);
            world.turn_and_inspect().await;
        }
        let what = format!("{not_started} checks before it starts");
        world.check(&what, &[(pid, "service")], 1);
        // Some seconds at most, at a hundred turns a second.
        assert_eq!(world.targets.waits, not_started.min(499), "{what}");
        let warned = logged(pid);
        assert_eq!(warned.len(), warnings, "{what}: {warned:?}");
        assert!(
            warned.iter().all(|line| line.contains("its runtime is not")),
            "{warned:?}"
        );
    }
}
