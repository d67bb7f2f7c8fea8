//! Looks at targets at random times, for figures that need no look at each event. One thread has them made, one after the other, within a
//! part of the agent's own CPU time that all targets share. What a look sees is its signal's: see [`Look`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    deadline::{self, Late},
    realtime,
};

/// Priority of threads that run aside, as of nice(1): services that wake up go first.
const ASIDE: i32 = 10;
/// Looks a second at a target, at most.
const MOST: f64 = 20.0;
/// A look that takes more CPU time than so many a second may take is asked to see less.
const FEW: f64 = 5.0;
/// What a look takes before one was made, s.
const FIRST_COST: f64 = 100e-6;
/// How often rates are divided anew.
const DIVIDED: Duration = Duration::from_secs(1);
/// What could not be read is looked at again after this time.
const AGAIN: Duration = Duration::from_secs(1);
/// A target with the slowest rate is looked at all the same.
const LONGEST: Duration = Duration::from_secs(30);

/// What is looked at.
pub trait Look: Send + Sync + 'static {
    /// Looks once. May take `most` CPU time; called in a thread of its own, which may hang, and with [real-time priority](realtime), which
    /// the look checks.
    fn look(&self, most: Duration);
    /// A look was not made, or has not come back.
    fn late(&self, late: Late);
}

/// Makes all looks.
pub struct Looks {
    shared: Arc<Shared>,
}

/// Something that is looked at as long as this exists.
pub struct Looking {
    shared: Weak<Shared>,
    id: u64,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<u64, Entry>,
    /// Ids given so far.
    ids: u64,
    /// CPU time that looks may take, cores.
    allowance: f64,
    /// CPU time that they took.
    used: Duration,
    divided: Option<Instant>,
    has_thread: bool,
    has_ended: bool,
}

struct Entry {
    pid: u32,
    look: Arc<dyn Look>,
    due: Instant,
    /// CPU time of one, s.
    cost: f64,
    /// A second.
    rate: f64,
}

impl Looks {
    /// Nothing is looked at yet; looks may take `allowance` cores.
    pub fn new(allowance: f64) -> Arc<Self> {
        let shared = Arc::<Shared>::default();
        shared.table().allowance = allowance;
        Arc::new(Self { shared })
    }

    /// Looks may take so many cores from now on.
    pub fn set_allowance(&self, allowance: f64) {
        self.shared.table().allowance = allowance;
    }

    /// CPU time that looks took so far.
    pub fn used(&self) -> Duration {
        self.shared.table().used
    }

    /// Looks at a process from now on; None where there is no thread to be had.
    pub fn begin(&self, pid: u32, look: Arc<dyn Look>) -> Option<Looking> {
        let mut table = self.shared.table();
        if !table.has_thread {
            let shared = self.shared.clone();
            let thread = thread::Builder::new().name("looks".to_owned());
            thread.spawn(move || turn(&shared)).ok()?;
            table.has_thread = true;
        }
        table.ids += 1;
        let id = table.ids;
        let entry = Entry {
            pid,
            look,
            due: Instant::now(),
            cost: FIRST_COST,
            rate: MOST,
        };
        table.entries.insert(id, entry);
        table.divided = None;
        drop(table);
        self.shared.changed.notify_one();
        Some(Looking {
            shared: Arc::downgrade(&self.shared),
            id,
        })
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.shared.table().has_ended = true;
        self.shared.changed.notify_one();
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.table().entries.remove(&self.id);
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nobody panics while holding it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a look is due: its number, and how much CPU time it may take. None at the end.
    fn next(&self) -> Option<(u64, u32, Arc<dyn Look>, Duration)> {
        let mut table = self.table();
        loop {
            if table.has_ended {
                return None;
            }
            let now = Instant::now();
            if table.divided.is_none_or(|divided| now - divided >= DIVIDED) {
                table.divide();
                table.divided = Some(now);
            }
            let first = table.entries.iter().min_by_key(|(_, entry)| entry.due);
            let Some((id, entry)) = first else {
                table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if entry.due <= now {
                let share = table.allowance / table.entries.len() as f64;
                let most = Duration::try_from_secs_f64(share / FEW).unwrap_or_default();
                return Some((*id, entry.pid, entry.look.clone(), most));
            }
            let until = entry.due - now;
            let waited = self.changed.wait_timeout(table, until);
            (table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Table {
    fn divide(&mut self) {
        let costs: Vec<f64> = self.entries.values().map(|entry| entry.cost).collect();
        for (entry, rate) in self.entries.values_mut().zip(rates(&costs, self.allowance)) {
            entry.rate = rate;
        }
    }
}

/// Lowers the priority of this thread, and of those that it starts (setpriority(2): on Linux it is a thread's).
pub fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, ASIDE) {
        log::debug!("what runs aside keeps its priority: {error}");
    }
}

/// Real-time priority for a look, and until the next one.
struct Prompt;

impl Prompt {
    fn begin() -> Self {
        if !realtime::is_held() {
            // A thread that one of real-time priority begins has a nice value of 0.
            give_way();
        }
        realtime::begin();
        Self
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        realtime::wait();
    }
}

/// Has looks made until there are none.
fn turn(shared: &Shared) {
    give_way();
    let mut random = fastrand::Rng::new();
    let mut before = cpu_time();
    // For good: beside waiting it only hands over to the thread that looks, and waits for it. Of the same priority, neither of them ever
    // waits for the other to go on with a queue that both use.
    realtime::wait();
    while let Some((id, pid, look, most)) = shared.next() {
        let of_worker = look.clone();
        let outcome = deadline::MEMORY.within(pid, deadline::SOON, move || {
            let _prompt = Prompt::begin();
            let before = cpu_time();
            of_worker.look(most);
            cpu_time().saturating_sub(before)
        });
        let own = cpu_time();
        let took = own.saturating_sub(before) + outcome.unwrap_or_default();
        before = own;
        if let Err(late) = outcome {
            look.late(late);
        }
        let mut table = shared.table();
        table.used += took;
        let Some(entry) = table.entries.get_mut(&id) else {
            continue;
        };
        entry.cost = 0.8 * entry.cost + 0.2 * took.as_secs_f64();
        // At random times: a service does things at regular ones.
        let apart = (0.5 + random.f64()) / entry.rate;
        let apart = Duration::try_from_secs_f64(apart).map_or(LONGEST, |apart| apart.min(LONGEST));
        entry.due = Instant::now() + if outcome.is_err() { apart.max(AGAIN) } else { apart };
    }
}

/// Looks a second at each, by what one of them takes, CPU s. Together they take `allowance` cores at most, which all share evenly; what one
/// does not need is the others'.
fn rates(costs: &[f64], allowance: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_unstable_by(|one, other| costs[*one].total_cmp(&costs[*other]));
    let (mut rates, mut left) = (vec![0.0; costs.len()], allowance);
    for (position, index) in order.into_iter().enumerate() {
        let share = left / (costs.len() - position) as f64;
        let rate = (share / costs[index].max(1e-9)).min(MOST);
        rates[index] = rate;
        left -= rate * costs[index];
    }
    rates
}

/// CPU time of this thread.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[test]
    fn what_one_does_not_need_is_the_others() {
        let check = |costs: &[f64], allowance: f64, expected: &[f64]| {
            let found = rates(costs, allowance);
            let is_near = |(found, expected): (&f64, &f64)| (found - expected).abs() < 1e-6;
            assert!(found.iter().zip(expected).all(is_near), "{costs:?}: {found:?}");
            assert_eq!(found.len(), expected.len());
        };
        check(&[], 0.02, &[]);
        check(&[100e-6], 0.02, &[20.0]);
        check(&[10e-3], 0.02, &[2.0]);
        // One takes 2 ms of the 20 that there are a second, the other has what is left.
        check(&[10e-3, 100e-6], 0.02, &[1.8, 20.0]);
        check(&[1e-3; 4], 0.02, &[5.0; 4]);
        check(&[1e-3; 4], 0.0, &[0.0; 4]);
    }

    #[derive(Default)]
    struct Counted {
        looks: AtomicU32,
        late: AtomicU32,
    }

    impl Look for Counted {
        fn look(&self, _: Duration) {
            self.looks.fetch_add(1, Relaxed);
        }

        fn late(&self, _: Late) {
            self.late.fetch_add(1, Relaxed);
        }
    }

    /// Panics at each look, which is as good as one that hangs.
    struct Panics(Arc<Counted>);

    impl Look for Panics {
        fn look(&self, _: Duration) {
            panic!("as a test");
        }

        fn late(&self, late: Late) {
            self.0.late(late);
        }
    }

    #[test]
    fn one_that_fails_takes_nothing_from_the_others_and_ends_with_its_handle() {
        let looks = Looks::new(1.0);
        let (good, bad) = (Arc::<Counted>::default(), Arc::<Counted>::default());
        let first = looks.begin(1, good.clone()).unwrap();
        let second = looks.begin(2, Arc::new(Panics(bad.clone()))).unwrap();
        while good.looks.load(Relaxed) < 10 || bad.late.load(Relaxed) < 1 {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(good.late.load(Relaxed), 0);
        assert!(looks.used() > Duration::ZERO);
        drop(second);
        assert_eq!(looks.shared.table().entries.len(), 1);
        drop(first);
        assert!(looks.shared.table().entries.is_empty());
        let shared = Arc::downgrade(&looks.shared);
        drop(looks);
        // Its thread ends.
        while shared.strong_count() > 0 {
            thread::sleep(Duration::from_millis(10));
        }
    }
}
