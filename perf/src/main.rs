//! The `perf` binary: parse, match, exit.

use std::process::ExitCode;

use clap::Parser as _;
use floodgate_perf::{bench, cli, crowd, engines};

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::Crowd(asked) => crowd::run(&asked).map_err(|error| error.to_string()),
        cli::Command::Engines(asked) => engines::run(&asked)
            .map(|()| true)
            .map_err(|error| error.to_string()),
        cli::Command::Bench(asked) => bench::run(&asked)
            .map(|()| true)
            .map_err(|error| error.to_string()),
        cli::Command::Bare(asked) => {
            bench::run_bare(asked.port, asked.status, &asked.body, asked.workers)
                .map(|()| true)
                .map_err(|error| error.to_string())
        }
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
