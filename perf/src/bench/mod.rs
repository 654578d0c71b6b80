//! `perf bench`: what the edge answers alone, beside what people would run otherwise. Every server is asked in
//! turn, round by round, so that what else the machine does falls on all alike.
//!
//! | module | what is inside |
//! |---|---|
//! | `peers` | the servers, and how each is set up |
//! | `bare` | a responder that does nothing but answer |
//! | `load` | wrk, and the processor time that a server used meanwhile |
//! | `work`, `exchange` | what is asked for, and which answer is right |
//! | `pages` | the servers that have a page |
//! | `held`, `idle` | connections that are held open, and what an idle one costs |
//! | [`open_loop`], `latency` | a steady rate without coordinated omission, and what was seen at it |
//! | `crowded` | busy connections beside a crowd of idle ones |
//! | `report`, `chart` | what was measured, in words and as a picture |
//!
//! An answer that is not the right one is a failure, not a figure.

mod bare;
mod chart;
mod crowded;
pub mod exchange;
pub mod held;
mod idle;
mod latency;
mod load;
pub mod open_loop;
mod pages;
mod peers;
mod report;
mod work;

use std::time::Duration;

use floodgate_servers::Peer;

use crate::cli;
use crate::machine::Machine;
use exchange::Exchange;
use latency::Steady;
use open_loop::Plan;
use pages::Pages;
use peers::{ALL, Kind, Setting};
use report::{Report, Row, Table};
use work::{Doing, Work};

pub use bare::run as run_bare;

/// What stops a measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures, prints, and keeps what was asked for.
///
/// # Errors
/// If a server answers wrongly, or a file fails.
///
/// # Panics
/// If a server that is to be measured is missing on this machine.
pub fn run(asked: &cli::Bench) -> Result<(), Failure> {
    let perf = std::env::current_exe()?;
    let floodgate = asked.floodgate.clone();
    let floodgate = floodgate.unwrap_or_else(|| peers::beside(&perf, "floodgate"));
    let mut report = Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: Machine::this(),
        is_release: !cfg!(debug_assertions),
        rounds: asked.rounds,
        seconds: asked.seconds,
        tables: Vec::new(),
        steady: None,
        crowded: Vec::new(),
        idle: Vec::new(),
    };
    for &workers in &asked.workers {
        let setting = Setting {
            floodgate: floodgate.clone(),
            perf: perf.clone(),
            pages: asked.pages.canonicalize()?,
            workers,
            // With one worker, server and load have a core each.
            core: (workers == 1).then_some(0),
        };
        measure(asked, &setting, &mut report)?;
    }
    let text = report.told();
    print!("{text}");
    if let Some(folder) = &asked.out {
        std::fs::create_dir_all(folder)?;
        let keep = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content);
        keep("bench.txt", text.as_bytes())?;
        keep("bench.json", &serde_json::to_vec_pretty(&report)?)?;
        keep("bench.svg", chart::draw(&report).as_bytes())?;
    }
    Ok(())
}

/// Measures everything with so many workers.
fn measure(asked: &cli::Bench, setting: &Setting, report: &mut Report) -> Result<(), Failure> {
    let alone = setting.workers == 1;
    let servers = Servers::start(setting, &ALL)?;
    // Before any load, which would leave memory behind that connections could take.
    if alone {
        report.idle = servers.idle(asked.idle)?;
    }
    for work in [Work::item(), Work::order_without_token()] {
        for &connections in &asked.connections {
            let doing = servers.doing(&work);
            report
                .tables
                .push(compare(asked, setting, &doing, connections)?);
        }
    }
    if alone && let Some(rate) = report.rate_for_all(Work::item().name, asked.busy) {
        report.steady = Some(servers.steady(asked, setting, rate)?);
    }
    let floodgate = servers.floodgate()?;
    let pages = Pages::start(setting, floodgate)?;
    for doing in [pages.whole(floodgate), pages.unchanged(floodgate)?] {
        for &connections in &asked.connections {
            report
                .tables
                .push(compare(asked, setting, &doing, connections)?);
        }
    }
    let item = servers.item.clone();
    drop((pages, servers));
    if let Some(steady) = report.steady.as_ref().filter(|_| alone) {
        report.crowded = crowded::measure(asked, setting, &item, steady.rate)?;
    }
    Ok(())
}

/// Compares servers at their work, round by round.
fn compare(
    asked: &cli::Bench,
    setting: &Setting,
    doing: &[Doing<'_>],
    connections: usize,
) -> Result<Table, Failure> {
    let mut rows: Vec<Row> = doing.iter().map(|doing| Row::new(doing.name)).collect();
    let work = doing.first().ok_or("nothing to do")?.work.name;
    let workers = setting.workers;
    for round in 1..=asked.rounds {
        eprintln!(
            "{work}, {connections} connections, workers {workers}: round {round} of {}",
            asked.rounds
        );
        for (row, Doing { peer, work, .. }) in rows.iter_mut().zip(doing) {
            let load = |duration| {
                load::load(
                    peer.port(),
                    work,
                    connections,
                    duration,
                    setting.load_core(),
                )
            };
            // Connections are made, and what is lazy is done, before it counts.
            load(Duration::from_secs(1))?;
            let processes = peer.processes();
            let before = load::cpu_ns(&processes);
            let told = load(asked.duration())?;
            row.add(told, load::cpu_ns(&processes) - before);
        }
    }
    Ok(Table::new(work, connections, workers, rows))
}

/// Servers that have been started and were seen to answer rightly.
struct Servers {
    all: Vec<(Kind, Peer)>,
    /// The item, as all of them answer it.
    item: Exchange,
    /// Whose answers the others keep.
    _origin: Peer,
}

impl Servers {
    /// Starts these, of which Floodgate is the first.
    fn start(setting: &Setting, kinds: &[Kind]) -> Result<Self, Failure> {
        let item = Work::item();
        let floodgate = Kind::Floodgate.start(setting, &[], 0);
        let (_, body) = peers::ask(floodgate.port(), &item)?;
        let origin = setting.bare(&body);
        let mut all = vec![(Kind::Floodgate, floodgate)];
        for &kind in kinds.iter().skip(1) {
            let peer = kind.start(setting, &body, origin.port());
            // The second answer is one that was kept.
            for _ in 0..2 {
                if peers::ask(peer.port(), &item)? != (200, body.clone()) {
                    return Err(format!("{} answers something else", kind.name()).into());
                }
            }
            all.push((kind, peer));
        }
        let request = item.requests.first().ok_or("nothing to ask")?;
        Ok(Self {
            all,
            item: Exchange::new(request.clone().into_bytes(), item.status, body),
            _origin: origin,
        })
    }

    fn floodgate(&self) -> Result<&Peer, Failure> {
        let (_, floodgate) = self.all.first().ok_or("no Floodgate")?;
        Ok(floodgate)
    }

    /// Those that can do it.
    fn doing(&self, work: &Work) -> Vec<Doing<'_>> {
        let doing = self.all.iter().filter(|(kind, _)| kind.does(work));
        doing
            .map(|(kind, peer)| Doing::new(kind.name(), peer, work.clone()))
            .collect()
    }

    fn idle(&self, connections: usize) -> Result<Vec<idle::Idle>, Failure> {
        let asked = self.all.iter().map(|(kind, peer)| {
            let processes = || load::memory_kib(&peer.processes());
            idle::measure(kind.name(), peer.port(), connections, &self.item, processes)
        });
        asked.collect()
    }

    /// The item from all of them at the same steady rate.
    fn steady(&self, asked: &cli::Bench, setting: &Setting, rate: f64) -> Result<Steady, Failure> {
        let named = |(kind, _): &(Kind, Peer)| latency::Row::new(kind.name());
        let mut rows: Vec<_> = self.all.iter().map(named).collect();
        for round in 1..=asked.rounds {
            eprintln!("steady {rate:.0}/s: round {round} of {}", asked.rounds);
            for (row, (_, peer)) in rows.iter_mut().zip(&self.all) {
                let plan = asked.steady(setting, peer, &self.item, rate);
                row.latencies.add(&open_loop::play(&plan)?);
            }
        }
        Ok(Steady {
            work: Work::item().name,
            connections: asked.busy,
            rate,
            rows,
        })
    }
}

impl cli::Bench {
    const fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// A steady rate of requests by the busy connections.
    fn steady<'a>(
        &self,
        setting: &Setting,
        peer: &Peer,
        exchange: &'a Exchange,
        rate: f64,
    ) -> Plan<'a> {
        Plan {
            port: peer.port(),
            exchange,
            connections: self.busy,
            rate,
            duration: self.duration(),
            core: setting.load_core(),
        }
    }
}
