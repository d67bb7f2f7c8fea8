//! The connections' threads: each takes the next due request, waits for its time, sends it, and counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::connection::Connection;
use crate::mix::{Mix, Random};

/// The longest latency the histograms hold; longer ones count as this.
const LONGEST_NS: u64 = 3600 * 1_000_000_000;
/// How long a connection that failed waits before it tries again, so that a dead service isn't stormed.
const PAUSE: Duration = Duration::from_millis(10);
/// The most distinct messages kept of errors; the others count together.
const MOST_MESSAGES: usize = 16;

pub struct Plan {
    pub mix: Mix,
    pub rate: f64,
    pub duration: Duration,
    pub timeout: Duration,
}

pub struct Tally {
    /// Answers that came, by URL, in the order of the command line.
    pub answered: Vec<u64>,
    pub errors: u64,
    pub messages: BTreeMap<String, u64>,
    /// From the due time to the first byte of the answer, ns.
    pub latency: Histogram<u64>,
    /// From sending to the first byte of the answer, ns.
    pub service: Histogram<u64>,
}

impl Tally {
    fn new(urls: usize) -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_NS, 3).context("making a histogram");
        Ok(Self {
            answered: vec![0; urls],
            errors: 0,
            messages: BTreeMap::new(),
            latency: histogram()?,
            service: histogram()?,
        })
    }

    fn error(&mut self, message: String) {
        self.errors += 1;
        let known = self.messages.contains_key(&message);
        let key = if known || self.messages.len() < MOST_MESSAGES {
            message
        } else {
            "others".into()
        };
        *self.messages.entry(key).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        for (sum, count) in self.answered.iter_mut().zip(&other.answered) {
            *sum += count;
        }
        self.errors += other.errors;
        for (message, count) in &other.messages {
            *self.messages.entry(message.clone()).or_default() += count;
        }
        // Same bounds in all of them, so adding can't fail.
        let _ = self.latency.add(&other.latency);
        let _ = self.service.add(&other.service);
    }
}

struct Shared {
    plan: Arc<Plan>,
    stop: Arc<AtomicBool>,
    start: Instant,
    /// The number of the next request that no thread has taken.
    next: AtomicU64,
    running: AtomicUsize,
}

pub struct Workers {
    pub start: Instant,
    shared: Arc<Shared>,
    tallies: Vec<Arc<Mutex<Tally>>>,
}

pub fn start(plan: Arc<Plan>, stop: Arc<AtomicBool>, connections: usize) -> Result<Workers> {
    // A moment for the threads to be there before the first request is due.
    let start = Instant::now() + Duration::from_millis(10);
    let shared = Arc::new(Shared {
        plan,
        stop,
        start,
        next: AtomicU64::new(0),
        running: AtomicUsize::new(connections),
    });
    let mut tallies = Vec::new();
    for number in 0..connections {
        let tally = Arc::new(Mutex::new(Tally::new(shared.plan.mix.len())?));
        tallies.push(Arc::clone(&tally));
        let shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("load-{number}"))
            .stack_size(256 << 10)
            .spawn(move || {
                work(&shared, number as u64, &tally);
                shared.running.fetch_sub(1, Ordering::Release);
            })
            .with_context(|| format!("starting the thread of connection {number}"))?;
    }
    Ok(Workers { start, shared, tallies })
}

impl Workers {
    pub fn finished(&self) -> bool {
        self.shared.running.load(Ordering::Acquire) == 0
    }

    /// The sum of what all connections counted so far.
    pub fn tally(&self) -> Result<Tally> {
        let mut sum = Tally::new(self.shared.plan.mix.len())?;
        for tally in &self.tallies {
            sum.add(&tally.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(sum)
    }
}

fn work(shared: &Shared, number: u64, tally: &Mutex<Tally>) {
    // Without it the kernel may wake us 50 µs late, to save wakeups; refused, that much is added to latencies.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let mut random = Random::new(number + 1);
    let mut request = Vec::new();
    // By host and port: a mix may ask several services.
    let mut connections: BTreeMap<String, Connection> = BTreeMap::new();
    while let Some(due) = next_due(shared) {
        let (url, authority) = shared.plan.mix.next(&mut random, &mut request);
        if !sleep_until(due, &shared.stop) {
            // Taken, but not yet due when the end came.
            return;
        }
        let result = exchange(&mut connections, authority, &request, shared.plan.timeout);
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok((200..=299, sent, first_byte)) => {
                tally.answered[url] += 1;
                // In a closed loop a request is due when it is sent.
                let due = if shared.plan.rate > 0.0 { due } else { sent };
                tally.latency.saturating_record(nanoseconds(first_byte - due));
                tally.service.saturating_record(nanoseconds(first_byte - sent));
            }
            Ok((status, ..)) => tally.error(format!("status {status}")),
            Err(error) => {
                tally.error(format!("{authority}: {error:#}"));
                drop(tally);
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// When the next request is due; none when there are no more.
fn next_due(shared: &Shared) -> Option<Instant> {
    let plan = &shared.plan;
    if shared.stop.load(Ordering::Relaxed) {
        return None;
    }
    let after = if plan.rate > 0.0 {
        Duration::from_secs_f64(shared.next.fetch_add(1, Ordering::Relaxed) as f64 / plan.rate)
    } else {
        shared.start.elapsed()
    };
    let due = shared.start + after;
    (plan.duration.is_zero() || after < plan.duration).then_some(due)
}

/// False when the end came first.
fn sleep_until(due: Instant, stop: &AtomicBool) -> bool {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

fn exchange(
    connections: &mut BTreeMap<String, Connection>,
    authority: &str,
    request: &[u8],
    timeout: Duration,
) -> Result<(u16, Instant, Instant)> {
    if !connections.contains_key(authority) {
        connections.insert(
            authority.into(),
            Connection::open(authority, timeout).context("connecting")?,
        );
    }
    let connection = connections.get_mut(authority).context("the connection just opened")?;
    let sent = Instant::now();
    let answer = connection.ask(request);
    if !matches!(&answer, Ok(answer) if answer.keep_alive) {
        connections.remove(authority);
    }
    let answer = answer?;
    Ok((answer.status, sent, answer.first_byte))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
