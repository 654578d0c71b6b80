//! The seeded simulation: whole sales in virtual time, with buyers, network, edge rules, engine, order
//! writer, sweeper, payments and operators, through the code that sells, and with everything that can go
//! wrong. After every step every promise is checked against books that are kept apart.
//!
//! | file | what is inside |
//! |---|---|
//! | `sale` | a sale: work under way, and what becomes of it |
//! | `steps` | what can happen in a step, and how a sale comes to rest |
//! | `requests` | what is sent, and its way through rules, order server and engine |
//! | `sweepers` | two sweepers, of whom one may sweep |
//! | `line` | between a piece of work and engine or ledger: held up, cut off, killed |
//! | `house`, `place` | engine and ledger, the process that is killed and started again |
//! | `invariants` | the promises, by name |
//! | `books`, `shelf` | how they are checked in the engine, and in the ledger |
//! | `promises` | what was answered, held against every later answer |
//! | `sabotage` | each rule broken on purpose: the simulation must find it |
//! | `tally` | what happened, counted; nothing on the list may be missing |
//! | `random` | chance that can be played again |
//!
//! What can go wrong: requests overtake each other, arrive twice or never, answers are lost, senders ask
//! again under the same key or another; any piece of work is held up or killed at any call of the engine
//! or the ledger, before it or after it, or inside the ledger's commit; the whole process is killed and
//! started again; a sweeper that was replaced goes on; the stream delivers again what was written long ago; the engine is away; the clock is
//! set forward and back; payments come late, twice, or of a wrong amount; promos are published over each
//! other, paused, closed, and get more stock; buyers sign out in between.
//!
//! A failure names its seed. It is played again, with its trace, by
//! `FLOODGATE_SEED=<seed> FLOODGATE_STEPS=<steps> cargo test -p floodgate-backend --lib simulation -- --nocapture`;
//! `FLOODGATE_SEEDS=<number>` plays more seeds than the default, or fewer.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

mod books;
mod house;
mod invariants;
mod line;
mod place;
mod promises;
mod random;
mod requests;
mod sabotage;
mod sale;
mod shelf;
mod steps;
mod sweepers;
mod tally;

use invariants::Invariant;
use sabotage::Sabotage;
use sale::{Failure, Sale};
use tally::Tally;

/// Sales that are played, and steps of each.
const SEEDS: u64 = 2_000;
const STEPS: u64 = 200;
/// Sales that are played on the disk, with the engine's own threads: a kill leaves the files as they are.
const ON_DISK: u64 = 16;
/// Sales that are played twice.
const REPLAYED: u64 = 12;
/// Within so many sales a broken rule must be found.
const FOUND_WITHIN: u64 = 200;

#[test]
fn every_promise_holds_after_every_step_of_thousands_of_sales() {
    let steps = number("FLOODGATE_STEPS").unwrap_or(STEPS);
    if let Some(seed) = number("FLOODGATE_SEED") {
        let tally = play(seed, steps, None).unwrap_or_else(|failure| fail(seed, steps, &failure));
        println!("{}", tally.1.table());
        return;
    }
    let seeds = number("FLOODGATE_SEEDS").unwrap_or(SEEDS);
    let all = Mutex::new(Tally::default());
    side_by_side(seeds, |index| {
        let seed = index + 1;
        match play(seed, steps, None) {
            Ok((_, tally)) => all.lock().unwrap().add(&tally),
            Err(failure) => fail(seed, steps, &failure),
        }
    });
    let tally = all.into_inner().unwrap();
    println!("{seeds} sales of {steps} steps\n{}", tally.table());
    if seeds >= SEEDS && steps >= STEPS {
        let missing = tally.missing();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

#[test]
fn files_hold_every_promise_whenever_the_process_is_killed() {
    side_by_side(ON_DISK, |index| {
        let seed = 2_000_000 + index;
        // The same sale as in memory.
        let on_disk = play_at(seed, STEPS, None, true).unwrap_or_else(|f| fail(seed, STEPS, &f));
        let in_memory = play(seed, STEPS, None).unwrap_or_else(|f| fail(seed, STEPS, &f));
        assert_eq!(on_disk.0, in_memory.0, "seed {seed}");
    });
}

#[test]
fn a_seed_plays_the_same_sale_again() {
    side_by_side(REPLAYED, |index| {
        let seed = 1_000_000 + index;
        let once = || play(seed, STEPS, None).unwrap_or_else(|f| fail(seed, STEPS, &f));
        let (first, second) = (once().0, once().0);
        assert_eq!(first, second, "seed {seed} played two different sales");
    });
}

#[test]
fn each_rule_that_is_broken_on_purpose_is_found() {
    let broken: BTreeSet<_> = Sabotage::ALL.iter().map(|(_, promise)| promise).collect();
    assert_eq!(
        broken,
        Invariant::ALL.iter().collect(),
        "some is never broken"
    );
    side_by_side(Sabotage::ALL.len() as u64, |index| {
        let (sabotage, promise) = Sabotage::ALL[index as usize];
        let found = (1..=FOUND_WITHIN).find_map(|seed| {
            let failure = play(seed, STEPS, Some(sabotage)).err()?;
            (failure.violation.invariant == promise).then_some((seed, failure))
        });
        let Some((seed, failure)) = found else {
            panic!("{sabotage:?} was not found in {FOUND_WITHIN} sales");
        };
        let (step, detail) = (failure.step, &failure.violation.detail);
        println!("{sabotage:?}: {promise:?}, sale {seed}, step {step}: {detail}");
    });
}

/// The digest of everything that happened, and its count.
type Played = Result<(u64, Tally), Box<Failure>>;

fn play(seed: u64, steps: u64, sabotage: Option<Sabotage>) -> Played {
    play_at(seed, steps, sabotage, false)
}

fn play_at(seed: u64, steps: u64, sabotage: Option<Sabotage>, is_on_disk: bool) -> Played {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut sale = Sale::new(seed, sabotage, is_on_disk).await;
        let digest = sale.play(steps).await?;
        Ok((digest, sale.tally))
    })
}

fn fail(seed: u64, steps: u64, failure: &Failure) -> ! {
    panic!(
        "{:?} is broken at step {} of seed {seed}: {}\n\nWhat happened last:\n  {}\n\nTo play it again: \
         FLOODGATE_SEED={seed} FLOODGATE_STEPS={steps} cargo test -p floodgate-backend --lib \
         simulation -- --nocapture",
        failure.violation.invariant,
        failure.step,
        failure.violation.detail,
        failure.trace.join("\n  "),
    )
}

/// Does `work` for 0 to `count` - 1, on as many threads as the machine runs at once. One that
/// panics ends them all.
fn side_by_side(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    let work = std::panic::AssertUnwindSafe(|| work(index));
                    if let Err(panic) = std::panic::catch_unwind(work) {
                        next.store(count, Ordering::Relaxed);
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
