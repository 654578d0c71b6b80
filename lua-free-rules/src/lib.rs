//! Floodgate's rules: every decision the front door and the shop behind it make, as plain functions.
//!
//! What is absent here is the point: no I/O, no clock, no randomness, no runtime. Callers pass in
//! facts, `now` and whatever was drawn by chance, and get a decision back. So a decision can be
//! replayed, simulated and explained.
//!
//! | module | what it decides |
//! |---|---|
//! | [`units`] | money, time, and the ids that travel between the rooms |
//! | [`refusal`] | every reason to say no: code, status, words |
//! | [`promo`] | the sale: window, stock, door, phase |
//! | [`order`] | the states of an order and who may move it |
//! | [`equation`] | the stock equation that `audit` checks |
//! | [`keys`] | the ring of signing keys |
//! | [`token`] | access tokens and sessions: mint, verify |
//! | [`challenge`] | the challenge's signed envelope and the verdict on an answer |
//! | [`limit`] | rate limits (GCRA) |
//! | [`admission`] | may this request go on? |
//! | [`fields`] | the fields of a request: JSON, form, query |
//! | [`purchase`] | a request to create an order |
//! | [`item`] | an item and a promo as buyers see them |
//! | [`config`] | what is written in TOML, and its errors |
//!
//! Invariants: no function here panics on input from outside; a price is a whole number of minor
//! units; a time is a whole number of milliseconds since the Unix epoch.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
pub mod challenge;
pub mod config;
pub mod equation;
pub mod fields;
pub mod item;
pub mod keys;
pub mod limit;
pub mod order;
pub mod promo;
pub mod purchase;
pub mod refusal;
pub mod token;
pub mod units;
