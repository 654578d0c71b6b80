//! Floodgate's edge: a Pingora shell around the rules. It answers the crowd from memory and lets only
//! admitted requests reach an order server.
//!
//! | module | what it does |
//! |---|---|
//! | `connections` | how many connections there may be, in all and of one network |
//! | `fast_path` | the event loop of a thread: answers straight on the connection, passes orders on; the rest is Pingora's |
//! | `front`, `deadline` | the front of Pingora's proxy: idle and header deadlines |
//! | `call`, `request` | one request on its way; what it says, whichever way it came |
//! | `service` | Pingora's phases, in the order a request meets them |
//! | `routes` | which paths and methods there are, and who answers |
//! | `gate` | gathers facts, asks the rules, answers or lets pass |
//! | `client`, `limits`, `body` | who asks; how often; what with |
//! | `answer` | what the edge says by itself, as a value: one description, two ways to send it |
//! | `pages`, `shop`, `item_cache`, `item_changes` | pages, items, promo state from memory |
//! | `at_hand` | what many read and few replace, without a lock |
//! | `promos`, `sold_out` | what is known of the promos, and who is sold out |
//! | `signals` | what the engine tells at once: promos are asked for, items fetched again |
//! | `challenges`, `puzzles`, `tokens` | challenges given out, made in advance; access tokens |
//! | `forward`, `upstreams` | the way to an order server; which one; what to do when it fails |
//! | `drain`, `admin`, `access_log` | stopping; `/live`, `/ready`, `/metrics`; one line a request |
//! | `metrics`, `tally` | their names; what a thread has counted and not yet told |
//! | `workers`, `listeners` | the threads that serve, each on its own; the sockets that they listen on |
//! | `edge`, `tls`, `error` | what requests share; certificates; why the edge did not start |
//!
//! Invariants: a refused request never reaches an order server; an order is forwarded only with a
//! validly signed session and token that agree; every queue, pool, cache and body is bounded; a request
//! is sent twice only where that cannot do a thing twice. Whether a request takes the fast path or Pingora's
//! changes neither its answer nor what is counted.
//!
//! What is absent: decisions (they are in the rules), sale state (it is in the engine), and Pingora's
//! `Server`, which takes over signals and sleeps out its grace period. Connections are served on threads of
//! the edge's own; what goes on beside them runs on the caller's runtime.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access_log;
mod admin;
mod answer;
mod at_hand;
mod body;
mod call;
mod challenges;
mod client;
mod connections;
mod deadline;
mod drain;
mod edge;
mod error;
mod fast_path;
mod forward;
mod front;
mod gate;
mod item_cache;
mod item_changes;
mod limits;
mod listeners;
mod metrics;
mod pages;
mod promos;
mod puzzles;
mod request;
mod routes;
mod running;
mod service;
mod shop;
mod signals;
mod sold_out;
mod tally;
mod tls;
mod tokens;
mod upstreams;
mod workers;

pub use error::ProxyError;
pub use running::{Running, Settings, start, start_with_clock};
