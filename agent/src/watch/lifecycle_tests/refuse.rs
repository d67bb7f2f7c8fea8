//! Processes that are left out for now: they are looked at again when there may be room for them.

use agent_common::target::TARGET_LIMIT;

use super::{super::images::Images, *};

/// The most targets that there can be at a time.
const MOST: u32 = TARGET_LIMIT - 1;

#[tokio::test]
async fn who_comes_while_the_agent_sheds_is_watched_when_it_does_not() {
    let mut world = World::new();
    let pids @ [there, execs, forks] = [5_001_001, 5_001_002, 5_001_003];
    world.kept.places.allowed = 0.0;
    world.is(there, (100, 900, "service"));
    world.scan().await;
    world.execs(execs, (200, 900, "service"));
    world.settle().await;
    world.is(forks, (300, 900, "service"));
    for _ in 0..3 {
        world.look().await;
        world.check("the agent is at its own limits", &[], 0);
    }
    for pid in pids {
        assert!(said(pid).len() <= 1, "{:?}", said(pid));
    }
    let refused = said(there);
    assert!(
        refused.len() == 1 && refused[0].contains("not watched yet"),
        "{refused:?}"
    );
    world.kept.places.allowed = 0.25;
    world.settle().await;
    world.look().await;
    world.check("it is not any more", &pids.map(|pid| (pid, "service")), 3);
    let asked = world.asked;
    world.look().await;
    assert_eq!(world.asked, asked, "they are known");
}

#[tokio::test]
async fn who_finds_no_room_is_watched_when_somebody_ended() {
    let mut world = World::new();
    assert_eq!(MOST, 1023);
    let pids = 5_002_001..=5_002_000 + MOST + 2;
    for pid in pids.clone() {
        world.is(pid, (100, 900, "service"));
    }
    world.scan().await;
    let left_out = |world: &World| -> Vec<u32> {
        let out = pids.clone().filter(|pid| !world.kept.targets.contains_key(pid));
        out.collect()
    };
    let first = left_out(&world);
    assert_eq!((first.len(), world.kept.taken), (2, MOST));
    world.look().await;
    assert_eq!(
        (left_out(&world), world.kept.taken),
        (first.clone(), MOST),
        "there is no room"
    );
    assert_eq!(first.iter().flat_map(|pid| said(*pid)).count(), 1, "once an executable");
    let leaves = pids.clone().find(|pid| !first.contains(pid)).unwrap();
    world.ends(leaves);
    world.look().await;
    assert_eq!(world.kept.taken, MOST, "its last figures are not read yet");
    world.bury();
    world.look().await;
    let second = left_out(&world);
    assert_eq!(
        (second.len(), world.kept.taken),
        (2, MOST + 1),
        "one of them has its place"
    );
    assert!(second.contains(&leaves) && second.iter().any(|pid| first.contains(pid)));
}

/// A process that is known to looks and was retired, to be considered anew; at one of the steps of that it cannot be read.
#[tokio::test]
async fn what_cannot_be_read_just_now_is_looked_at_again() {
    // Answers that are taken before: which file it runs, what that is, and again which file; in the last turn it is being attached.
    for taken in 0..=4 {
        let (mut world, is) = (World::new(), (100, 900, "service"));
        world.is(11, is);
        world.scan().await;
        world.life.images = Images::new(Process::inspect);
        world.event(11, world.kept.now);
        if taken == 0 {
            world.kept.proc.spoil(11);
        }
        world.turn();
        for answer in 1..=taken.min(3) {
            let looked = world.answer().await;
            match taken {
                4 => world.kept.meanwhile = Some(Proc::spoil),
                _ if answer == taken => world.kept.proc.spoil(11),
                _ => {}
            }
            world.life.looked(&mut world.kept, looked);
        }
        world.settle().await;
        world.check(&format!("{taken}: it cannot be read"), &[], 1);
        world.is(11, is);
        world.look().await;
        world.check(&format!("{taken}: now it can"), &[(11, "service")], 2);
    }
}
