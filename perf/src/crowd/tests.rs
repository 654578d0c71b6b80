//! Whole crowds against a shop in memory, in virtual time.

use std::time::Duration;

use tokio::time::Instant;

use super::history::{HistoryFile, Line, Opening};
use super::mock::{Breaks, Rehearsal, Shop};
use super::plan::{Arrivals, Leaves, Manner, Shares};
use super::play::cast;
use super::shard::{Cast, Played};
use super::steps::{Lost, Step, Way};
use super::timeline::Mark;

const EVERY_MANNER: Shares = Shares {
    give_up: 0.2,
    resend: 0.15,
    double_click: 0.15,
    hang_up: 0.15,
    attack: 0.15,
};

fn ended(played: &Played) -> u64 {
    played.tally.outcomes.values().sum()
}

/// The shop answers nothing for 200 ms. One connection, and somebody comes every 10 ms: whoever
/// comes meanwhile waits. A generator that counts from the moment of sending would report one slow
/// answer; counted from the moment they meant to send, twenty people waited.
#[tokio::test(start_paused = true)]
async fn a_stall_shows_in_every_latency_it_caused() {
    let shop = Shop::new(0);
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    shop.borrow_mut().stalls = Some((at(1_000), at(1_200)));
    let mut rehearsal = Rehearsal::of(200);
    rehearsal.arrivals = Arrivals::Even(100.0);
    rehearsal.connections = 1;
    rehearsal.scene.crowd.shares.give_up = 1.0;
    let played = rehearsal.play(&shop).await;

    let item = &played.tally.latencies[&(Step::Item, true)];
    assert_eq!(item.count(), 200);
    let longest = item.at_ms(1.0);
    assert!(
        (199.0..=203.0).contains(&longest),
        "the first waited all of it: {longest} ms"
    );
    // The wait of the k-th of them is 200 - 10 k ms: ten of two hundred waited longer than 100 ms.
    let (some, few) = (item.at_ms(0.94), item.at_ms(0.955));
    assert!(
        some < 103.0 && few > 98.0,
        "94 %: {some} ms, 95.5 %: {few} ms"
    );
    assert!(item.at_ms(0.89) < 2.0, "nobody else waited");
    let late = played.tally.lateness.at_ms(1.0);
    assert!(
        (180.0..=203.0).contains(&late),
        "they were sent late, and that is told: {late} ms"
    );
}

#[tokio::test(start_paused = true)]
async fn an_honest_shop_sells_its_stock_and_the_funnel_adds_up() {
    let shop = Shop::new(10);
    let played = Rehearsal::of(60).play(&shop).await;
    let funnel = played.tally.funnel;
    assert_eq!(
        (funnel.arrived, funnel.reserved, funnel.units, funnel.paid),
        (60, 10, 10, 10)
    );
    assert_eq!((funnel.written, played.tally.broken_count), (10, 0));
    assert_eq!((ended(&played), played.tally.outcomes["paid"]), (60, 10));
    assert!(funnel.asked == 60 && (10..60).contains(&funnel.admitted));
    let refused: u64 = played.tally.refusals.values().sum();
    assert_eq!(
        refused, 50,
        "everybody else is told once that it is sold out"
    );
    let timeline = &played.tally.timeline;
    assert_eq!(timeline.rate(Mark::Accepted).count, 10);
    assert_eq!(timeline.rate(Mark::Refused).count, 50);
    assert_eq!(timeline.rate(Mark::Answered).count, played.tally.answers);
    assert_eq!(played.tally.answers, shop.borrow().requests as u64);
    assert!(played.standing.is_empty());
    assert_eq!(played.tally.ways[&Way::OrderToAccepted].count(), 10);
}

#[tokio::test(start_paused = true)]
async fn every_manner_is_played_and_an_honest_shop_passes() {
    let shop = Shop::new(1_000);
    let mut rehearsal = Rehearsal::of(600);
    rehearsal.scene.crowd.shares = EVERY_MANNER;
    let crowd = rehearsal.scene.crowd;
    let played = rehearsal.play(&shop).await;
    let count = |wanted: fn(Manner) -> bool| {
        (0..600)
            .filter(|index| wanted(crowd.plan(*index).manner))
            .count() as u64
    };
    let attackers = count(|manner| matches!(manner, Manner::Attacks(_)));
    let unpaid = count(|manner| manner == Manner::GivesUp(Leaves::WithOrder));
    let left = count(|manner| matches!(manner, Manner::GivesUp(_))) - unpaid;
    let tally = &played.tally;
    assert_eq!(
        (tally.broken_count, ended(&played)),
        (0, 600),
        "{:?}",
        tally.broken
    );
    assert_eq!(tally.refusals[&(Step::Order, 30005, 403)], attackers);
    assert_eq!(tally.funnel.reserved, 600 - attackers - left);
    assert_eq!(tally.funnel.paid, 600 - attackers - left - unpaid);
    assert_eq!(
        played.standing["reserved"], unpaid,
        "the last look finds those who left"
    );
    let hung_up = count(|manner| manner == Manner::HangsUp);
    assert_eq!(tally.lost[&(Step::Order, Lost::HungUp)], hung_up);
}

#[tokio::test(start_paused = true)]
async fn a_broken_promise_is_seen() {
    for (breaks, share) in [
        (
            Breaks::TakesAnyToken,
            Shares {
                attack: 1.0,
                ..Shares::default()
            },
        ),
        (
            Breaks::IgnoresKeys,
            Shares {
                double_click: 1.0,
                ..Shares::default()
            },
        ),
        (
            Breaks::IgnoresKeys,
            Shares {
                resend: 1.0,
                ..Shares::default()
            },
        ),
        (
            Breaks::RefusesResends,
            Shares {
                resend: 1.0,
                ..Shares::default()
            },
        ),
        (Breaks::Forgets, Shares::default()),
    ] {
        let shop = Shop::new(100);
        shop.borrow_mut().breaks = breaks;
        let mut rehearsal = Rehearsal::of(20);
        rehearsal.scene.crowd.shares = share;
        let played = rehearsal.play(&shop).await;
        assert!(
            played.tally.broken_count >= 20,
            "{breaks:?}: {:?}",
            played.tally.broken
        );
        assert_eq!(ended(&played), 20);
    }
}

/// The server is killed in mid-run and comes back three seconds later: what was in flight is lost,
/// is asked again under the same key, and nobody buys twice.
#[tokio::test(start_paused = true)]
async fn a_crowd_outlives_a_restart_of_the_server() {
    let shop = Shop::new(1_000);
    let at = |ms| Instant::now() + Duration::from_millis(ms);
    shop.borrow_mut().dead = Some((at(500), at(3_500)));
    let mut rehearsal = Rehearsal::of(300);
    rehearsal.scene.crowd.shares = Shares {
        double_click: 0.2,
        hang_up: 0.2,
        ..Shares::default()
    };
    let played = rehearsal.play(&shop).await;
    assert_eq!((played.tally.outcomes["paid"], ended(&played)), (300, 300));
    assert_eq!(played.tally.broken_count, 0, "{:?}", played.tally.broken);
    assert_eq!(shop.borrow().stock, 700, "each key is one order");
    let lost = |why| {
        played
            .tally
            .lost
            .iter()
            .filter(|((_, w), _)| *w == why)
            .map(|(_, n)| n)
            .sum()
    };
    let (connect, connection): (u64, u64) = (lost(Lost::Connect), lost(Lost::Connection));
    assert!(connect > 0 && connection > 0, "{connect} {connection}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_not_waited_for_for_ever() {
    let shop = Shop::new(10);
    shop.borrow_mut().silent = true;
    let begun = Instant::now();
    let played = Rehearsal::of(20).play(&shop).await;
    assert_eq!(played.tally.outcomes["no answer at item"], 20);
    let timeouts = played.tally.lost[&(Step::Item, Lost::Timeout)];
    assert!(
        (40..=80).contains(&timeouts),
        "10 s each, 30 s of patience: {timeouts}"
    );
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(played.tally.latencies[&(Step::Item, false)].at_ms(0.01) >= 9_990.0);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_crowd_leaves_at_once_and_every_request_is_accounted_for() {
    let shop = Shop::new(1_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h");
    let opening = Opening {
        history: 1,
        seed: 1,
        promo: 1,
        item: 1,
        started_at: 0,
        server_ahead_ms: 0,
        server_ahead_error_ms: 0,
    };
    let mut rehearsal = Rehearsal::of(200);
    rehearsal.scene.crowd.shares = EVERY_MANNER;
    rehearsal.history = HistoryFile::create(&path, &opening).unwrap().writer();
    let stop = rehearsal.stop.clone();
    let begun = Instant::now();
    // While some answers are being held back.
    let at = |ms| begun + Duration::from_millis(ms);
    shop.borrow_mut().stalls = Some((at(400), at(900)));
    let (played, ()) = tokio::join!(rehearsal.play(&shop), async {
        tokio::time::sleep_until(at(600)).await;
        stop.cancel();
    });
    assert_eq!(
        ended(&played),
        played.tally.funnel.arrived,
        "whoever came has an end"
    );
    assert!((50..200).contains(&played.tally.funnel.arrived));
    assert!(played.tally.outcomes["cut off by the end of the run"] > 0);
    assert!(begun.elapsed() < Duration::from_secs(5));

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Line<'_>> = text
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let answered = lines.iter().filter(|line| line.status != 0).count() as u64;
    assert_eq!(answered, played.tally.answers);
    let lost: u64 = played.tally.lost.values().sum();
    assert_eq!(
        lines.len() as u64,
        answered + lost,
        "no request without a line"
    );
    let accepted: std::collections::HashSet<_> = lines
        .iter()
        .filter(|line| line.step == Step::Order && line.status == 202)
        .map(|line| line.order_id.clone().unwrap())
        .collect();
    assert_eq!(accepted.len() as u64, played.tally.funnel.reserved);
    for line in &lines {
        assert!(line.sent_at.is_none_or(|sent| sent <= line.received_at));
        assert_eq!(line.step == Step::Order, line.key.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_keeps_so_many_at_a_time() {
    let shop = Shop::new(1_000);
    let begun = Instant::now();
    let mut rehearsal = Rehearsal::of(40);
    rehearsal.arrivals = Arrivals::Closed(10);
    let played = rehearsal.play(&shop).await;
    assert_eq!(played.tally.outcomes["paid"], 40);
    // Each takes three think times and a poll; four rounds of ten.
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(2_200)..Duration::from_millis(2_400)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn every_buyer_is_on_one_thread() {
    let offsets = Arrivals::Even(10.0).offsets(1, 7);
    let mut all = Vec::new();
    for thread in 0..3 {
        let Cast::Open(mine) = cast(Arrivals::Even(10.0), &offsets, 7, thread, 3) else {
            panic!("an open loop")
        };
        assert!(mine.iter().all(|(index, after)| *after == offsets[*index]));
        all.extend(mine.into_iter().map(|(index, _)| index));
    }
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
    let workers = |thread| match cast(Arrivals::Closed(8), &[], 7, thread, 3) {
        Cast::Closed(_, workers) => workers,
        Cast::Open(_) => 0,
    };
    assert_eq!(workers(0) + workers(1) + workers(2), 8);
}
