//! A Redis that comes back without what it had answered for, while an order writer of another process has
//! that in hand: on each database, nothing is sold twice and nothing is dropped in silence.

use async_trait::async_trait;
use engine::conformance::sale::Sale;
use engine::redis::{Options, Redis};
use engine::{EngineError, Leases as _, OrderStream as _, Recovery as _, StreamEntry};
use floodgate_servers::Redis as Server;
use lua_free_rules::promo::{Status, Terms};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::Generation;

use super::*;
use crate::audit::{AuditReport, audit};
use crate::ledger::tests::{Home, Kind};

/// A Redis that was empty when its engine began.
struct RedisHome {
    server: Server,
    engine: Arc<Redis>,
}

#[async_trait]
impl engine::conformance::Home for RedisHome {
    async fn start(_: u64) -> Self {
        let server = Server::start();
        let engine = open(&server, "writer").await;
        assert!(engine.begin_rebuild("test").await.unwrap());
        engine.rebuild("test", Vec::new()).await.unwrap();
        // Or nobody else could rebuild it for a minute.
        engine.give_back("rebuild", "test").await.unwrap();
        Self { server, engine }
    }

    fn engine(&self) -> SharedEngine {
        self.engine.clone()
    }

    async fn advance_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn crash(mut self) -> Self {
        self.server.restart();
        self
    }
}

async fn open(server: &Server, node: &str) -> Arc<Redis> {
    let options = Options::new(server.url(), node);
    Arc::new(Redis::open(options).await.unwrap())
}

/// Ten units, and two processes that write: `writer` on the sale's own engine, and the one that recovers.
struct Two {
    sale: Sale<RedisHome>,
    books: Home,
    writer: OrderWriter,
    recovery: Recovery,
}

impl Two {
    async fn open(kind: Kind, change: impl FnOnce(&mut Terms)) -> Self {
        let (books, sale) = (Home::open(kind).await, Sale::<RedisHome>::none().await);
        let writer_on = |engine: SharedEngine, ledger: &Ledger| {
            OrderWriter::new(engine, ledger.clone(), Metrics::new().unwrap(), 100)
        };
        let writer = writer_on(sale.engine.clone(), &books.ledger);
        let there: SharedEngine = open(&sale.home.server, "other").await;
        let ledger = books.another().await;
        let metrics = Metrics::new().unwrap();
        let other = writer_on(there.clone(), &ledger);
        let recovery = Recovery::new(there, ledger, other, metrics).unwrap();
        sale.publish("first", change).await.unwrap();
        writer.drain().await.unwrap();
        Self {
            sale,
            books,
            writer,
            recovery,
        }
    }

    /// Redis ends and comes back with nothing.
    fn forget(&mut self) {
        let server = &mut self.sale.home.server;
        server.kill();
        server.forget();
        server.restart();
    }

    async fn recover(&self) {
        recover(&self.recovery).await;
    }

    /// What the writer reads and does not write yet.
    async fn in_hand(&self) -> Vec<StreamEntry> {
        let engine = &self.sale.home.engine;
        engine.read(100, Duration::ZERO).await.unwrap()
    }

    /// As many buyers as there are, from `first` on, buy two each until nothing is left.
    async fn sell_out(&self, first: i64) -> u32 {
        let mut sold = 0;
        for buyer in first.. {
            if self.sale.promo().await.available == 0 {
                break;
            }
            self.sale.buy(buyer, 2).await.unwrap();
            sold += 2;
        }
        sold
    }

    async fn audit(&self) -> AuditReport {
        let engine = self.sale.engine.as_ref();
        let wait = Duration::from_secs(5);
        audit(engine, &self.books.ledger, None, wait).await.unwrap()
    }

    /// The units of all orders in the ledger, where it and the engine agree.
    async fn sold(&self) -> i64 {
        let report = self.audit().await;
        for promo in &report.promos {
            assert_eq!(promo.faults, [], "{report:#?}");
        }
        report.promos.iter().map(|promo| promo.books.written).sum()
    }
}

async fn recover(recovery: &Recovery) {
    let recovered = async {
        while !recovery.recover().await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), recovered);
    waited.await.unwrap();
}

async fn what_redis_lost_and_a_writer_brings_late_is_not_sold_twice(kind: Kind) {
    let mut two = Two::open(kind, |_| ()).await;
    two.sale.buy(1, 2).await.unwrap();
    two.writer.drain().await.unwrap();
    two.sale.buy(2, 2).await.unwrap();
    two.sale.buy(3, 2).await.unwrap();
    let late = two.in_hand().await;
    assert_eq!(late.len(), 2);
    two.forget();
    two.recover().await;

    // Nobody can know of the four units: they are sold again.
    assert_eq!(two.sell_out(4).await, 8);
    two.recovery.writer.drain().await.unwrap();
    two.writer.write_entries(late.clone()).await;
    for order in ["7-1-2", "7-1-3"] {
        let order = two.books.ledger.order(order.parse().unwrap()).await;
        assert_eq!(order.unwrap(), None, "its units are sold to another buyer");
    }
    assert_eq!(two.sold().await, 10);
    let engine = &two.sale.engine;
    let letters = engine.dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 2);
    for (letter, entry) in letters.iter().zip(&late) {
        assert_eq!(letter.payload, entry.payload);
        assert!(letter.reason.contains("is void"), "{}", letter.reason);
    }
    let report = two.audit().await;
    assert!(!report.clean);
    assert_eq!(report.dead_letters, 2);

    // Whoever puts them back gets the same answer.
    let again = crate::dead_letters::replay(engine.as_ref(), crate::dead_letters::Which::All).await;
    assert_eq!(again.unwrap().left, 0);
    two.writer.drain().await.unwrap();
    assert_eq!(engine.dead_letters(10).await.unwrap().len(), 2);
    assert_eq!(two.sold().await, 10);

    // A Redis that forgets nothing is started anew: what was not counted before is not counted now.
    two.sale.home.server.restart();
    two.recover().await;
    two.recovery.writer.drain().await.unwrap();
    let stands = two.sale.promo().await;
    assert_eq!((stands.generation, stands.available), (Generation(3), 0));
    assert_eq!(two.sold().await, 10);
    assert_eq!(two.audit().await.dead_letters, 2);
}

async fn what_was_set_aside_before_is_kept_for_its_buyer(kind: Kind) {
    let mut two = Two::open(kind, |_| ()).await;
    two.sale.buy(1, 2).await.unwrap();
    let entry = two.in_hand().await.remove(0);
    let engine = two.sale.engine.clone();
    engine.set_aside(entry.id, "by hand").await.unwrap();
    two.sale.home.server.restart();
    two.recover().await;
    assert_eq!(two.sell_out(2).await, 8);
    two.writer.drain().await.unwrap();
    let which = crate::dead_letters::Which::One(entry.id);
    crate::dead_letters::replay(engine.as_ref(), which)
        .await
        .unwrap();
    two.writer.drain().await.unwrap();
    assert_eq!(two.sold().await, 10);
    assert!(two.audit().await.clean);
}

/// Its units may have been published again, and the engine numbers its changes as those that were lost.
async fn a_sale_that_was_over_takes_nothing_late(kind: Kind) {
    let mut ends_at = None;
    let mut two = Two::open(kind, |terms| {
        terms.ends_at = terms.starts_at.plus_ms(3_000);
        ends_at = Some(terms.ends_at);
    })
    .await;
    let first = two.sale.buy(1, 1).await.unwrap().reservation;
    two.writer.drain().await.unwrap();
    two.sale.buy(2, 2).await.unwrap();
    let late = two.in_hand().await;
    while two.sale.now().await < ends_at.unwrap() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    two.forget();
    two.recover().await;
    let stands = two.sale.promo().await;
    assert_eq!(
        (stands.generation, stands.status),
        (Generation(1), Status::Closed)
    );
    assert!(two.sale.release(&first).await.unwrap());
    let again = two
        .sale
        .engine
        .reserve_again(first.order, "demo:late")
        .await;
    assert_eq!(again, Err(EngineError::Refused(Refusal::SoldOut)));
    two.writer.drain().await.unwrap();
    two.writer.write_entries(late).await;
    let lost = "7-1-2".parse().unwrap();
    assert!(two.books.ledger.order(lost).await.unwrap().is_none());
    assert_eq!(two.sale.engine.dead_letters(10).await.unwrap().len(), 1);
    // What the engine says is what the ledger adds up to.
    let pasts = two.books.ledger.pasts().await.unwrap();
    let told = two.sale.promo().await.available;
    assert_eq!(
        (told, pasts[0].generations[&Generation(1)].available),
        (10, 10)
    );
}

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
                    super::$case(super::Kind::$kind).await;
                }
            )+
        }
    };
}

on_each_database!(
    what_redis_lost_and_a_writer_brings_late_is_not_sold_twice,
    what_was_set_aside_before_is_kept_for_its_buyer,
    a_sale_that_was_over_takes_nothing_late,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_recovering_process_has_in_hand_itself_is_written() {
    let mut two = Two::open(Kind::Sqlite, |_| ()).await;
    two.sale.buy(1, 2).await.unwrap();
    assert_eq!(two.in_hand().await.len(), 1);
    two.forget();
    let here = Recovery::new(
        two.sale.engine.clone(),
        two.books.ledger.clone(),
        two.writer.clone(),
        Metrics::new().unwrap(),
    );
    recover(&here.unwrap()).await;
    assert_eq!(two.sell_out(2).await, 8);
    two.writer.drain().await.unwrap();
    assert_eq!(two.sold().await, 10);
    assert!(two.audit().await.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stood_still_ends_nothing_that_is_sold() {
    let mut two = Two::open(Kind::Sqlite, |_| ()).await;
    two.forget();
    let slow = Recovery::new(
        two.sale.engine.clone(),
        two.books.ledger.clone(),
        two.writer.clone(),
        Metrics::new().unwrap(),
    );
    let slow = slow.unwrap();
    assert!(two.recovery.engine.begin_rebuild("slow").await.unwrap());
    // While another one has the right to it, nothing ends; nor when he has done it.
    assert!(slow.end().await.unwrap().is_none());
    assert!(two.books.ledger.endings().await.unwrap().is_empty());
    let ending = two.books.ledger.begin_ending().await.unwrap();
    let counted = ending.finish(&[]).await.unwrap();
    let pasts = two.recovery.pasts(&counted).await;
    two.recovery
        .engine
        .rebuild("slow", pasts.unwrap())
        .await
        .unwrap();
    assert!(slow.end().await.unwrap().is_none());
    assert_eq!(two.sell_out(1).await, 10);
    two.writer.drain().await.unwrap();
    assert_eq!(two.sold().await, 10);
    assert!(two.audit().await.clean);
}
