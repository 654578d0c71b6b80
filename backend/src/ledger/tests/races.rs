//! Several processes at once: each has the ledger open by itself.

use std::collections::HashSet;

use super::*;

on_each_database!(
    two_writers_of_one_batch_write_it_once,
    batches_that_overlap_are_written_once_in_any_order,
    of_one_code_and_number_one_registration_comes_through,
    guesses_at_once_are_counted,
    codes_asked_for_at_once_are_counted,
    new_items_get_ids_of_their_own,
    a_reference_pays_one_order,
    of_late_payments_at_once_one_waits_for_units,
    an_order_is_expired_once,
);

/// Numbers by chance that come again with their seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % end
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

async fn processes(home: &Home, count: usize) -> Vec<Ledger> {
    let mut ledgers = Vec::new();
    for _ in 0..count {
        ledgers.push(home.another().await);
    }
    ledgers
}

async fn two_writers_of_one_batch_write_it_once(home: &Home) {
    let writers = processes(home, 2).await;
    for round in 0..10 {
        let from = 2 + round * 20;
        let mut batch: Vec<Event> = (from..from + 20)
            .map(|sequence| reserved(sequence, sequence, 1))
            .collect();
        if round == 0 {
            batch.insert(0, published(500));
        }
        let (one, other) = tokio::join!(
            writers[0].write_events(&batch, NOW),
            writers[1].write_events(&batch, NOW)
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.new + other.new, batch.len());
        assert_eq!(one.repeated + other.repeated, batch.len());
    }
    assert_eq!(shop(&home.ledger).await, (100 - 200, 200));
    let books = home.ledger.books(&fence(300, 201)).await.unwrap();
    assert_eq!((books.faults, books.counts.check()), (Vec::new(), Ok(())));
    assert_eq!((books.counts.available, books.counts.written), (300, 200));
}

/// Orders are made; then some are cancelled, paid late, and reserved again. Writers read overlapping
/// pieces of what the engine tells, each piece in an order of its own.
async fn batches_that_overlap_are_written_once_in_any_order(home: &Home) {
    const ORDERS: i64 = 60;
    for seed in 1..=3 {
        let mut dice = Dice(seed);
        let writers = processes(home, 4).await;
        // Promos of their own, so that one database serves all seeds.
        let promo = PromoId(100 + i64::try_from(seed).unwrap());
        let of_promo = |mut event: Event| {
            event.promo = promo;
            match &mut event.change {
                Change::Reserved { reservation, .. }
                | Change::ReservedAgain { reservation, .. } => {
                    reservation.order.promo = promo;
                }
                Change::Released { release, .. } => release.order.promo = promo,
                _ => {}
            }
            event
        };
        let id = |number| OrderId {
            promo,
            ..order(number)
        };
        let mut told = vec![of_promo(published(500))];
        told.extend((2..2 + ORDERS).map(|n| of_promo(reserved(n, 5, 2))));
        write_overlapping(&writers, &told, &mut dice, seed).await;

        let (mut second, mut sequence) = (Vec::new(), 1 + ORDERS);
        for number in (2..2 + ORDERS).step_by(3) {
            home.ledger
                .cancel(id(number), BuyerId(5), NOW)
                .await
                .unwrap();
            sequence += 1;
            second.push(of_promo(released_as(sequence, number, number, 2)));
            if number % 2 == 0 {
                let reference = format!("demo:{promo}-{number}");
                let total = price().times(2);
                let paid = home
                    .ledger
                    .receive_payment(&reference, id(number), total, NOW);
                assert_eq!(paid.await.unwrap().state, PaymentState::Late);
                sequence += 1;
                second.push(of_promo(reserved_again(sequence, number, &reference)));
            }
        }
        write_overlapping(&writers, &second, &mut dice, seed).await;

        let reached = home
            .ledger
            .reached(promo, Generation(1), Sequence(sequence))
            .await
            .unwrap();
        assert_eq!(
            (reached.movements, reached.missing),
            (sequence, None),
            "seed {seed}"
        );
        let (cancelled, again) = (20, 10);
        let available = 500 - 2 * (ORDERS - cancelled + again);
        let fence = Snapshot {
            promo,
            terms: Terms {
                per_buyer: 1_000,
                ..terms(500)
            },
            ..fence(u32::try_from(available).unwrap(), sequence)
        };
        let books = home.ledger.books(&fence).await.unwrap();
        assert_eq!(
            (books.faults, books.counts.check()),
            (Vec::new(), Ok(())),
            "seed {seed}"
        );
        let counts = (
            books.counts.available,
            books.counts.written,
            books.counts.paid,
        );
        assert_eq!(
            counts,
            (available, 2 * (ORDERS - cancelled), 2 * again),
            "seed {seed}"
        );
        assert_eq!(home.ledger.pending_releases(1_000).await.unwrap(), []);
        let sold = i64::try_from(seed).unwrap() * 2 * (ORDERS - cancelled + again);
        assert_eq!(shop(&home.ledger).await, (100 - sold, sold), "seed {seed}");
    }
}

fn released_as(sequence: i64, first: i64, number: i64, amount: u32) -> Event {
    let mut event = released(sequence, number, amount);
    if let Change::Released { release, .. } = &mut event.change {
        release.order = order(first);
    }
    event
}

/// Every event is read by at least one writer, most by several; each is written once.
async fn write_overlapping(writers: &[Ledger], told: &[Event], dice: &mut Dice, seed: u64) {
    let mut writing = tokio::task::JoinSet::new();
    for (n, ledger) in writers.iter().enumerate() {
        let mut pieces: Vec<Vec<Event>> = Vec::new();
        let mut from = 0;
        while from < told.len() {
            let end = (from + 1 + dice.below(20)).min(told.len());
            // The first writer reads everything.
            if n == 0 || dice.below(3) > 0 {
                let mut piece = told[from..end].to_vec();
                dice.shuffle(&mut piece);
                pieces.push(piece);
            }
            from = end;
        }
        dice.shuffle(&mut pieces);
        let ledger = ledger.clone();
        writing.spawn(async move {
            let mut new = 0;
            for piece in pieces {
                new += loop {
                    match ledger.write_events(&piece, NOW).await {
                        Ok(written) => break written.new,
                        Err(error) => {
                            assert!(
                                error.is_outage() && !error.is_poison(),
                                "seed {seed}: {error}"
                            );
                        }
                    }
                };
            }
            new
        });
    }
    let new: usize = writing.join_all().await.into_iter().sum();
    assert_eq!(new, told.len(), "seed {seed}");
}

fn otp(digest: u8, attempts: u32, per_hour: u32) -> Otp<'static> {
    Otp {
        tel: "12345",
        digest: [digest; 32],
        ttl_ms: 60_000,
        attempts,
        per_hour,
    }
}

async fn of_one_code_and_number_one_registration_comes_through(home: &Home) {
    home.ledger.store_otp(&otp(1, 3, 9), NOW).await.unwrap();
    let mut registering = tokio::task::JoinSet::new();
    for ledger in processes(home, 4).await {
        registering.spawn(async move {
            let user = NewUser {
                tel: "12345",
                name: "Ada",
                password_hash: "$",
                gender: None,
                age: None,
            };
            ledger.register(&user, &[1; 32], NOW).await
        });
    }
    let (done, refused): (Vec<_>, Vec<_>) = registering
        .join_all()
        .await
        .into_iter()
        .partition(|outcome| outcome.is_ok());
    assert_eq!((done.len(), refused.len()), (1, 3));
    for refusal in refused {
        assert!(
            matches!(
                refusal,
                Err(BackendError::Refused(
                    Refusal::WrongOtp | Refusal::NumberTaken
                ))
            ),
            "{refusal:?}"
        );
    }
    assert!(home.ledger.user_by_tel("12345").await.unwrap().is_some());
}

async fn guesses_at_once_are_counted(home: &Home) {
    home.ledger.store_otp(&otp(1, 2, 9), NOW).await.unwrap();
    let mut guessing = tokio::task::JoinSet::new();
    for ledger in processes(home, 6).await {
        guessing.spawn(async move { ledger.check_otp("12345", &[9; 32], NOW).await });
    }
    for guess in guessing.join_all().await {
        assert!(
            matches!(guess, Err(BackendError::Refused(Refusal::WrongOtp))),
            "{guess:?}"
        );
    }
    // Two were looked at; the others found that there were none left.
    let left = home.ledger.read("SELECT attempts_left FROM otps").await;
    let left = left.unwrap().fetch_one().await.unwrap();
    assert_eq!(left.get::<i64>("attempts_left").unwrap(), 0);
    let right = home.ledger.check_otp("12345", &[1; 32], NOW).await;
    assert!(matches!(
        right,
        Err(BackendError::Refused(Refusal::WrongOtp))
    ));
}

async fn codes_asked_for_at_once_are_counted(home: &Home) {
    let mut asking = tokio::task::JoinSet::new();
    for ledger in processes(home, 6).await {
        asking.spawn(async move { ledger.store_otp(&otp(1, 5, 3), NOW).await });
    }
    let (stored, refused): (Vec<_>, Vec<_>) = asking
        .join_all()
        .await
        .into_iter()
        .partition(|outcome| outcome.is_ok());
    assert_eq!((stored.len(), refused.len()), (3, 3));
    assert!(refused.iter().all(|refused| matches!(
        refused,
        Err(BackendError::Refused(Refusal::TooManyRequests { .. }))
    )));
}

async fn new_items_get_ids_of_their_own(home: &Home) {
    let mut creating = tokio::task::JoinSet::new();
    for ledger in processes(home, 4).await {
        creating.spawn(async move {
            ledger.seed(&[sneakers()]).await.unwrap();
            let new = NewItem {
                title: Some("Concert"),
                ..NewItem::default()
            };
            ledger.create_item(&new).await.unwrap().id.0
        });
    }
    let ids: HashSet<i64> = creating.join_all().await.into_iter().collect();
    assert_eq!(ids, HashSet::from([4, 5, 6, 7]));
}

async fn a_reference_pays_one_order(home: &Home) {
    let batch = [published(50), reserved(2, 5, 1), reserved(3, 6, 1)];
    home.ledger.write_events(&batch, NOW).await.unwrap();
    let processes = processes(home, 2).await;
    let pay = |process: usize, number| {
        processes[process].receive_payment("demo:1", order(number), price(), NOW)
    };
    let (one, other) = tokio::join!(pay(0, 2), pay(1, 3));
    let outcomes = [one, other];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let is_refused = |outcome: &Result<Payment>| {
        matches!(
            outcome,
            Err(BackendError::Refused(Refusal::BadParameter(_)))
        )
    };
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| is_refused(outcome))
            .count(),
        1
    );
    let states = [state(&home.ledger, 2).await, state(&home.ledger, 3).await];
    assert!(states.contains(&State::Paid) && states.contains(&State::Written));
}

async fn of_late_payments_at_once_one_waits_for_units(home: &Home) {
    let batch = [published(50), reserved(2, 5, 1)];
    home.ledger.write_events(&batch, NOW).await.unwrap();
    let mut paying = tokio::task::JoinSet::new();
    for (n, ledger) in processes(home, 4).await.into_iter().enumerate() {
        paying.spawn(async move {
            let reference = format!("demo:{n}");
            let paid = ledger.receive_payment(&reference, order(2), price(), LATER);
            paid.await.unwrap().state
        });
    }
    let states = paying.join_all().await;
    let late = states.iter().filter(|state| **state == PaymentState::Late);
    assert_eq!(late.count(), 1, "{states:?}");
    assert_eq!(
        home.ledger
            .pending_releases_of(order(2))
            .await
            .unwrap()
            .len(),
        1
    );
}

async fn an_order_is_expired_once(home: &Home) {
    let mut batch = vec![published(500)];
    batch.extend((2..102).map(|sequence| reserved(sequence, sequence, 1)));
    home.ledger.write_events(&batch, NOW).await.unwrap();
    let mut sweeping = tokio::task::JoinSet::new();
    for ledger in processes(home, 4).await {
        sweeping.spawn(async move {
            let mut expired = 0;
            loop {
                match ledger.expire(LATER, 7).await.unwrap() {
                    0 => return expired,
                    some => expired += some,
                }
            }
        });
    }
    let expired: usize = sweeping.join_all().await.into_iter().sum();
    // What one had locked just then, the others have left out; the last one finds what is left.
    let rest = home.ledger.expire(LATER, 1_000).await.unwrap();
    assert_eq!(expired + rest, 100);
    assert_eq!(
        home.ledger.pending_releases(1_000).await.unwrap().len(),
        100
    );
}
