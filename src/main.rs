//! The `floodgate` binary: parse, match, exit.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod audit;
mod cli;
mod dead_letters;
mod engine;
mod keygen;
mod load;
mod process;
mod publish;
mod roles;
mod run;
mod running;
mod secrets;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;
use lua_free_rules::config::Role;

use cli::{Cli, Command};

/// jemalloc holds an idle connection in a quarter of the memory that others took.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code of a configuration that cannot be used, and of files another process holds.
const EXIT_CONFIG: u8 = 64;
/// Exit code of books that do not balance, and of histories that they contradict.
const EXIT_UNBALANCED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Run => run::run(&cli.config),
        Command::Proxy => roles::start(&cli.config, Role::Proxy),
        Command::Backend => roles::start(&cli.config, Role::Backend),
        Command::Writer => roles::start(&cli.config, Role::Writer),
        Command::Check { role } => load::check(&cli.config, *role),
        Command::Publish { promo } => publish::publish(&cli.config, *promo),
        Command::Audit {
            promo,
            history,
            json,
            wait,
        } => audit::audit(&cli.config, *promo, history, *json, *wait),
        Command::DeadLetters { action } => dead_letters::dead_letters(&cli.config, action),
        Command::Keygen { id, out } => keygen::keygen(id, out.as_deref()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(lines)) => {
            for line in lines {
                eprintln!("{line}");
            }
            ExitCode::from(EXIT_CONFIG)
        }
        Err(Failure::Unbalanced) => ExitCode::from(EXIT_UNBALANCED),
        Err(Failure::Other(error)) => {
            eprintln!("floodgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Why a command did not succeed, as far as the exit code goes.
enum Failure {
    /// The configuration cannot be used; each line is one error.
    Config(Vec<String>),
    /// The audit found the books off.
    Unbalanced,
    /// Anything else.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

type Outcome<T = ()> = Result<T, Failure>;
