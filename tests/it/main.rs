//! End to end: every test starts the real binary on free ports, with data of its own, and stops it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod bad_input;
mod beyond;
mod browser;
mod buyer;
mod commands;
mod crash;
mod crowd;
mod databases;
mod dead_letters;
mod deploy;
mod fleet;
mod history;
mod house;
mod idle;
mod purchase;
mod relay;
mod roles;
mod sale;
mod upstreams;
mod webhook;
