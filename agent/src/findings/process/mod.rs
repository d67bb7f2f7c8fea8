//! Rules of any process: its cores and its quota.

pub mod no_core;
pub mod throttled;
