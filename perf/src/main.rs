//! The `perf` binary: parse, match, exit.

use std::process::ExitCode;

use clap::Parser as _;
use floodgate_perf::{cli, crowd};

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::Crowd(asked) => crowd::run(&asked),
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
