//! Transactions that fail, queues that are full, engines that are closed.

use std::sync::atomic::Ordering;

use lua_free_rules::refusal::Refusal;
use tokio::sync::oneshot;

use super::*;
use crate::conformance::sale::{PROMO, request, terms};
use crate::embedded::commit::work;
use crate::embedded::queue::Missed;
use crate::embedded::step::{Step, StepError, StepResult};
use crate::{Control, EngineError, Event, Publish, Result};

fn store() -> (Store, Arc<Committed>) {
    let mut db = Connection::open_in_memory().unwrap();
    schema::prepare(&mut db).unwrap();
    // A row that breaks this constraint is found by COMMIT, not by INSERT.
    db.execute_batch(
        "PRAGMA foreign_keys = ON;
         CREATE TABLE late (id INTEGER PRIMARY KEY,
             other INTEGER REFERENCES late (id) DEFERRABLE INITIALLY DEFERRED);",
    )
    .unwrap();
    let committed = Arc::new(Committed::default());
    let clock = Arc::new(ManualClock::new(START));
    let mut store = Store::new(db, clock, 100, committed.clone()).unwrap();
    store.step(publish).unwrap();
    (store, committed)
}

fn publish(step: &mut Step<'_>) -> StepResult<()> {
    let request = Publish {
        promo: PROMO,
        terms: terms(step.now),
        digest: "a".to_owned(),
        only_first: false,
    };
    promos::publish(step, &request).map(|_| ())
}

fn add_stock(step: &mut Step<'_>) -> StepResult<u32> {
    promos::control(step, PROMO, Control::AddStock(1)).map(|promo| promo.available)
}

fn fails_at_commit(step: &mut Step<'_>) -> StepResult<u32> {
    step.db.execute("INSERT INTO late VALUES (1, 99)", [])?;
    Ok(0)
}

fn breaks(step: &mut Step<'_>) -> StepResult<u32> {
    add_stock(step)?;
    step.db.execute("INSERT INTO nowhere VALUES (1)", [])?;
    Ok(0)
}

fn writes_then_refuses(step: &mut Step<'_>) -> StepResult<u32> {
    add_stock(step)?;
    Err(StepError::Refused(Refusal::NotFound))
}

fn refuses(_: &mut Step<'_>) -> StepResult<u32> {
    Err(StepError::Refused(Refusal::NotFound))
}

type Steps = Vec<fn(&mut Step<'_>) -> StepResult<u32>>;

fn commit(store: &mut Store, steps: Steps) -> Vec<Result<u32>> {
    let (batch, answers): (Vec<_>, Vec<_>) = steps
        .into_iter()
        .map(|step| {
            let (reply, answer) = oneshot::channel();
            (work(step, reply), answer)
        })
        .unzip();
    store.commit(batch);
    answers
        .into_iter()
        .map(|mut answer| answer.try_recv().unwrap())
        .collect()
}

fn entries(store: &mut Store) -> u64 {
    store
        .step(|step| {
            assert_eq!(stream::count(step.db)?, step.level.entries);
            Ok(step.level.entries)
        })
        .unwrap()
}

#[track_caller]
fn assert_unavailable(answer: &Result<u32>) {
    assert!(
        matches!(answer, Err(EngineError::Unavailable(_))),
        "{answer:?}"
    );
}

#[test]
fn a_failed_commit_fails_every_request_in_it_and_changes_nothing() {
    let (mut store, committed) = store();
    let answers = commit(&mut store, vec![add_stock, fails_at_commit, refuses]);
    for answer in &answers {
        assert_unavailable(answer);
    }
    assert_eq!(entries(&mut store), 1);
    assert_eq!(committed.entries.load(Ordering::SeqCst), 1);
    // The next batch goes on from what is in the file.
    assert_eq!(
        commit(&mut store, vec![add_stock, add_stock]),
        [Ok(11), Ok(12)]
    );
    assert_eq!(entries(&mut store), 3);
    assert_eq!(committed.entries.load(Ordering::SeqCst), 3);
}

#[test]
fn a_step_that_breaks_fails_alone() {
    let (mut store, _) = store();
    let steps: Steps = vec![add_stock, breaks, refuses, writes_then_refuses, add_stock];
    let answers = commit(&mut store, steps);
    assert_eq!(answers[0], Ok(11));
    assert_unavailable(&answers[1]);
    assert_eq!(answers[2], Err(Refusal::NotFound.into()));
    assert_unavailable(&answers[3]);
    assert_eq!(answers[4], Ok(12));
    assert_eq!(entries(&mut store), 3);
}

#[test]
fn the_checks_in_the_file_stand_behind_the_code() {
    let (mut store, _) = store();
    for sql in [
        "UPDATE promos SET available = -1",
        "UPDATE promos SET available = stock + 1",
        "UPDATE promos SET places_used = -1",
    ] {
        let answer = store.step(move |step| Ok(step.db.execute(sql, [])?));
        assert!(matches!(answer, Err(EngineError::Unavailable(_))), "{sql}");
    }
}

#[tokio::test]
async fn a_full_queue_is_told_from_a_late_answer_and_a_closed_one() {
    let patience = Duration::from_millis(20);
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    let queue: Queue<oneshot::Sender<()>> = Queue::start("test", 1, patience, move |mut it| {
        begun.recv().unwrap();
        let mut batch = Vec::new();
        while it.next(8, &mut batch) {
            batch
                .drain(..)
                .for_each(|reply: oneshot::Sender<()>| reply.send(()).unwrap_or(()));
        }
    })
    .unwrap();
    assert_eq!(queue.ask(|reply| reply).await, Err(Missed::Late));
    assert_eq!(queue.ask(|reply| reply).await, Err(Missed::Full));
    begin.send(()).unwrap();
    while queue.ask(|reply| reply).await == Err(Missed::Full) {}
    assert_eq!(queue.ask(|reply| reply).await, Ok(()));
    queue.close().await;
    assert_eq!(queue.ask(|reply| reply).await, Err(Missed::Closed));
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_does_what_waits_and_lets_go_of_the_file() {
    let home = EmbeddedHome::start(u64::MAX).await;
    let sale = crate::conformance::sale::Sale {
        engine: home.engine(),
        home,
    };
    sale.publish("a", |it| it.stock = 1_000).await.unwrap();
    let path = file(sale.home.directory.path());
    let engine = sale.home.embedded.clone();
    let mut orders = tokio::task::JoinSet::new();
    for buyer in 0..50 {
        let session = sale.sign_in(buyer).await;
        let access = sale.enter(session).await.unwrap();
        let engine = engine.clone();
        orders.spawn(async move { engine.reserve(request(session, access, 1)).await });
    }
    engine.close().await;
    let answers = orders.join_all().await;
    let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
    for refused in answers.iter().filter(|answer| answer.is_err()) {
        assert!(
            matches!(refused, Err(EngineError::Unavailable(_))),
            "{refused:?}"
        );
    }
    let answer = engine.control(PROMO, Control::Pause).await;
    assert!(matches!(answer, Err(EngineError::Unavailable(_))));
    // Also while the closed one is not dropped yet.
    let clock = sale.home.clock.clone();
    let next = Embedded::open(&path, clock.clone(), Options::default()).unwrap();
    let left = next.promos().await.unwrap().1[0].available as usize;
    assert_eq!(left + accepted, 1_000);
    drop(next);
    drop(Embedded::open(&path, clock, Options::default()).unwrap());
}

#[tokio::test]
async fn a_panic_in_a_step_is_told_and_the_sale_goes_on() {
    let home = EmbeddedHome::start(u64::MAX).await;
    home.embedded.write(publish).await.unwrap();
    let panics = |step: &mut Step<'_>| -> StepResult<()> {
        add_stock(step)?;
        panic!("on purpose")
    };
    let answer = home.embedded.write(panics).await;
    assert!(
        matches!(answer, Err(EngineError::Unavailable(_))),
        "{answer:?}"
    );
    assert_eq!(home.embedded.backlog().await.unwrap().entries, 1);
    assert_eq!(home.embedded.write(add_stock).await, Ok(11));
    assert_eq!(home.embedded.backlog().await.unwrap().entries, 2);
    home.embedded.close().await;
}

#[tokio::test]
async fn events_are_stored_as_the_contract_names_them() {
    let home = EmbeddedHome::start(u64::MAX).await;
    home.embedded.write(publish).await.unwrap();
    let entries = OrderStream::read(&*home.embedded, 10, Duration::ZERO)
        .await
        .unwrap();
    let event: Event = serde_json::from_str(&entries[0].payload).unwrap();
    assert_eq!(event.at, START);
    assert_eq!(
        entries[0].payload,
        concat!(
            r#"{"promo":7,"generation":1,"sequence":1,"at":1790000000250,"change":{"published":"#,
            r#"{"stock":10,"terms":{"item":3,"starts_at":1790000000250,"ends_at":1790000600250,"#,
            r#""price":"99.00","stock":10,"door":5,"per_buyer":2,"pay_within":"900000ms","#,
            r#""token_ttl":"60000ms","challenges":["altcha","image"]},"digest":"a"}}}"#
        )
    );
}
