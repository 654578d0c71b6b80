//! `[orders]` and `[writer]`: what happens behind the edge. Fields, defaults and bounds.

use super::node::{Listener, listener};
use super::reader::Table;
use super::value::{Address, loopback};
use crate::units::Millis;

/// Most order servers in one file.
const SERVERS_MAX: usize = 64;

/// The order servers.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderServers {
    /// Where each of them listens; for the edge only, never for the public.
    pub listen: Vec<Address>,
    /// Where `/live`, `/ready` and `/metrics` are answered.
    pub admin: Address,
    /// Orders in the making at once, in one order server.
    pub in_flight_max: usize,
    /// Orders that may wait for their turn; beyond it they are shed with 503.
    pub waiting_max: usize,
    /// Reservations that may wait for the ledger; beyond it new ones get 503.
    pub stream_max: u64,
    /// How long after its token's expiry an order may be submitted again.
    pub resubmit_for: Millis,
}

impl Default for OrderServers {
    fn default() -> Self {
        Self {
            listen: vec![loopback(8101), loopback(8102)],
            admin: loopback(9101),
            in_flight_max: 64,
            waiting_max: 256,
            stream_max: 100_000,
            resubmit_for: Millis::seconds(600),
        }
    }
}

impl OrderServers {
    pub(super) fn read(table: &mut Table<'_>, listeners: &mut Vec<Listener>) -> Self {
        let default = Self::default();
        let day = Millis::seconds(24 * 3_600);
        Self {
            listen: listen(table, default.listen, listeners),
            admin: listener(table, "admin", default.admin, listeners).value,
            in_flight_max: table.number("in_flight_max", default.in_flight_max, 1..=10_000),
            waiting_max: table.number("waiting_max", default.waiting_max, 0..=1_000_000),
            stream_max: table.number("stream_max", default.stream_max, 1..=100_000_000),
            resubmit_for: table.quantity(
                "resubmit_for",
                default.resubmit_for,
                Millis::new(0)..=day,
            ),
        }
    }
}

fn listen(
    table: &mut Table<'_>,
    default: Vec<Address>,
    listeners: &mut Vec<Listener>,
) -> Vec<Address> {
    let name = table.name("listen");
    let written = table.key_at("listen");
    let found = table.list::<Address>("listen");
    let Some(found) = found else {
        if written.is_none() {
            listeners.extend(default.iter().map(|address| Listener {
                name: name.clone(),
                address: *address,
                at: None,
            }));
        }
        return default;
    };
    let at = written.unwrap_or(table.start());
    if table.is_empty_list("listen") {
        let words = format!(
            "`{name}` is empty: orders need at least one order server, like [\"127.0.0.1:8101\"]"
        );
        table.error(at, words);
    }
    if found.len() > SERVERS_MAX {
        table.error(
            at,
            format!("`{name}` has too many entries: at most {SERVERS_MAX}"),
        );
        return default;
    }
    listeners.extend(found.iter().map(|found| Listener {
        name: name.clone(),
        address: found.value,
        at: Some(found.at),
    }));
    found.into_iter().map(|found| found.value).collect()
}

/// The order writer and the expiry sweeper.
#[derive(Debug, Clone, PartialEq)]
pub struct Writer {
    /// Where a writer of its own answers `/live`, `/ready` and `/metrics`.
    pub admin: Address,
    /// Events in one transaction.
    pub batch_max: usize,
    /// How often unpaid orders are looked for.
    pub sweep_every: Millis,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            admin: loopback(9102),
            batch_max: 2_000,
            sweep_every: Millis::seconds(1),
        }
    }
}

impl Writer {
    pub(super) fn read(table: &mut Table<'_>, listeners: &mut Vec<Listener>) -> Self {
        let default = Self::default();
        Self {
            admin: listener(table, "admin", default.admin, listeners).value,
            batch_max: table.number("batch_max", default.batch_max, 1..=10_000),
            sweep_every: table.quantity(
                "sweep_every",
                default.sweep_every,
                Millis::new(10)..=Millis::seconds(3_600),
            ),
        }
    }
}
