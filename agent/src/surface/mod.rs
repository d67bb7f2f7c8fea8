//! What people and probes see of a run: the summary, the answers to /livez and /readyz, and all text that is printed or logged. The input
//! is the targets' state and a reading of their figures, the output is text. Threads of their own write the summary and the log, so a slow
//! reader does not block the run.

pub mod health;
pub mod output;
pub mod summary;
