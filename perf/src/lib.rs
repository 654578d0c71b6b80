//! `perf`: the tools that measure a Floodgate and try to refute its promises. A library too, so that
//! tests play the same crowd without a binary of another package.
//!
//! | module | what is inside |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`bench`] | what the edge answers alone, against nginx, haproxy, varnish and a bare responder |
//! | [`crowd`] | whole buyers, played against any address |
//! | [`engines`] | Floodgate's reservations and order writer against the usual ways |
//! | [`machine`] | the machine a run was made on, and how busy the tool kept it |
//! | [`spread`] | what several rounds say together |
//! | [`svg`] | the little of SVG that charts need |
//!
//! What is absent: the crowd uses nothing of the shop but its rules, so it knows it only by its answers.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bench;
pub mod cli;
pub mod crowd;
pub mod engines;
pub mod machine;
pub mod spread;
pub mod svg;
