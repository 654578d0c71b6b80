//! The order servers through real HTTP, on the embedded engine and a ledger on disk.
#![allow(clippy::unwrap_used)]

mod harness;
mod input;
mod operators;
mod outages;
mod pairing;
mod payments;
mod purchase;
mod signals;
