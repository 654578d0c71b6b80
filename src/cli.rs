//! The command line: its words and its help.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Parser, Subcommand};
use engine::EntryId;
use lua_free_rules::config::Role;

/// A flash-sale front door with the shop behind it: it never oversells, never loses an accepted
/// order, never writes one twice, and refuses cheaply.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  floodgate run                      the whole shop on this machine, http://127.0.0.1:8080
  floodgate check                    every error in config/, none of them started
  floodgate check --role writer      and all that a writer of its own would lack
  floodgate publish 2                opens the sale of config/promos/ that has id = 2
  floodgate audit --promo 1          proves, or refutes, that every unit is accounted for
  floodgate audit --history h.jsonl  and that a crowd was told the truth
  floodgate dead-letters list        orders and other events that could not be written

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
    /// Real and durable, for one machine: the engine and the ledger are SQLite files in `data_dir`, unless
    /// the configuration names a Redis or a database server.
    /// The catalogue is seeded and every promo that was never published is published. Keys and the
    /// operator's token are generated in `data_dir` unless the configuration names them. SIGTERM or
    /// Ctrl-C stops it as soon as work in flight is done, at the latest after `grace`.
    Run,
    /// Start an edge alone
    ///
    /// For several machines: it shares an engine on Redis with all other processes, and reaches the order
    /// servers at `edge.upstreams`. Keys and the operator's token must be named in the configuration.
    /// SIGTERM or Ctrl-C stops it as it stops `run`.
    Proxy,
    /// Start order servers alone
    ///
    /// For several machines: they share an engine on Redis and a database server with all other processes.
    /// The catalogue is seeded; nothing is published but by `floodgate publish` and operators. Keys, the
    /// operator's token and the webhook's secret must be named in the configuration. They wait for a
    /// database that is away.
    Backend,
    /// Start an order writer with an expiry sweeper alone
    ///
    /// For several machines: as many as you like share the work, and one takes over what another left.
    /// It needs neither keys nor tokens. It waits for a database that is away.
    Writer,
    /// Load the configuration with the real loader and report every error in it
    Check {
        /// Also what this process of its own would lack; secrets are not read
        #[arg(long, value_name = "ROLE", value_parser = role_parser())]
        role: Option<Role>,
    },
    /// Publish the promo of that id
    ///
    /// Asks the running process, and opens the files itself only when none runs; an engine on Redis it
    /// goes to itself. Publishing the same promo again changes nothing; a sale that has begun is never
    /// reset.
    Publish {
        /// The promo's id
        promo: i64,
    },
    /// Check the stock equation across engine, stream and ledger
    ///
    /// Asks the running process, and opens the files itself only when none runs; an engine on Redis it
    /// goes to itself, and what waits in the stream there is for the writers to write within --wait. Exits
    /// with 2 and names the order or unit that is off when the books do not balance.
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
    /// List events that could not be written to the ledger, or put them back
    ///
    /// The order writer sets aside what it can never write, an entry that is no event or that contradicts
    /// the ledger, with its reason, and goes on; `audit` counts it as a fault.
    ///
    /// Asks the running process, and opens the files itself only when none runs; an engine on Redis it
    /// goes to itself.
    DeadLetters {
        #[command(subcommand)]
        action: DeadLetterAction,
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

#[derive(Subcommand)]
pub enum DeadLetterAction {
    /// Show what was set aside, oldest first, each with its id and its reason
    List {
        /// Print it as JSON, with whole payloads
        #[arg(long)]
        json: bool,
        /// Show at most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        max: u16,
    },
    /// Put entries back at the end of the stream, for another try
    ///
    /// Do it once the cause is mended. What still cannot be written comes back among the dead letters,
    /// under a new id.
    Replay {
        /// Their ids, like 7-42
        #[arg(
            value_name = "ID",
            required_unless_present = "all",
            conflicts_with = "all"
        )]
        ids: Vec<EntryId>,
        /// All there are now, up to 5000 at once
        #[arg(long)]
        all: bool,
    },
}

fn role_parser() -> impl clap::builder::TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::name)).try_map(|name| {
        let named = |role: &Role| role.name() == name;
        Role::ALL.into_iter().find(named).ok_or("no such role")
    })
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    lua_free_rules::units::Millis::try_from(text.to_owned()).map(|span| span.duration())
}
