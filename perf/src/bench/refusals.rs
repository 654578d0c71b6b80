//! Refusals, by Floodgate and by the same sale in nginx, Lua and Redis; beside them a cached item by the same
//! edge, and what the signatures alone take to be checked.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Failure;
use super::checks::{self, Checks};
use super::compare::compare_works;
use super::credentials::{Credentials, Secret, made_up};
use super::lua_sale::{self, LuaSale};
use super::peers::{self, Setting};
use super::report::{Measured, Table};
use super::shop::Shop;
use super::work::Work;
use crate::cli;
use crate::spread::{Spread, median};

/// Who asks in turn: so many that no buyer meets his rate.
const BUYERS: usize = 1_000;
/// What refusals are held against.
const ITEM: &str = "Floodgate, a cached item";
/// How many times as much the same sale in nginx, Lua and Redis is to take.
const GOAL: f64 = 2.0;
/// An edge hears at once that a promo is sold out.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// A refusal beside the cached item that the same edge answers.
#[derive(Debug, Serialize)]
pub struct Beside {
    /// Which.
    pub work: &'static str,
    /// Over so many connections.
    pub connections: usize,
    /// By so many threads.
    pub workers: usize,
    /// What its signatures take to be checked, in microseconds.
    pub checks_us: f64,
    /// How many times as much processor time as the item it takes without them, round by round.
    pub items: Option<Spread>,
}

/// A refusal, its error code, and how many sessions and forged tokens are looked at for it.
struct Refused {
    work: Work,
    code: u32,
    sessions: f64,
    forged: f64,
}

/// Measures all of them, over each number of connections.
///
/// # Errors
/// If one is answered otherwise.
pub fn measure(
    asked: &cli::Bench,
    setting: &Setting,
    measured: &mut Measured,
) -> Result<(), Failure> {
    let (secret, forger) = (Secret::draw()?, Secret::draw()?);
    let buyers = made_up(&secret.ring, BUYERS)?;
    let forge = |buyer: &Credentials| buyer.forged(&secret.ring, &forger.ring);
    let forged = buyers.iter().map(forge).collect::<Result<Vec<_>, _>>()?;
    let checks = checks::measure(&secret.ring, &buyers, &forged, asked.rounds)?;

    let (shop, admitted) = Shop::open(setting, &secret, 1)?;
    for request in admitted {
        shop.sell(request)?;
    }
    let lua = LuaSale::open(setting, &secret, 0);
    lua.sell_out(buyers.first().ok_or("nobody is there")?)?;
    let servers = [("Floodgate", &shop.edge), (lua_sale::NAME, &lua.nginx)];

    let all = refusals(&buyers, &forged);
    let begun = Instant::now();
    for refused in &all {
        for (name, peer) in servers {
            while !refused.is_told(peer.port())? {
                if begun.elapsed() > HEARD_WITHIN {
                    return Err(format!("{name} answers otherwise: {}", refused.work.name).into());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
    for &connections in &asked.connections {
        for refused in &all {
            let (work, item) = (&refused.work, Work::item());
            // The item takes turns with the refusals, for the machine may be slow for a while.
            let mut rows: Vec<_> = servers.map(|(name, peer)| (name, work, peer)).into();
            rows.push((ITEM, &item, &shop.edge));
            let table = compare_works(asked, setting, work.name, connections, &rows)?;
            measured.beside.push(refused.beside(&table, &checks));
            measured
                .tables
                .push(table.at_least(&[(lua_sale::NAME, GOAL)]));
        }
    }
    measured.checks = Some(checks);
    Ok(())
}

fn refusals(buyers: &[Credentials], forged: &[Credentials]) -> [Refused; 3] {
    [
        Refused {
            work: Work::order_without_token(),
            code: 20003,
            sessions: 0.0,
            forged: 0.0,
        },
        Refused {
            work: Work {
                name: "access token for a promo that is sold out, refused",
                status: 409,
                requests: buyers.iter().map(Credentials::ask_for_token).collect(),
            },
            code: 30001,
            sessions: 1.0,
            forged: 0.0,
        },
        Refused {
            work: Work {
                name: "order with a forged token, refused",
                status: 403,
                requests: forged.iter().map(Credentials::order).collect(),
            },
            code: 30005,
            sessions: 1.0,
            forged: 1.0,
        },
    ]
}

impl Refused {
    /// Whether it is refused, and for the right reason.
    fn is_told(&self, port: u16) -> Result<bool, Failure> {
        let answer = peers::ask(port, &self.work)?;
        let code = format!("\"errCode\":{}", self.code);
        let body = String::from_utf8_lossy(&answer.body);
        Ok(answer.status == self.work.status && body.contains(&code))
    }

    fn beside(&self, table: &Table, checks: &Checks) -> Beside {
        let checks_us =
            self.sessions * median(&checks.session_us) + self.forged * median(&checks.forged_us);
        let item = table.rows.iter().find(|row| row.peer == ITEM);
        let pairs = table.rows.first().zip(item).into_iter();
        let ratios = pairs.flat_map(|(own, item)| own.cpu_us.iter().zip(&item.cpu_us));
        Beside {
            work: table.work,
            connections: table.connections,
            workers: table.workers,
            checks_us,
            items: Spread::of(ratios.map(|(own, item)| (own - checks_us) / item).collect()),
        }
    }
}
