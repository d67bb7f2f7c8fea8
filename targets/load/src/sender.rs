//! The threads that send: each takes the next request of the plan, waits until it is due, and sends it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use hdrhistogram::Histogram;

use crate::{
    clock::{now_ns, precise_sleeps, sleep_towards},
    connection::{Connection, Exchange},
    plan::Plan,
    target::Target,
};

/// How often a sleeping thread looks at the stop flag.
const SLICE: Duration = Duration::from_millis(100);
const HIGHEST_NS: u64 = 3_600_000_000_000;
/// How long a thread leaves a server alone that refuses connections.
const RECONNECT_PAUSE: Duration = Duration::from_millis(10);

/// What a run, or one thread of it, has measured.
pub(crate) struct Run {
    /// ns from the moment a request was due to the answer's first byte.
    pub(crate) from_due: Histogram<u64>,
    /// ns from just before a request was written to the answer's first byte.
    pub(crate) from_sent: Histogram<u64>,
    pub(crate) begin_ns: u64,
    /// When the last answer had come and the plan's time was over.
    pub(crate) end_ns: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Requests that were due before the end and not sent, because all connections were busy.
    pub(crate) unsent: u64,
}

impl Run {
    fn new(begin_ns: u64) -> Run {
        let histogram = || Histogram::new_with_max(HIGHEST_NS, 3).expect("constant bounds");
        Run {
            from_due: histogram(),
            from_sent: histogram(),
            begin_ns,
            end_ns: begin_ns,
            errors: 0,
            first_error: None,
            unsent: 0,
        }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.from_sent.len()
    }

    fn record(&mut self, due_ns: u64, exchange: &Exchange) {
        let since = |begin: u64| exchange.first_byte_ns.saturating_sub(begin).max(1);
        self.from_due.saturating_record(since(due_ns));
        self.from_sent.saturating_record(since(exchange.sent_ns));
    }

    fn fail(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    fn add(&mut self, other: Run) {
        self.from_due += other.from_due;
        self.from_sent += other.from_sent;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// Runs the plan to its end or until `stop`. Fails if a server can't be reached at the begin.
pub(crate) fn run(plan: &Plan, connections: u16, timeout: Duration, stop: &AtomicBool) -> anyhow::Result<Run> {
    let open = |target: &Target| Connection::open(&target.address, timeout).with_context(|| format!("{target}"));
    // All connections before the first request: connecting is not part of any latency.
    let mut ready = Vec::new();
    for _ in 0..connections {
        let mut opened = HashMap::new();
        for target in &plan.targets {
            if !opened.contains_key(&target.address) {
                opened.insert(target.address.clone(), open(target)?);
            }
        }
        ready.push(opened);
    }

    let next = AtomicU64::new(0);
    let begin_ns = now_ns();
    let mut total = Run::new(begin_ns);
    let mut sending_ended_ns = u64::MAX;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ready
            .into_iter()
            .map(|opened| {
                let sender = Sender {
                    plan,
                    timeout,
                    stop,
                    next: &next,
                    opened,
                    begin_ns,
                    ended_ns: begin_ns,
                };
                scope.spawn(move || sender.run())
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(run) => {
                    sending_ended_ns = sending_ended_ns.min(run.end_ns);
                    total.add(run);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    // From the first thread that stopped sending: later ones only waited for answers.
    let mut sending_ns = sending_ended_ns.saturating_sub(begin_ns);
    if !plan.duration.is_zero() {
        let planned_ns = u64::try_from(plan.duration.as_nanos())?;
        sending_ns = sending_ns.min(planned_ns);
        if !stop.load(Ordering::Relaxed) {
            // The last request is due before the end: a rate over less time would be too high.
            sleep_towards(begin_ns + planned_ns, plan.duration);
        }
    }
    total.end_ns = now_ns();
    total.unsent = plan
        .due_count(sending_ns)
        .saturating_sub(total.answered() + total.errors);
    Ok(total)
}

struct Sender<'a> {
    plan: &'a Plan,
    timeout: Duration,
    stop: &'a AtomicBool,
    next: &'a AtomicU64,
    /// By address; missing after an error.
    opened: HashMap<String, Connection>,
    begin_ns: u64,
    /// When this thread stopped sending.
    ended_ns: u64,
}

impl Sender<'_> {
    fn run(mut self) -> Run {
        let mut run = Run::new(self.begin_ns);
        if let Err(error) = precise_sleeps() {
            eprintln!("load: latencies may be 50 µs too long: timer slack: {error}");
        }
        let mut request = Vec::new();
        while let Some((number, due_ns)) = self.wait_for_next() {
            let planned = self.plan.request(number);
            let target = &self.plan.targets[planned.target];
            target.write_request(planned.n, &mut request);
            match self.exchange(target, &request) {
                Ok(exchange) if exchange.status < 400 => {
                    let due_ns = if self.plan.rate > 0.0 { due_ns } else { exchange.sent_ns };
                    run.record(due_ns, &exchange);
                }
                Ok(exchange) => run.fail(format!("{target}: status {}", exchange.status)),
                // Cut off by the end: neither an answer nor the server's fault.
                Err(_) if self.stop.load(Ordering::Relaxed) => break,
                Err(error) => run.fail(format!("{target}: {error:#}")),
            }
        }
        run.end_ns = self.ended_ns;
        run
    }

    /// Takes the next request and sleeps until it is due; none when the run is over.
    fn wait_for_next(&mut self) -> Option<(u64, u64)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.ended_ns = now_ns();
        let due_ns = self.begin_ns + self.plan.due_ns(number)?;
        let mut slept = false;
        loop {
            let now = now_ns();
            let over =
                !self.plan.duration.is_zero() && u128::from(now - self.begin_ns) >= self.plan.duration.as_nanos();
            if over || self.stop.load(Ordering::Relaxed) {
                // Whoever slept for a request would have sent it in time: it isn't one left behind.
                self.ended_ns = if slept { now.min(due_ns) } else { now };
                return None;
            }
            if now >= due_ns {
                self.ended_ns = now;
                return Some((number, due_ns));
            }
            sleep_towards(due_ns, SLICE);
            slept = true;
        }
    }

    fn exchange(&mut self, target: &Target, request: &[u8]) -> anyhow::Result<Exchange> {
        let mut connection = match self.opened.remove(&target.address) {
            Some(connection) => connection,
            None => {
                Connection::open(&target.address, self.timeout).inspect_err(|_| std::thread::sleep(RECONNECT_PAUSE))?
            }
        };
        let exchange = connection.exchange(request, self.stop)?;
        if exchange.reusable {
            self.opened.insert(target.address.clone(), connection);
        }
        Ok(exchange)
    }
}
