//! Floodgate's order servers: an axum shell around the rules and the engine, the order writer, and
//! the ledger.
//!
//! A purchase walks forward only: [`server`] -> `api` -> `reserve` -> engine, then stream ->
//! [`writer`] -> [`ledger`].
//!
//! | module | what is inside |
//! |---|---|
//! | [`settings`] | what an order server is started with |
//! | [`server`] | starts what a process is to do, and stops it gracefully |
//! | `listener`, `probes` | connections and their limits; `/live`, `/ready`, `/metrics` |
//! | `api` | the routes as a table, one file for each noun |
//! | `answer` | success and refusal as HTTP responses |
//! | `accounts` | passwords, one-time codes and their delivery |
//! | `bounded` | so much work at once, so much waiting, the rest is shed |
//! | `reserve` | from a request to create an order to a reservation |
//! | [`publishing`] | publishing a promo, and whether the shop has the units |
//! | `promos` | the promos as the engine last told them |
//! | `catalogue` | the items, and the copies of them that order servers share |
//! | [`payment`] | the payment adapter, its providers, late payments |
//! | [`writer`] | the order writer: from the stream to the ledger |
//! | [`dead_letters`] | what the writer set aside: shown, and put back |
//! | [`recovery`] | an engine that lost its memory is rebuilt from the ledger |
//! | [`sweeper`] | the expiry sweeper: ends unpaid orders, returns their units |
//! | `workers` | writer, sweeper and recovery at work, started again when they fail |
//! | [`ledger`] | the SQL database; SQL lives nowhere else |
//! | [`mod@audit`] | proves or refutes the stock equation |
//! | [`history`] | holds what a crowd was told against the books |
//! | [`metrics`] | every metric, by name |
//! | [`error`] | what can go wrong, for the buyer and for the operator |
//!
//! Invariants: the ledger's row decides what an order becomes; stock is changed by the engine only;
//! what ends an order in the ledger records its release in the same transaction; the writer
//! acknowledges after the commit, never before; every error leaves as a refusal of the rules.
//!
//! What is absent: no handler holds a lock on the database while it waits for something else, and
//! nothing here waits without a bound.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod answer;
mod api;
pub mod audit;
mod bounded;
mod catalogue;
pub mod dead_letters;
pub mod error;
pub mod history;
pub mod ledger;
mod listener;
pub mod metrics;
pub mod payment;
mod probes;
mod promos;
pub mod publishing;
pub mod recovery;
mod reserve;
pub mod server;
pub mod settings;
#[cfg(test)]
mod simulation;
pub mod sweeper;
mod workers;
pub mod writer;

pub use audit::{AuditReport, audit};
pub use error::BackendError;
pub use ledger::{Ledger, LedgerSettings};
pub use server::{Running, start, start_order_servers, start_writer};
pub use settings::{Secret, Settings, WriterSettings};
