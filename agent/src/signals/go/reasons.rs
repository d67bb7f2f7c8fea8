//! Which of the Go runtime's wait reasons are delay, and not idleness.

/// Waits for these are idleness, not delay: none of them is a span for its length alone. As the runtime calls them, go1.18 to
/// go1.27 (runtime/runtime2.go, waitReasonStrings).
const IDLE: [&str; 20] = [
    "",
    "IO wait",
    "sleep",
    "select",
    "select (no cases)",
    // So do workers wait for their next piece of work.
    "chan receive",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "coroutine",
    "finalizer wait",
    "cleanup wait",
    "force gc (idle)",
    "GOMAXPROCS updater (idle)",
    "GC sweep wait",
    "GC scavenge wait",
    "GC worker (idle)",
    "GC worker (active)",
    "timer goroutine (idle)",
    "trace reader (blocked)",
    "select (durable)",
];

/// Bit by number: the reasons whose long waits are reported, and which the summary shows. `names` are the runtime's own, by number.
pub fn reported_reasons(names: &[String]) -> u64 {
    let reported = |name: &String| !IDLE.contains(&name.as_str());
    let bits = names.iter().take(64).enumerate().filter(|(_, name)| reported(name));
    bits.fold(0, |bits, (number, _)| bits | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idleness_is_not_reported() {
        let names = ["", "IO wait", "chan receive", "sync.Mutex.Lock", "chan send"].map(str::to_owned);
        assert_eq!(reported_reasons(&names), 0b11000);
        // Nothing known of the reasons: no wait is reported for its length.
        assert_eq!(reported_reasons(&[]), 0);
    }
}
