//! The `perf` binary as a whole.
#![allow(clippy::unwrap_used, missing_docs)]

mod bench;
