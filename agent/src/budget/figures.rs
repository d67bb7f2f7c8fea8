//! The figures of one plane of one target: what its windows saw, multiplied by time or by work. Pure.

use std::collections::HashMap;

use agent_common::histogram::{COUNTER, SUMS, SeenWhen, Series};

use super::{
    Amount, Interval, Plane, Work,
    amount::Events,
    work::{LEAST, MOVED, STARTS},
};

/// How much of the intervals before the last counts for what is recent.
const FADE: f64 = 0.5;
/// What windows see of it so differently, relative to what it follows, comes in bursts.
const BURSTS: f64 = 0.3;
/// The rate of what came after the last window is at most so many times what was seen before.
pub(super) const RISE: f64 = 4.0;
/// After so many first windows it is known well which measure counts follow: their figures are made anew until then.
pub(super) const EARLY: u32 = 20;
/// What was seen of earlier windows counts so much less at each, afterwards: a burst in one is no more than its part.
const POOLED: f64 = 0.8;
/// A series that is split has its own measure where the last windows saw so much of it.
const OWN: f64 = 50.0;
/// Counts, and sums of what they count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extrapolated {
    pub count: f64,
    pub sum: f64,
}

impl Extrapolated {
    fn add(&mut self, other: Self, times: f64) {
        self.count += times * other.count;
        self.sum += times * other.sum;
    }

    fn times(self, times: f64) -> Self {
        Self {
            count: times * self.count,
            sum: times * self.sum,
        }
    }

    /// This, but of time in a state what it is `by_time`: that passes whatever is done.
    fn or_time(self, (series, _, index): Key, by_time: Self) -> Self {
        Self {
            sum: if is_state(series, index) { by_time.sum } else { self.sum },
            ..self
        }
    }
}

/// One bucket, counter or sum.
#[derive(Clone, Copy, Debug, Default)]
struct Figure {
    /// Of all intervals whose figures are settled.
    total: Extrapolated,
    /// What the last windows saw, the first ones all alike; not multiplied.
    seen: Extrapolated,
    /// By time: of the last window, of intervals that are not settled, and of the last few.
    last: Extrapolated,
    early: Extrapolated,
    recent: Extrapolated,
    /// Up to now, as far as is known, and as it was reported: cumulative figures do not decrease.
    now: Extrapolated,
    reported: Extrapolated,
}

/// What is always counted, in the windows that [`Figure::seen`] is of.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Which of [`Work::counts`] are known.
    known: [bool; Work::COUNTS],
    /// Windows so far, up to [`EARLY`].
    windows: u32,
    inside: [f64; Work::COUNTS],
    /// For how long they were open, ns.
    open: f64,
    /// Over all, while these are the first windows.
    whole: [f64; Work::COUNTS],
}

impl Counted {
    /// Whether figures of all windows are made anew each time.
    fn is_first(&self) -> bool {
        self.windows < EARLY
    }

    fn fade(&self) -> f64 {
        if self.is_first() { 1.0 } else { POOLED }
    }
}

impl Figure {
    /// Of all intervals. Of the first windows `by_work` times what they saw, if it is known.
    fn so_far(&self, key: Key, by_work: Option<f64>) -> Extrapolated {
        let mut all = self.total;
        let first = by_work.map_or(self.early, |more| self.seen.times(more));
        all.add(first.or_time(key, self.early), 1.0);
        all
    }
}

/// Series, what it is split by, and the bucket's index, [`COUNTER`], or the [`sum_bucket`] of a category.
pub type Key = (u16, u32, u16);

/// The runtime's sample has one start of so many (Go, runtime/runtime2.go, gTrackingPeriod).
pub(super) const PERIOD: f64 = 8.0;

/// What the figures of a series, and of each thing that it is split by, follow: a measure by its number in [`Work::counts`], or time.
type Followed = HashMap<(u16, u32), Option<usize>>;

/// By measure.
type Counts = [Option<f64>; Work::COUNTS];
const NONE: Counts = [None; Work::COUNTS];

/// All figures of a plane.
#[derive(Debug)]
pub struct Figures {
    plane: Plane,
    figures: HashMap<Key, Figure>,
    /// The work, and the time, ns, in what is recent.
    pub(super) recent: (Work, f64),
    amount: Amount,
    counted: Counted,
    /// Of each series, and of each thing that it is split by: in the last windows.
    events: HashMap<u16, Events>,
    events_of: HashMap<(u16, u32), Events>,
    /// In the window that is added now.
    now: HashMap<(u16, u32), f64>,
    /// How many times longer than it its interval is.
    by_time: f64,
}

impl Figures {
    /// None yet.
    pub fn new(plane: Plane) -> Self {
        Self {
            plane,
            figures: HashMap::new(),
            recent: Default::default(),
            amount: Amount::default(),
            counted: Counted::default(),
            events: HashMap::new(),
            events_of: HashMap::new(),
            now: HashMap::new(),
            by_time: 1.0,
        }
    }

    /// Begins to add a window.
    pub fn begin(&mut self, interval: &Interval) {
        let both = interval.work.counts().into_iter().zip(interval.open_work.counts());
        let both: Vec<_> = both.map(|(whole, inside)| whole.zip(inside)).collect();
        let known = std::array::from_fn(|at| both[at].is_some());
        if known != self.counted.known {
            self.begin_anew(known);
        }
        let fade = self.counted.fade();
        self.counted.open = fade * self.counted.open + interval.open;
        for (at, both) in both.into_iter().enumerate() {
            let (whole, inside) = both.unwrap_or_default();
            self.counted.whole[at] += whole;
            self.counted.inside[at] = fade * self.counted.inside[at] + inside;
        }
        self.amount.note(interval);
        for figure in self.figures.values_mut() {
            figure.seen = figure.seen.times(fade);
            figure.recent = figure.recent.times(FADE);
        }
        self.recent = (
            self.recent.0.part(FADE).and(interval.work),
            FADE * self.recent.1 + interval.elapsed,
        );
        self.by_time = interval.by_time();
    }

    /// Other measures are known than before.
    fn begin_anew(&mut self, known: [bool; Work::COUNTS]) {
        self.settle_first();
        for figure in self.figures.values_mut() {
            figure.seen = Extrapolated::default();
        }
        self.counted = Counted {
            known,
            ..Counted::default()
        };
        self.amount = Amount::default();
        self.events.clear();
        self.events_of.clear();
    }

    /// Adds what the window saw; each stands for `whole` that began in it.
    pub fn add(&mut self, key: Key, seen: Extrapolated, whole: f64) {
        let figure = self.figures.entry(key).or_default();
        figure.seen.add(seen, whole);
        figure.last.add(seen, whole * self.by_time);
        figure.recent.add(seen, whole * self.by_time);
        *self.now.entry((key.0, key.1)).or_default() += seen.count;
    }

    /// All of the window is added.
    pub fn end(&mut self, interval: &Interval) {
        let now = std::mem::take(&mut self.now);
        let mut of_series: HashMap<u16, f64> = HashMap::new();
        for (of, count) in &now {
            *of_series.entry(of.0).or_default() += count;
            self.events.entry(of.0).or_default();
            self.events_of.entry(*of).or_default();
        }
        for (of, events) in &mut self.events_of {
            events.note(now.get(of).copied().unwrap_or_default(), interval);
        }
        for (of, events) in &mut self.events {
            events.note(of_series.get(of).copied().unwrap_or_default(), interval);
        }
        if self.counted.is_first() {
            for figure in self.figures.values_mut() {
                let last = std::mem::take(&mut figure.last);
                figure.early.add(last, 1.0);
            }
            if self.counted.windows + 1 == EARLY {
                self.settle_first();
            }
            self.counted.windows += 1;
        } else {
            self.settle(interval);
        }
    }

    fn settle(&mut self, interval: &Interval) {
        let followed = self.followed();
        // While a window is open all the time, figures are the kernel's own counts.
        let counts = if interval.is_whole() {
            NONE
        } else {
            interval.work.counts()
        };
        let more = self.more(&followed, counts, |figure| figure.last.count);
        for (key, figure) in &mut self.figures {
            let last = std::mem::take(&mut figure.last);
            let by_work = measure_of(&followed, *key).and_then(|at| more[at]);
            let settled = by_work.map_or(last, |more| figure.seen.times(more));
            figure.total.add(settled.or_time(*key, last), 1.0);
        }
    }

    /// How many times more there was of each measure, with these `counts` of it, than in the last windows. The runtime's sample is one of all starts: what
    /// follows them is what is left of them beside the others, which are so many `by_time` where they follow no measure.
    fn more(&self, followed: &Followed, counts: Counts, by_time: impl Fn(&Figure) -> f64) -> Counts {
        let mut more: Counts = std::array::from_fn(|at| Some(counts[at]? / self.counted.inside[at]));
        if self.plane != Plane::Sample {
            return more;
        }
        let (mut rest, mut others) = (0.0, 0.0);
        for (key, figure) in &self.figures {
            match measure_of(followed, *key) {
                Some(STARTS) => rest += figure.seen.count,
                Some(at) => others += more[at].map_or(by_time(figure), |more| more * figure.seen.count),
                None => others += by_time(figure),
            }
        }
        if rest > 0.0 {
            more[STARTS] = counts[STARTS].map(|all| (all / PERIOD - others).max(0.0) / rest);
        }
        more
    }

    /// Settles the figures of the first windows.
    fn settle_first(&mut self) {
        let followed = self.followed();
        let more = self.more_of_first(&followed);
        for (key, figure) in &mut self.figures {
            figure.total = figure.so_far(*key, measure_of(&followed, *key).and_then(|at| more[at]));
            figure.early = Extrapolated::default();
        }
    }

    /// How many times more there was than in the first windows; nothing once they are settled.
    fn more_of_first(&self, followed: &Followed) -> Counts {
        let Counted { known, whole, .. } = self.counted;
        if !self.counted.is_first() {
            return NONE;
        }
        let counts = std::array::from_fn(|at| known[at].then_some(whole[at]));
        let more = self.more(followed, counts, |figure| figure.early.count);
        more.map(|more| Some(more?.max(1.0)))
    }

    /// What each of them follows.
    fn followed(&self) -> Followed {
        let Counted { known, inside, .. } = self.counted;
        let is_sample = self.plane == Plane::Sample;
        let is_enough = |at: &usize| known[*at] && inside[*at] >= LEAST[*at];
        let starts = (self.plane.is_probed() && known[STARTS]).then_some(STARTS);
        // A service does as much as it is asked to, and is said to have done too much where its GC alone is busy between windows: no figure decreases.
        let work = Some(MOVED).filter(is_enough).or(starts);
        let of = |(of, own): (&(u16, u32), &Events)| {
            let is_start = Series::STARTS.iter().any(|series| *series as u16 == of.0);
            let expected = if is_start { starts } else { work };
            let followed = match self.events.get(&of.0) {
                _ if own.count() >= OWN => {
                    let followed = self.amount.followed(own, expected);
                    // What comes in bursts is what is left of the starts.
                    let comes_in_bursts = is_sample && self.amount.error(own, followed) > BURSTS;
                    if comes_in_bursts { starts } else { followed }
                }
                Some(all) if !is_sample => self.amount.followed(all, expected),
                // That is not given to what was hardly seen.
                _ => expected.filter(|at| *at != STARTS),
            };
            let is_usable = |at: &usize| is_enough(at) || is_sample && *at == STARTS && inside[STARTS] > 0.0;
            (*of, followed.filter(is_usable))
        };
        self.events_of.iter().map(of).collect()
    }

    /// Brings what is reported up to now: `work` is what the target did since the last window, `elapsed` ns ago.
    pub fn advance(&mut self, work: Work, elapsed: f64) {
        let (recent_work, recent_time) = self.recent;
        let by_time = if recent_time > 0.0 { elapsed / recent_time } else { 0.0 };
        // What was seen of a quiet target says little about what it does under load.
        let by_recent = work.ratio(recent_work).unwrap_or(by_time).min(RISE * by_time);
        let most = RISE * elapsed / self.counted.open;
        let followed = self.followed();
        let first = self.more_of_first(&followed);
        let more = self.more(&followed, work.counts(), |figure| by_recent * figure.recent.count);
        let more = more.map(|more| Some(more?.min(most)));
        for (key, figure) in &mut self.figures {
            let measure = measure_of(&followed, *key);
            let since = match measure.and_then(|at| more[at]) {
                Some(more) => figure.seen.times(more),
                None => figure.recent.times(by_recent),
            };
            figure.now = figure.so_far(*key, measure.and_then(|at| first[at]));
            figure.now.add(since.or_time(*key, figure.recent.times(by_time)), 1.0);
        }
        self.report();
    }

    /// Brings what is reported up to what is known now. No figure decreases. So if some buckets of a series had too much before, the others get
    /// less now: together they have what the series has. Each on its own would keep the most that chance ever gave it.
    fn report(&mut self) {
        let mut missing: HashMap<Key, Extrapolated> = HashMap::new();
        let mut below: HashMap<Key, Extrapolated> = HashMap::new();
        for (key, Figure { now, reported, .. }) in &self.figures {
            let (count, sum) = (now.count - reported.count, now.sum - reported.sum);
            let whole = whole_of(*key);
            missing.entry(whole).or_default().add(Extrapolated { count, sum }, 1.0);
            let (count, sum) = (count.max(0.0), sum.max(0.0));
            below.entry(whole).or_default().add(Extrapolated { count, sum }, 1.0);
        }
        let share = |missing: f64, below: f64| if below > 0.0 { (missing / below).max(0.0) } else { 0.0 };
        for (key, Figure { now, reported, .. }) in &mut self.figures {
            let whole = whole_of(*key);
            let (missing, below) = (missing[&whole], below[&whole]);
            let of_count = share(missing.count, below.count);
            if key.2 >= SUMS {
                let of_sum = share(missing.sum, below.sum);
                reported.count += of_count * (now.count - reported.count).max(0.0);
                reported.sum += of_sum * (now.sum - reported.sum).max(0.0);
            } else if now.count > reported.count {
                // The mean stays between the two.
                reported.count += of_count * (now.count - reported.count);
                reported.sum += of_count * (now.sum - reported.sum);
            }
        }
    }

    /// What is reported.
    pub fn reported(&self) -> impl Iterator<Item = (Key, Extrapolated)> {
        self.figures.iter().map(|(key, figure)| (*key, figure.reported))
    }
}

fn measure_of(followed: &Followed, (series, id, _): Key) -> Option<usize> {
    followed.get(&(series, id)).copied().flatten()
}

/// The key of all of a series together: of its buckets, or categories, and of all that it is split by.
fn whole_of((series, _, index): Key) -> Key {
    let whole = match index {
        COUNTER => COUNTER,
        SUMS.. => SUMS,
        _ => 0,
    };
    (series, 0, whole)
}

/// Whether it is the sum of time in a state.
fn is_state(series: u16, index: u16) -> bool {
    let mut states = Series::ALL
        .iter()
        .filter(|series| series.seen_when() == SeenWhen::State);
    index >= SUMS && index != COUNTER && states.any(|state| *state as u16 == series)
}
