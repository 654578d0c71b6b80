//! `perf bench`: what the edge answers alone, beside what people would run otherwise. Every server is asked in
//! turn, round by round, so that what else the machine does falls on all alike.
//!
//! | module | what is inside |
//! |---|---|
//! | `peers` | the servers, and how each is set up |
//! | `compare` | the same work by several of them, in turn |
//! | `pass` | an order on its way to an order server |
//! | `refusals`, `checks` | refusals, and what their signatures take to be checked |
//! | `sale`, `till` | orders that are accepted |
//! | `shop`, `lua_sale` | a Floodgate of several processes, and the same sale in nginx, Lua and Redis |
//! | `credentials` | what buyers show |
//! | `bare` | a responder that does nothing but answer |
//! | `load` | wrk, and the processor time that a server used meanwhile |
//! | `work`, `exchange` | what is asked for, and which answer is right |
//! | `pages` | the servers that have a page |
//! | [`held`], `idle` | connections that are held open, and what an idle one costs |
//! | [`open_loop`], `latency` | a steady rate without coordinated omission, and what was seen at it |
//! | `crowded` | busy connections beside a crowd of idle ones |
//! | `report`, `chart` | what was measured, in words and as a picture |
//!
//! An answer that is not the right one is a failure, not a figure.

mod bare;
mod chart;
mod checks;
mod compare;
mod credentials;
mod crowded;
pub mod exchange;
pub mod held;
mod idle;
mod latency;
mod load;
mod lua_sale;
pub mod open_loop;
mod pages;
mod pass;
mod peers;
mod refusals;
mod report;
mod sale;
mod shop;
mod till;
mod work;

use floodgate_servers::Peer;

use crate::cli::{self, BenchPart};
use crate::machine::Machine;
use compare::compare;
use exchange::Exchange;
use peers::{ALL, Kind, Setting};
use report::{Measured, Report};
use work::Work;

pub use bare::run as run_bare;

/// How many times as much processor time as the edge these are to take for an item: the edge takes at most 1.08
/// times what the bare responder does.
const GOALS: [(&str, f64); 3] = [
    (Kind::Bare.name(), 1.0 / 1.08),
    (Kind::NginxCache.name(), 1.45),
    (Kind::NginxLua.name(), 1.55),
];

/// What stops a measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures, prints, and keeps what was asked for. A part that fails leaves the others their turn, and each is
/// kept as soon as it has been measured.
///
/// # Errors
/// If a server answers wrongly (the other parts are still measured), or a file fails.
///
/// # Panics
/// If a server that is to be measured is missing on this machine.
pub fn run(asked: &cli::Bench) -> Result<(), Failure> {
    let perf = std::env::current_exe()?;
    let floodgate = asked.floodgate.clone();
    let floodgate = floodgate.unwrap_or_else(|| peers::beside(&perf, "floodgate"));
    let pages = asked.pages.canonicalize()?;
    let setting = |workers: usize, core| Setting {
        floodgate: floodgate.clone(),
        perf: perf.clone(),
        pages: pages.clone(),
        workers,
        core,
    };
    let mut report = Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: Machine::this(),
        is_release: !cfg!(debug_assertions),
        rounds: asked.rounds,
        seconds: asked.seconds,
        measured: Measured::default(),
        failures: Vec::new(),
    };
    for &workers in &asked.workers {
        // With one worker, server and load have a core each.
        let setting = setting(workers, (workers == 1).then_some(0));
        let parts = [
            BenchPart::Item,
            BenchPart::Latency,
            BenchPart::Pages,
            BenchPart::Pass,
            BenchPart::Refusals,
        ];
        for part in parts.into_iter().filter(|part| asked.asks_for(*part)) {
            report.part(asked, &setting, part)?;
        }
    }
    if asked.asks_for(BenchPart::Sale) {
        // All processes of a sale share all cores.
        let workers = asked.workers.iter().copied().max().unwrap_or(1);
        report.part(asked, &setting(workers, None), BenchPart::Sale)?;
    }
    print!("{}", report.told());
    match report.failures.first() {
        Some(failure) => Err(failure.clone().into()),
        None => Ok(()),
    }
}

impl Report {
    /// Measures a part, and keeps what is known by then.
    fn part(
        &mut self,
        asked: &cli::Bench,
        setting: &Setting,
        part: BenchPart,
    ) -> Result<(), Failure> {
        if let Err(failure) = self.measured.part(asked, setting, part) {
            let workers = setting.workers;
            let failure = format!("{part:?}, workers: {workers}: {failure}");
            eprintln!("failed: {failure}");
            self.failures.push(failure);
        }
        let Some(folder) = &asked.out else {
            return Ok(());
        };
        std::fs::create_dir_all(folder)?;
        let keep = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content);
        keep("bench.txt", self.told().as_bytes())?;
        keep("bench.json", &serde_json::to_vec_pretty(self)?)?;
        keep("bench.svg", chart::draw(self).as_bytes())?;
        Ok(())
    }
}

impl Measured {
    fn part(
        &mut self,
        asked: &cli::Bench,
        setting: &Setting,
        part: BenchPart,
    ) -> Result<(), Failure> {
        match part {
            BenchPart::Item => self.item(asked, setting),
            BenchPart::Latency if setting.workers == 1 => self.latency(asked, setting),
            BenchPart::Latency => Ok(()),
            BenchPart::Pages => pages::measure(asked, setting, &mut self.tables),
            BenchPart::Pass => pass::measure(asked, setting, &mut self.tables),
            BenchPart::Refusals => refusals::measure(asked, setting, self),
            BenchPart::Sale => {
                self.sale = Some(sale::measure(asked, setting)?);
                Ok(())
            }
        }
    }

    fn item(&mut self, asked: &cli::Bench, setting: &Setting) -> Result<(), Failure> {
        idle::allow(ALL.len() * asked.idle)?;
        let servers = Servers::start(setting, &ALL)?;
        // Before any load, which would leave memory behind that connections could take.
        if setting.workers == 1 {
            self.idle = idle::measure(&servers.named(), asked.idle, &servers.item)?;
        }
        for &connections in &asked.connections {
            let table = compare(asked, setting, &Work::item(), connections, &servers.named())?;
            self.tables.push(table.at_least(&GOALS));
        }
        Ok(())
    }

    fn latency(&mut self, asked: &cli::Bench, setting: &Setting) -> Result<(), Failure> {
        let servers = Servers::start(setting, &ALL)?;
        let (work, named) = (Work::item(), servers.named());
        let rate = match self.rate_for_all(work.name, asked.busy) {
            Some(rate) => rate,
            None => {
                let table = compare(asked, setting, &work, asked.busy, &named)?;
                self.tables.push(table);
                let rate = self.rate_for_all(work.name, asked.busy);
                rate.ok_or("nobody's rate is known")?
            }
        };
        self.steady = Some(latency::measure(
            asked,
            setting,
            &servers.item,
            rate,
            &named,
        )?);
        drop(servers);
        self.crowded = crowded::measure(asked, setting, rate)?;
        Ok(())
    }
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
        let floodgate = Kind::Floodgate.start(setting, &[], 0);
        let item = Work::item();
        let body = peers::ask(floodgate.port(), &item)?.body;
        let origin = setting.bare(200, &body);
        let mut all = vec![(Kind::Floodgate, floodgate)];
        for &kind in kinds.iter().skip(1) {
            let peer = kind.start(setting, &body, origin.port());
            // The second answer is one that was kept.
            for _ in 0..2 {
                let answer = peers::ask(peer.port(), &item)?;
                if (answer.status, &answer.body) != (200, &body) {
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

    fn named(&self) -> Vec<(&'static str, &Peer)> {
        let all = self.all.iter();
        all.map(|(kind, peer)| (kind.name(), peer)).collect()
    }
}
