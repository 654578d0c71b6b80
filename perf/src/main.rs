//! `perf`: the tools that measure a Floodgate and try to refute its promises.
//!
//! | module | what is inside |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`crowd`] | whole buyers, played against any address |
//! | [`engines`] | grouped commits against one transaction each |
//! | [`machine`] | the machine a run was made on, and how busy the tool kept it |
//! | [`svg`] | the little of SVG that charts need |
//!
//! What is absent: the crowd uses nothing of the shop but its rules, so it knows it only by its answers.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;
mod crowd;
mod engines;
mod machine;
mod svg;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::Crowd(asked) => crowd::run(&asked).map_err(|error| error.to_string()),
        cli::Command::Engines(asked) => engines::run(&asked)
            .map(|()| true)
            .map_err(|error| error.to_string()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("perf: {error}");
            ExitCode::FAILURE
        }
    }
}
