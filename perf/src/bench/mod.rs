//! `perf bench`: what the edge answers alone, beside what people would run otherwise. Every server is asked in
//! turn, round by round, so that what else the machine does falls on all alike.
//!
//! | module | what is inside |
//! |---|---|
//! | `peers` | the servers, and how each is set up |
//! | `bare` | a responder that does nothing but answer |
//! | `load` | wrk, and the processor time that a server used meanwhile |
//! | `idle` | what an idle connection costs |
//! | `work` | what is asked for |
//! | `report`, `chart` | what was measured, in words and as a picture |
//!
//! An answer that is not the right one is a failure, not a figure.

mod bare;
mod chart;
mod idle;
mod load;
mod peers;
mod report;
mod work;

use std::time::Duration;

use floodgate_servers::Peer;

use crate::cli;
use crate::machine::Machine;
use peers::{ALL, Kind, Setting};
use report::{Report, Row, Table};
use work::Work;

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
    let pages = asked.pages.canonicalize()?;
    let mut tables = Vec::new();
    let mut idle = Vec::new();
    for &workers in &asked.workers {
        // With one worker, server and load have a core each.
        let core = (workers == 1).then_some(0);
        let setting = Setting {
            floodgate: floodgate.clone(),
            perf: perf.clone(),
            pages: pages.clone(),
            workers,
            core,
        };
        let servers = Servers::start(&setting)?;
        // Before any load, which would leave memory behind that connections could take.
        if workers == 1 {
            idle = servers.idle(asked.idle)?;
        }
        for work in [Work::item(), Work::order_without_token()] {
            for &connections in &asked.connections {
                tables.push(servers.compare(asked, &setting, &work, connections)?);
            }
        }
    }
    let report = Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: Machine::this(),
        is_release: !cfg!(debug_assertions),
        rounds: asked.rounds,
        seconds: asked.seconds,
        tables,
        idle,
    };
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

/// Servers that have been started and were seen to answer rightly.
struct Servers {
    all: Vec<(Kind, Peer)>,
    /// Whose answers the others keep.
    _origin: Peer,
}

impl Servers {
    fn start(setting: &Setting) -> Result<Self, Failure> {
        let floodgate = Kind::Floodgate.start(setting, &[], 0);
        let item = Work::item();
        let (_, body) = peers::ask(floodgate.port(), &item)?;
        let origin = setting.bare(&body);
        let mut all = vec![(Kind::Floodgate, floodgate)];
        for kind in ALL.into_iter().skip(1) {
            let peer = kind.start(setting, &body, origin.port());
            // The second answer is one that was kept.
            for _ in 0..2 {
                if peers::ask(peer.port(), &item)? != (200, body.clone()) {
                    return Err(format!("{} answers something else", kind.name()).into());
                }
            }
            all.push((kind, peer));
        }
        Ok(Self {
            all,
            _origin: origin,
        })
    }

    fn compare(
        &self,
        asked: &cli::Bench,
        setting: &Setting,
        work: &Work,
        connections: usize,
    ) -> Result<Table, Failure> {
        let doing = self.all.iter().filter(|(kind, _)| kind.does(work));
        let mut rows: Vec<(Row, &Peer)> = doing
            .map(|(kind, peer)| (Row::new(kind.name()), peer))
            .collect();
        let load_core = setting.core.map(|core| core + 1);
        for round in 1..=asked.rounds {
            eprintln!(
                "{}, {connections} connections, workers {}: round {round} of {}",
                work.name, setting.workers, asked.rounds
            );
            for (row, peer) in &mut rows {
                let port = peer.port();
                // Connections are made, and what is lazy is done, before it counts.
                let second = Duration::from_secs(1);
                load::load(port, work, connections, second, load_core)?;
                let processes = peer.processes();
                let before = load::cpu_ns(&processes);
                let duration = Duration::from_secs(asked.seconds);
                let told = load::load(port, work, connections, duration, load_core)?;
                row.add(told, load::cpu_ns(&processes) - before);
            }
        }
        let rows = rows.into_iter().map(|(row, _)| row).collect();
        Ok(Table::new(work.name, connections, setting.workers, rows))
    }

    fn idle(&self, connections: usize) -> Result<Vec<idle::Idle>, Failure> {
        let asked = self.all.iter().map(|(kind, peer)| {
            let processes = || load::memory_kib(&peer.processes());
            idle::measure(kind.name(), peer.port(), connections, processes)
        });
        asked.collect()
    }
}
