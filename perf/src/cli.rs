//! The command line: its words and its help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use lua_free_rules::units::Millis;

use crate::crowd::plan::Think;

/// Measures a Floodgate, and tries to catch it breaking its promises.
#[derive(Parser)]
#[command(
    version,
    name = "perf",
    after_help = "\
Exit codes: 0 done, 1 failed, 2 a promise was broken: the books do not balance, or the crowd saw it
(or the command line is wrong)."
)]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// The tools.
#[derive(Subcommand)]
pub enum Command {
    /// Play whole buyers against a Floodgate: look, challenge, token, order, follow, pay
    ///
    /// Needs `test_accounts = true` at the order servers and the operator's token: the accounts are
    /// made beforehand. Reports funnel, refusals, speeds, latencies free of coordinated omission, and
    /// how near the generator came to its own limits. perf/README.md says what each figure means.
    Crowd(Box<Crowd>),
    /// Compare Floodgate's way with the usual ones: reservations on Redis and embedded, orders into SQL
    ///
    /// Starts redis-server, mariadbd and postgres of its own, and checks after each measurement that
    /// every order was made. perf/README.md says what each figure means.
    Engines(Engines),
    /// Compare what the edge answers alone with nginx, haproxy, varnish and a responder that only answers
    ///
    /// Starts all of them, sees that each answers rightly, and asks them in turn with wrk. What counts is the
    /// processor time that the server uses for a request. perf/README.md says what each figure means.
    Bench(Bench),
    /// Answer every request with the same bytes: the responder that `bench` compares with
    #[command(hide = true)]
    Bare(Bare),
}

/// `perf bench`.
#[derive(Args)]
pub struct Bench {
    /// Measure only this; may be given several times, or as a list with commas
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<BenchPart>,
    /// Connections that ask at once; may be given several times
    #[arg(long, default_values_t = [64, 1_000], value_parser = number)]
    pub connections: Vec<usize>,
    /// Threads or processes of each server; with one, server and load have a core each
    #[arg(long, default_values_t = [1, 2], value_parser = number)]
    pub workers: Vec<usize>,
    /// Connections that are opened and left idle
    #[arg(long, default_value_t = 1_000, value_parser = number)]
    pub idle: usize,
    /// Connections that ask at a steady rate: half of what the slowest server can do
    #[arg(long, default_value_t = 64, value_parser = number)]
    pub busy: usize,
    /// Connections that are held idle beside those, in one of the measurements
    #[arg(long, default_value_t = 10_000, value_parser = number)]
    pub held: usize,
    /// Rounds, all servers in turn
    #[arg(long, default_value_t = 5, value_parser = number)]
    pub rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// The binary of Floodgate [default: beside this one]
    #[arg(long)]
    pub floodgate: Option<PathBuf>,
    /// The folder of the shop's pages
    #[arg(long, default_value = "html")]
    pub pages: PathBuf,
    /// Orders in each measurement of the sale
    #[arg(long, default_value_t = 20_000, value_parser = number)]
    pub orders: usize,
    /// Keep report, figures and chart in this folder
    #[arg(long)]
    pub out: Option<PathBuf>,
}

impl Bench {
    /// Whether this part is to be measured.
    pub fn asks_for(&self, part: BenchPart) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// What `perf bench` may measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchPart {
    /// A cached item, and idle connections.
    Item,
    /// That item at a steady rate, alone and beside idle connections; with one worker only.
    Latency,
    /// A page.
    Pages,
    /// An order on its way to an order server.
    Pass,
    /// Refusals, beside nginx with Lua and Redis.
    Refusals,
    /// Orders that are accepted, beside nginx with Lua and Redis.
    Sale,
}

/// `perf bare`.
#[derive(Args)]
pub struct Bare {
    /// Where it answers, on the loopback interface
    #[arg(long)]
    pub port: u16,
    /// The status of its answers
    #[arg(long, default_value_t = 200)]
    pub status: u16,
    /// What it answers
    #[arg(long)]
    pub body: PathBuf,
    /// Threads
    #[arg(long, default_value_t = 1, value_parser = number)]
    pub workers: usize,
}

/// `perf engines`.
#[derive(Args)]
pub struct Engines {
    /// Measure only this; may be given several times
    #[arg(long, value_enum)]
    pub only: Vec<Part>,
    /// Orders in each measurement; ways in which each is waited for are measured with a twentieth of them
    #[arg(long, default_value_t = 40_000, value_parser = number)]
    pub orders: usize,
    /// Callers that reserve at once, each of whom waits for his answer
    #[arg(long, default_value_t = 2_000, value_parser = number)]
    pub callers: usize,
    /// Events in one transaction of the order writer
    #[arg(long, default_value_t = 2_000, value_parser = number)]
    pub batch: usize,
    /// Rounds, all ways in turn
    #[arg(long, default_value_t = 5, value_parser = number)]
    pub rounds: usize,
    /// The folder, and so the disk, to measure on [default: where you are]
    ///
    /// Started by root, PostgreSQL runs as `postgres`, who must be able to go through it.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Keep report, figures and chart in this folder
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// What `perf engines` may measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Reservations on Redis.
    Redis,
    /// Reservations through the embedded engine.
    Embedded,
    /// Orders into MariaDB, PostgreSQL and SQLite.
    Sql,
}

/// Connections, where nobody says how many: as many as a usual limit of open files allows both ends.
const CONNECTIONS_MAX: u32 = 4_000;

/// `perf crowd`.
#[derive(Args)]
#[command(
    group(ArgGroup::new("arrivals").args(["within", "rate", "concurrency"])),
    after_help = "\
Examples:
  perf crowd --buyers 2000 --promo 1 --audit            everyone within 5 s, then the shop's audit
  perf crowd --buyers 50000 --rate 5000 --out perf/runs/today
                                                        open loop; report, chart and history kept
  perf crowd --buyers 1000 --concurrency 50             closed loop
  perf crowd --ceiling                                  what the generator can do at best"
)]
pub struct Crowd {
    /// The shop's address
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Let the crowd loose on an address that is not this machine's: it is your own server
    #[arg(long)]
    pub i_own_this_server: bool,
    /// The file with the operator's token, for test accounts and the audit
    #[arg(long, default_value = "data/operator.token")]
    pub operator_token_file: PathBuf,
    /// The promo
    #[arg(long, default_value_t = 1)]
    pub promo: i64,
    /// The item; by default the one that the promo sells
    #[arg(long)]
    pub item: Option<i64>,

    /// How many buyers
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub buyers: u32,
    /// The number of the first test account: another crowd of other people
    #[arg(long, default_value_t = 1)]
    pub first_account: u64,
    /// Everything drawn by chance follows from it; by default drawn, and printed
    #[arg(long)]
    pub seed: Option<u64>,

    /// Open loop: everyone comes within so long, at moments drawn evenly [default: 5s]
    #[arg(long, value_parser = length)]
    pub within: Option<Duration>,
    /// Open loop: so many come a second, independent of each other (Poisson)
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// With --rate: evenly spaced
    #[arg(long, requires = "rate")]
    pub even: bool,
    /// Closed loop: so many at a time. Its latencies hide how long others had to wait
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,

    /// Think times: `exp:200ms`, `fixed:0ms` or `uniform:100ms..500ms`
    #[arg(long, default_value = "exp:200ms")]
    pub think: String,
    /// The most units one buyer asks for
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub amount: u32,
    /// Share that gives up: after looking, with a token, or with an unpaid order
    #[arg(long, default_value_t = 0.06, value_parser = share)]
    pub give_up: f64,
    /// Share that sends the order again after its answer
    #[arg(long, default_value_t = 0.05, value_parser = share)]
    pub resend: f64,
    /// Share that sends the order twice at once
    #[arg(long, default_value_t = 0.05, value_parser = share)]
    pub double_click: f64,
    /// Share that hangs up before the order's answer, and sends it again
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    pub hang_up: f64,
    /// Share that orders with a forged, an altered or somebody else's token
    #[arg(long, default_value_t = 0.05, value_parser = share)]
    pub attack: f64,

    /// Most connections, kept alive and shared by all buyers [default: one a buyer, up to 4000]
    ///
    /// They are opened as they are needed. Fewer than there are requests in flight make buyers wait
    /// for each other, which real ones do not.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=25_000))]
    pub connections: Option<u32>,
    /// Threads of the generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Longest that one answer is waited for
    #[arg(long, default_value = "10s", value_parser = length)]
    pub timeout: Duration,
    /// Longest that a buyer goes on asking the same thing, a restart of the server included
    #[arg(long, default_value = "30s", value_parser = length)]
    pub patience: Duration,
    /// How often a buyer asks again when told to wait (rate limit, overload)
    #[arg(long, default_value_t = 8)]
    pub tries: u32,
    /// How often a buyer asks again when the door is full
    #[arg(long, default_value_t = 1)]
    pub door_tries: u32,
    /// How often an order is looked at until it is written
    #[arg(long, default_value = "250ms", value_parser = length)]
    pub poll: Duration,
    /// The play ends after so long, whoever is still there
    #[arg(long, default_value = "5m", value_parser = length)]
    pub time_limit: Duration,

    /// Ask for the shop's audit at the end; exit code 2 if the books do not balance
    #[arg(long)]
    pub audit: bool,
    /// Write every request and its answer to this file (JSON lines)
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the run to this file (SVG)
    #[arg(long, value_name = "FILE")]
    pub chart: Option<PathBuf>,
    /// Write report.txt, report.json, chart.svg and history.jsonl to this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Only measure the generator itself, then stop
    #[arg(long)]
    pub ceiling: bool,
    /// How long that takes before each run; `0s` leaves it out
    #[arg(long, default_value = "1s", value_parser = length)]
    pub ceiling_for: Duration,
}

impl Crowd {
    /// The most connections.
    pub fn connections(&self) -> usize {
        self.connections.unwrap_or(self.buyers.min(CONNECTIONS_MAX)) as usize
    }

    /// The think times.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn think(&self) -> Result<Think, String> {
        self.think.parse()
    }
}

fn length(text: &str) -> Result<Duration, String> {
    Millis::try_from(text.to_owned()).map(Millis::duration)
}

fn number(text: &str) -> Result<usize, String> {
    let number = text.parse().ok();
    let number = number.filter(|number| (1..=10_000_000).contains(number));
    number.ok_or_else(|| "write a number from 1 to 10000000".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a share between 0 and 1, like 0.05".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text
        .parse()
        .ok()
        .filter(|rate| (0.001..=1_000_000.0).contains(rate));
    rate.ok_or_else(|| "write arrivals a second, like 500".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        let read = |words: &str| Cli::try_parse_from(words.split(' ')).map(|_| ());
        assert!(read("perf crowd --buyers 5 --rate 10 --even --seed 1").is_ok());
        assert!(read("perf engines --only redis --only sql --rounds 1").is_ok());
        for bad in [
            "perf crowd --rate 10 --within 5s",
            "perf crowd --even",
            "perf crowd --rate 0",
            "perf crowd --attack 1.1",
            "perf crowd --attack NaN",
            "perf crowd --buyers 0",
            "perf engines --only mongodb",
            "perf engines --orders 0",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
