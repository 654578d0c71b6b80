//! Database servers that are killed, stopped or frozen while the ledger is written, and processes that stand
//! still in the middle of a transaction.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::ledger::fences::pass;

/// A server of the test's own.
enum Server {
    MariaDb(MariaDb),
    Postgres(Postgres),
}

impl Server {
    fn settings(&self) -> LedgerSettings {
        match self {
            Self::MariaDb(it) => on_server(it.fresh(), it.password()),
            Self::Postgres(it) => on_server(it.fresh(), it.password()),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::MariaDb(it) => it.kill(),
            Self::Postgres(it) => it.kill(),
        }
    }

    fn restart(&mut self) {
        match self {
            Self::MariaDb(it) => it.restart(),
            Self::Postgres(it) => it.restart(),
        }
    }

    fn freeze(&self) {
        match self {
            Self::MariaDb(it) => it.freeze(),
            Self::Postgres(it) => it.freeze(),
        }
    }

    fn thaw(&self) {
        match self {
            Self::MariaDb(it) => it.thaw(),
            Self::Postgres(it) => it.thaw(),
        }
    }
}

/// Writes a batch as the order writer does: what is away is waited for. Returns how often it was away.
async fn write(ledger: &Ledger, batch: &[Event]) -> usize {
    let mut away = 0;
    loop {
        match ledger.write_events(batch, NOW).await {
            Ok(_) => return away,
            Err(error) => {
                assert!(error.is_outage() && !error.is_poison(), "{error:?}");
                away += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// The server is killed while two writers write, a few times; each starts its batches again where it does
/// not know what became of them.
async fn nothing_is_lost_or_doubled(mut server: Server) {
    const BATCHES: i64 = 400;
    const KILLS: usize = 3;
    let settings = server.settings();
    let ledger = Ledger::open(&settings).await.unwrap();
    ledger.seed(&[sneakers()]).await.unwrap();
    ledger
        .write_events(&[published(100_000)], NOW)
        .await
        .unwrap();
    let is_over = std::sync::Arc::new(AtomicBool::new(false));
    let mut writing = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (ledger, is_over) = (Ledger::open(&settings).await.unwrap(), is_over.clone());
        writing.spawn(async move {
            let (mut away, mut written) = (0, 0);
            // Until the last kill, and then to the end of what was begun.
            while written < BATCHES || !is_over.load(Ordering::SeqCst) {
                let from = 2 + written * 10;
                let batch: Vec<Event> = (from..from + 10)
                    .map(|sequence| reserved(sequence, sequence, 1))
                    .collect();
                away += write(&ledger, &batch).await;
                written += 1;
            }
            (away, written)
        });
    }
    let killing = tokio::task::spawn_blocking(move || {
        for kill in 0..KILLS {
            std::thread::sleep(Duration::from_millis(150 + 70 * kill as u64));
            server.kill();
            server.restart();
        }
        server
    });
    let server = killing.await.unwrap();
    is_over.store(true, Ordering::SeqCst);
    let outcomes = writing.join_all().await;
    let away: usize = outcomes.iter().map(|(away, _)| away).sum();
    assert!(away > 0, "the writers noticed no kill");
    let batches = outcomes.iter().map(|(_, written)| *written).max().unwrap();
    let last = 1 + batches * 10;
    let available = u32::try_from(100_000 - batches * 10).unwrap();
    let books = ledger.books(&fence(available, last)).await.unwrap();
    assert_eq!((books.faults, books.counts.check()), (Vec::new(), Ok(())));
    assert_eq!(books.counts.available, i64::from(available));
    assert_eq!(books.counts.written, batches * 10);
    assert_eq!(shop(&ledger).await, (100 - batches * 10, batches * 10));
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_is_killed_while_it_is_written() {
    nothing_is_lost_or_doubled(Server::MariaDb(MariaDb::start())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_killed_while_it_is_written() {
    nothing_is_lost_or_doubled(Server::Postgres(Postgres::start())).await;
}

/// A server that hangs is told as an outage, and used again when it comes back.
async fn a_frozen_server_is_an_outage(server: Server) {
    let ledger = Ledger::open(&server.settings()).await.unwrap();
    ledger.seed(&[sneakers()]).await.unwrap();
    ledger.write_events(&[published(50)], NOW).await.unwrap();
    server.freeze();
    let reading = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.item(ItemId(3)).await }
    });
    let written = ledger.write_events(&[reserved(2, 5, 1)], NOW).await;
    for error in [written.unwrap_err(), reading.await.unwrap().unwrap_err()] {
        assert!(error.is_outage() && !error.is_poison(), "{error:?}");
        assert_eq!(error.refusal(), Refusal::Overloaded);
    }
    server.thaw();
    write(&ledger, &[reserved(2, 5, 1)]).await;
    assert_eq!(shop(&ledger).await, (99, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_hangs() {
    a_frozen_server_is_an_outage(Server::MariaDb(MariaDb::start())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_hangs() {
    a_frozen_server_is_an_outage(Server::Postgres(Postgres::start())).await;
}

/// A sweeper that stands still between raising the fence and its commit is cut off, and another one goes on.
async fn who_stands_still_is_cut_off(kind: Kind, bound: &'static str, shorter: &'static str) {
    let home = Home::open(kind).await;
    let told = home.ledger.read(bound).await.unwrap().fetch_one().await;
    assert_eq!(told.unwrap().get::<String>("bound").unwrap(), "15");
    let frozen = home.another().await;
    let mut tx = frozen.begin().await.unwrap();
    // So that the test is short.
    tx.query(shorter).execute().await.unwrap();
    pass(&mut tx, SWEEPER, Fence(1)).await.unwrap();
    let taken = async {
        while let Err(error) = home.ledger.raise_fence(SWEEPER, Fence(2)).await {
            assert!(error.is_outage(), "{error:?}");
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), taken);
    waited.await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(error.is_outage() && !error.is_poison(), "{error:?}");
    assert!(matches!(
        frozen.raise_fence(SWEEPER, Fence(1)).await,
        Err(BackendError::Replaced(SWEEPER))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweeper_that_stands_still_keeps_nobody_from_mariadb() {
    let bound = "SELECT CAST(@@idle_transaction_timeout AS CHAR) AS bound";
    let shorter = "SET SESSION idle_transaction_timeout = 1";
    who_stands_still_is_cut_off(Kind::MariaDb, bound, shorter).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweeper_that_stands_still_keeps_nobody_from_postgres() {
    let bound =
        "SELECT rtrim(current_setting('idle_in_transaction_session_timeout'), 's') AS bound";
    let shorter = "SET idle_in_transaction_session_timeout = '1s'";
    who_stands_still_is_cut_off(Kind::Postgres, bound, shorter).await;
}
