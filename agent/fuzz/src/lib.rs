//! The agent's readers of hostile bytes, from the agent's own files but without the rest of it: neither eBPF nor the network
//! has to be built.

#[path = "../../src/inspect/mod.rs"]
pub mod inspect;
#[expect(dead_code, reason = "the rest of the agent uses it")]
mod recording;

/// The reader of this name.
pub fn reader(name: &str) -> Option<inspect::readers::Reader> {
    let all = inspect::readers::READERS
        .iter()
        .chain([&("recording", recording::recording as _)]);
    all.copied().find(|(known, _)| *known == name).map(|(_, reader)| reader)
}
