//! The edge through real HTTP: started on port 0 with the embedded engine behind it. Order servers are
//! small peers on the network that count what reaches them.
#![allow(clippy::unwrap_used, missing_docs)]

mod bad_input;
mod both_ways;
mod connections;
mod dice;
mod harness;
mod items;
mod limits;
mod orders;
mod pages;
mod peer;
mod requests;
mod signals;
mod stopping;
mod tls;
mod tokens;
mod upstreams;
mod wire;
