//! How long tasks wait between their wake (or spawn, or yield) and their poll.

use agent_common::histogram::Series;

use crate::{
    aggregate::store::Reading, model::Metric, signals::distribution, target::Target,
    telemetry::tokio::WAKE_TO_POLL_DURATION,
};

pub const NAME: &str = "tokio.wake";

/// Wake-to-poll delay of all tasks as one histogram.
pub fn metrics(target: &Target, reading: &Reading) -> Vec<Metric> {
    distribution(&WAKE_TO_POLL_DURATION, target, Series::TokioWake, reading, |_| {
        Vec::new()
    })
}
