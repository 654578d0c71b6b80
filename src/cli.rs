//! The command line: its words and its help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// A flash-sale front door with the shop behind it: it never oversells, never loses an accepted
/// order, never writes one twice, and refuses cheaply.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  floodgate run                      the whole shop on this machine, http://127.0.0.1:8080
  floodgate check                    every error in config/, none of them started
  floodgate publish 2                opens the sale of config/promos/ that has id = 2
  floodgate audit --promo 1          proves, or refutes, that every unit is accounted for
  floodgate audit --history h.jsonl  and that a crowd was told the truth

Exit codes: 0 done, 1 failed, 2 the books or a history are off (or the command line is wrong),
64 the configuration cannot be used, or another process holds the files."
)]
pub struct Cli {
    /// The folder with floodgate.toml, catalog.toml and promos/
    #[arg(
        long,
        short,
        global = true,
        default_value = "config",
        env = "FLOODGATE_CONFIG"
    )]
    pub config: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start the edge, the order servers and the order writer in one process
    ///
    /// Real and durable, for one machine: the engine and the ledger are SQLite files in `data_dir`.
    /// The catalogue is seeded and every promo that was never published is published. Keys and the
    /// operator's token are generated in `data_dir` unless the configuration names them. SIGTERM or
    /// Ctrl-C stops it as soon as work in flight is done, at the latest after `grace`.
    Run,
    /// Load the configuration with the real loader and report every error in it
    Check,
    /// Publish the promo of that id
    ///
    /// Asks the running process, and opens the files itself only when none runs. Publishing the same
    /// promo again changes nothing; a sale that has begun is never reset.
    Publish {
        /// The promo's id
        promo: i64,
    },
    /// Check the stock equation across engine, stream and ledger
    ///
    /// Asks the running process, and opens the files itself only when none runs. Exits with 2 and
    /// names the order or unit that is off when the books do not balance.
    ///
    /// With --history it also holds what a crowd was told (`perf crowd --history`) against the books:
    /// every order that was accepted is in the ledger, once, for its buyer, key and amount; every order
    /// of these buyers was asked for; every refusal was true at some moment between its sending and its
    /// receipt, where an edge that answers from memory may be 5 s behind. Each line that is off is
    /// named. Give the histories of all who bought: what a door had to refuse is only known then.
    Audit {
        /// Only this promo
        #[arg(long)]
        promo: Option<i64>,
        /// Hold the history of a crowd, once it is complete, against the books; may be repeated
        #[arg(long, value_name = "FILE")]
        history: Vec<PathBuf>,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
        /// How long the ledger may take to catch up with the engine
        #[arg(long, default_value = "10s", value_parser = parse_wait)]
        wait: Duration,
    },
    /// Make a signing key
    ///
    /// Name it in floodgate.toml under `[keys]`. To rotate: add the new key to `accepted`
    /// everywhere, then make it `active`, then drop the old one after the longest token's life.
    Keygen {
        /// The key's id
        #[arg(long, default_value = "k1")]
        id: String,
        /// Write it to this file (mode 0600, never overwritten) instead of printing it
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    lua_free_rules::units::Millis::try_from(text.to_owned()).map(|span| span.duration())
}
