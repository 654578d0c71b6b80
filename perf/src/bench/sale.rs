//! Orders that are accepted, by Floodgate and by the same sale in nginx, Lua and Redis, each on a Redis whose
//! append-only file is on the disk before it answers.

use serde::Serialize;

use super::credentials::{Credentials, Secret};
use super::load::{Told, Used};
use super::lua_sale::{self, LuaSale};
use super::peers::Setting;
use super::report::{Row, Table};
use super::shop::{self, Shop};
use super::{Failure, till};
use crate::cli;
use crate::spread::Spread;

/// As many as an order server lets wait by default.
const CONNECTIONS: usize = 256;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Sale {
    /// Both sales; processor times are those of all their processes together.
    pub table: Table,
    /// How many times as many orders a second Floodgate accepted, round by round.
    pub rates: Option<Spread>,
    /// Each process.
    pub processes: Vec<Process>,
}

/// What one process used for each order.
#[derive(Debug, Serialize)]
pub struct Process {
    /// Of which sale.
    pub peer: &'static str,
    /// Which.
    pub name: &'static str,
    /// Microseconds of processor time, round by round.
    pub cpu_us: Vec<f64>,
}

/// A sale, and what was seen of it.
struct Seller {
    row: Row,
    port: u16,
    processes: Vec<(Process, Vec<u32>)>,
}

/// Sells as many units as are asked for in each round, to a buyer each.
///
/// # Errors
/// If an order is not accepted, or the books do not balance at the end.
pub fn measure(asked: &cli::Bench, setting: &Setting) -> Result<Sale, Failure> {
    let secret = Secret::draw()?;
    // Before it counts, a tenth is sold: connections are made, and what is lazy is done.
    let first = (asked.orders / 10).max(1);
    let buyers = first + asked.orders * asked.rounds;
    let (shop, admitted) = Shop::open(setting, &secret, buyers)?;
    let lua = LuaSale::open(setting, &secret, buyers);
    let orders = shop::credentials(&secret, &admitted)?;
    let orders: Vec<String> = orders.iter().map(Credentials::order).collect();
    let (first, rest) = orders.split_at(first);

    let mut sellers = [Seller::floodgate(&shop), Seller::lua(&lua)];
    for seller in &sellers {
        till::place(seller.port, first, CONNECTIONS.min(first.len()))?;
    }
    for (round, orders) in rest.chunks(asked.orders).enumerate() {
        let of = asked.rounds;
        eprintln!("orders accepted: round {} of {of}", round + 1);
        for seller in &mut sellers {
            seller.sell(orders)?;
        }
    }
    let [ours, other] = sellers;
    let (ours, other) = (ours.end(), other.end());
    shop.check(buyers)?;
    lua.check(buyers)?;

    let rates = ours.0.rates.iter().zip(&other.0.rates);
    let rates = Spread::of(rates.map(|(own, other)| own / other).collect());
    let rows = vec![ours.0, other.0];
    Ok(Sale {
        table: Table::new(
            "order accepted, AOF always, all processes together",
            CONNECTIONS,
            setting.workers,
            rows,
        ),
        rates,
        processes: ours.1.into_iter().chain(other.1).collect(),
    })
}

impl Seller {
    fn floodgate(shop: &Shop) -> Self {
        Self::new("Floodgate", shop.edge.port())
            .with("edge", shop.edge.processes())
            .with("order server", shop.orders.processes())
            .with("Redis", shop.redis.pid().into_iter().collect())
    }

    fn lua(lua: &LuaSale) -> Self {
        Self::new(lua_sale::NAME, lua.nginx.port())
            .with("nginx", lua.nginx.processes())
            .with("Redis", lua.redis.pid().into_iter().collect())
    }

    const fn new(peer: &'static str, port: u16) -> Self {
        Self {
            row: Row::new(peer),
            port,
            processes: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, pids: Vec<u32>) -> Self {
        let process = Process {
            peer: self.row.peer,
            name,
            cpu_us: Vec::new(),
        };
        self.processes.push((process, pids));
        self
    }

    fn sell(&mut self, orders: &[String]) -> Result<(), Failure> {
        let before = self.used();
        let told: Told = till::place(self.port, orders, CONNECTIONS)?;
        let after = self.used();
        let used_ns = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after.ns_since(before));
        let mut all_ns = 0;
        for ((process, _), used_ns) in self.processes.iter_mut().zip(used_ns) {
            all_ns += used_ns;
            let each_us = used_ns as f64 / 1e3 / orders.len() as f64;
            process.cpu_us.push(each_us);
        }
        self.row.add(told, all_ns);
        Ok(())
    }

    /// What each process has used so far.
    fn used(&self) -> Vec<Used> {
        let processes = self.processes.iter();
        processes.map(|(_, pids)| Used::by(pids)).collect()
    }

    fn end(self) -> (Row, Vec<Process>) {
        let processes = self.processes.into_iter();
        (self.row, processes.map(|(process, _)| process).collect())
    }
}
