//! Stage attach: from facts to a plan (pure), from the plan to links.

pub mod kernel;
