//! Plans as tables: what a binary lacks → what is attached, and what is said.
