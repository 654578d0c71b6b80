//! The ledger on each database: every case runs on SQLite, MariaDB and PostgreSQL, each time on a
//! database of its own.

use std::sync::LazyLock;

use engine::{Change, Event, Fence, Release, Reservation};
use floodgate_servers::{MariaDb, Postgres};
use lua_free_rules::config::CatalogItem;
use lua_free_rules::order::State;
use lua_free_rules::promo::{Snapshot, Status, Terms};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{
    BuyerId, Generation, ItemId, Millis, Money, Nonce, OrderId, PromoId, ReservationNumber,
    Sequence, SoldEpoch, Timestamp,
};

use super::*;
use crate::error::BackendError;

mod books;
mod crashes;
mod disk;
mod endings;
mod opening;
mod orders;
mod races;
mod reconciliation;
mod stock;
mod users;

/// One server of each kind for all tests of this process; it ends with it.
static MARIADB: LazyLock<MariaDb> = LazyLock::new(MariaDb::start);
static POSTGRES: LazyLock<Postgres> = LazyLock::new(Postgres::start);

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    MariaDb,
    Postgres,
}

/// A ledger under test.
pub struct Home {
    kind: Kind,
    settings: LedgerSettings,
    pub ledger: Ledger,
    dir: tempfile::TempDir,
}

impl Home {
    /// A ledger with one item, in a database that nobody used yet.
    pub async fn open(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = match kind {
            Kind::Sqlite => None,
            Kind::MariaDb => Some((MARIADB.fresh(), MARIADB.password())),
            Kind::Postgres => Some((POSTGRES.fresh(), POSTGRES.password())),
        };
        let settings = match server {
            None => LedgerSettings::sqlite(dir.path(), "ledger.db"),
            Some((url, password)) => on_server(url, password),
        };
        let ledger = Ledger::open(&settings).await.unwrap();
        ledger.seed(&[sneakers()]).await.unwrap();
        Self {
            kind,
            settings,
            ledger,
            dir,
        }
    }

    /// The same ledger, as another process opens it.
    pub async fn another(&self) -> Ledger {
        Ledger::open(&self.settings).await.unwrap()
    }

    /// Changes what no query of the ledger would change, foreign keys or not.
    async fn tamper(&self, sql: &str) {
        let name = |url: &config::Database| match url {
            config::Database::Server(server) => server.name.clone(),
            config::Database::Sqlite(_) => String::new(),
        };
        let name = name(&self.settings.database);
        match self.kind {
            Kind::Sqlite => {
                let db = rusqlite::Connection::open(self.dir.path().join("ledger.db")).unwrap();
                db.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}"))
                    .unwrap();
            }
            Kind::MariaDb => {
                MARIADB.ask(&name, &format!("SET FOREIGN_KEY_CHECKS = 0; {sql}"));
            }
            Kind::Postgres => {
                POSTGRES.ask(
                    &name,
                    &format!("SET session_replication_role = replica; {sql}"),
                );
            }
        }
    }
}

/// The settings of a database on a server.
fn on_server(url: String, password: &str) -> LedgerSettings {
    LedgerSettings {
        database: url.try_into().unwrap(),
        password: Some(Secret::new(password)),
        data_dir: PathBuf::new(),
    }
}

/// Makes a test of each case, on each database.
macro_rules! on_each_database {
    ($($case:ident),+ $(,)?) => {
        on_each_database!(@on sqlite, Sqlite: $($case),+);
        on_each_database!(@on mariadb, MariaDb: $($case),+);
        on_each_database!(@on postgres, Postgres: $($case),+);
    };
    (@on $module:ident, $kind:ident: $($case:ident),+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let home = super::Home::open(super::Kind::$kind).await;
                    super::$case(&home).await;
                    home.ledger.close().await;
                }
            )+
        }
    };
}
use on_each_database;

const NOW: Timestamp = Timestamp(1_000_000);
const PAY_WITHIN_MS: i64 = 60_000;
const LATER: Timestamp = NOW.plus_ms(PAY_WITHIN_MS);

/// A ledger with one item in a file, for tests of who uses it.
pub async fn open() -> (tempfile::TempDir, Ledger) {
    let Home { ledger, dir, .. } = Home::open(Kind::Sqlite).await;
    (dir, ledger)
}

fn sneakers() -> CatalogItem {
    CatalogItem {
        id: ItemId(3),
        title: "Sneakers".to_owned(),
        price: price(),
        stock: 100,
        description: String::new(),
        img_url: "/sneakers.svg".to_owned(),
    }
}

/// Keeps everyone else from writing until it is dropped.
pub async fn hold(ledger: &Ledger) -> impl Sized + use<> {
    ledger.begin().await.unwrap()
}

fn price() -> Money {
    Money::from_minor(9_900).unwrap()
}

fn event(sequence: i64, change: Change) -> Event {
    Event {
        promo: PromoId(7),
        generation: Generation(1),
        sequence: Sequence(sequence),
        at: Timestamp(900_000 + sequence),
        change,
    }
}

fn order(number: i64) -> OrderId {
    OrderId {
        promo: PromoId(7),
        generation: Generation(1),
        number: ReservationNumber(number),
    }
}

/// The first event of a generation.
pub fn published(stock: u32) -> Event {
    let published = Change::Published {
        stock,
        terms: Box::new(terms(stock)),
        digest: "a".to_owned(),
    };
    event(1, published)
}

fn reservation(first: i64, sequence: i64, buyer: i64, amount: u32) -> Reservation {
    Reservation {
        order: order(first),
        number: ReservationNumber(sequence),
        buyer: BuyerId(buyer),
        item: ItemId(3),
        amount,
        price: price(),
        made_at: Timestamp(900_000 + sequence),
        pay_within: Millis::new(60_000),
        sequence: Sequence(sequence),
    }
}

/// A reservation whose number is its sequence number.
pub fn reserved(sequence: i64, buyer: i64, amount: u32) -> Event {
    let made = Change::Reserved {
        reservation: reservation(sequence, sequence, buyer, amount),
        key: format!("key-{sequence}"),
        body: "digest".to_owned(),
        jti: Nonce([7; 16]),
    };
    event(sequence, made)
}

fn reserved_again(sequence: i64, first: i64, payment: &str) -> Event {
    let reservation = reservation(first, sequence, 5, 2);
    let payment = payment.to_owned();
    event(
        sequence,
        Change::ReservedAgain {
            reservation,
            payment,
        },
    )
}

fn released(sequence: i64, number: i64, amount: u32) -> Event {
    let release = Release {
        order: order(number),
        number: ReservationNumber(number),
    };
    event(sequence, Change::Released { release, amount })
}

async fn shop(ledger: &Ledger) -> (i64, i64) {
    let item = ledger.item(ItemId(3)).await.unwrap().unwrap();
    (item.stock, item.sales)
}

async fn state(ledger: &Ledger, number: i64) -> State {
    ledger.order(order(number)).await.unwrap().unwrap().state
}

fn terms(stock: u32) -> Terms {
    Terms {
        item: ItemId(3),
        starts_at: Timestamp(0),
        ends_at: Timestamp(i64::MAX),
        price: price(),
        stock,
        door: 5,
        per_buyer: 2,
        pay_within: Millis::new(60_000),
        token_ttl: Millis::seconds(60),
        challenges: Vec::new(),
    }
}

fn fence(available: u32, sequence: i64) -> Snapshot {
    Snapshot {
        promo: PromoId(7),
        generation: Generation(1),
        terms: terms(50),
        status: Status::Open,
        available,
        sold_out: false,
        sold_epoch: SoldEpoch(0),
        sequence: Sequence(sequence),
        places_issued: 0,
        places_used: 0,
    }
}
