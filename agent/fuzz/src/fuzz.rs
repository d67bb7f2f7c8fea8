//! Feeds libFuzzer's bytes to the reader that WHYWAIT_READER names.

#![no_main]

use std::sync::LazyLock;

use agent_fuzz::inspect::readers::Reader;

static READER: LazyLock<Reader> = LazyLock::new(|| {
    let name = std::env::var("WHYWAIT_READER").unwrap_or_default();
    agent_fuzz::reader(&name).unwrap_or_else(|| panic!("WHYWAIT_READER={name} is no reader"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| READER(bytes));
