//! What is counted while a crowd plays: answers and refusals by step, latencies, the funnel, and what
//! became of each buyer. Each thread keeps its own; they are added up at the end.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use tokio::time::Instant;

use super::latency::Latency;
use super::steps::{Lost, Moments, Step, Verdict, Way};
use super::timeline::{Mark, Timeline};

/// How many buyers, or orders, came how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Funnel {
    /// Buyers who came.
    pub arrived: u64,
    /// Buyers who asked for an access token.
    pub asked: u64,
    /// Buyers who got a challenge.
    pub challenged: u64,
    /// Buyers who got an access token.
    pub admitted: u64,
    /// Orders accepted (202).
    pub reserved: u64,
    /// Units in them.
    pub units: u64,
    /// Orders seen in the ledger.
    pub written: u64,
    /// Orders paid.
    pub paid: u64,
    /// Orders that were not paid in time.
    pub expired: u64,
}

impl Funnel {
    fn add(&mut self, other: &Self) {
        self.arrived += other.arrived;
        self.asked += other.asked;
        self.challenged += other.challenged;
        self.admitted += other.admitted;
        self.reserved += other.reserved;
        self.units += other.units;
        self.written += other.written;
        self.paid += other.paid;
        self.expired += other.expired;
    }
}

/// Most broken promises that are kept in words; all are counted.
const BROKEN_MAX: usize = 100;

/// Everything one thread counts.
#[derive(Debug)]
pub struct Tally {
    /// How far buyers came.
    pub funnel: Funnel,
    /// What became of each buyer.
    pub outcomes: BTreeMap<String, u64>,
    /// Refusals by step, error code and status.
    pub refusals: BTreeMap<(Step, u32, u16), u64>,
    /// Requests without an answer, by step and why.
    pub lost: BTreeMap<(Step, Lost), u64>,
    /// Latency of each step: granted, refused.
    pub latencies: BTreeMap<(Step, bool), Latency>,
    /// How long the ways took.
    pub ways: BTreeMap<Way, Latency>,
    /// How late requests were sent, by the generator's own fault or for want of a connection.
    pub lateness: Latency,
    /// What happened when.
    pub timeline: Timeline,
    /// Answers in all.
    pub answers: u64,
    /// The orders that were accepted.
    orders: HashSet<String>,
    /// Promises that were seen broken, the first of them in words.
    pub broken: Vec<String>,
    /// How many.
    pub broken_count: u64,
}

impl Tally {
    /// An empty one whose timeline starts at `start`.
    pub fn new(start: Instant) -> Self {
        Self {
            funnel: Funnel::default(),
            outcomes: BTreeMap::new(),
            refusals: BTreeMap::new(),
            lost: BTreeMap::new(),
            latencies: BTreeMap::new(),
            ways: BTreeMap::new(),
            lateness: Latency::default(),
            timeline: Timeline::new(start),
            answers: 0,
            orders: HashSet::new(),
            broken: Vec::new(),
            broken_count: 0,
        }
    }

    /// Counts one exchange. Latency runs from the moment the buyer meant to send, so a request that
    /// waited behind a stalled answer counts with its whole wait. A request that timed out has at
    /// least that latency and is counted; one that could not connect has none.
    pub fn exchange(&mut self, step: Step, moments: Moments, verdict: Verdict) {
        let latency = moments.ended.saturating_duration_since(moments.due);
        if let Some(sent) = moments.sent {
            self.lateness
                .record(sent.saturating_duration_since(moments.due));
        }
        match verdict {
            Verdict::Granted => {
                self.answers += 1;
                self.timeline.mark(Mark::Answered, moments.ended);
                self.latencies
                    .entry((step, true))
                    .or_default()
                    .record(latency);
            }
            Verdict::Refused(code, status) => {
                self.answers += 1;
                *self.refusals.entry((step, code, status)).or_default() += 1;
                self.latencies
                    .entry((step, false))
                    .or_default()
                    .record(latency);
                self.timeline.mark(Mark::Answered, moments.ended);
                self.timeline.mark(Mark::Refused, moments.ended);
            }
            Verdict::Lost(why) => {
                *self.lost.entry((step, why)).or_default() += 1;
                if why == Lost::Timeout {
                    self.latencies
                        .entry((step, false))
                        .or_default()
                        .record(latency);
                }
                if !matches!(why, Lost::HungUp | Lost::Stopped) {
                    self.timeline.mark(Mark::Lost, moments.ended);
                }
            }
        }
    }

    /// Counts how long a way took.
    pub fn way(&mut self, way: Way, from: Instant, to: Instant) {
        self.ways
            .entry(way)
            .or_default()
            .record(to.saturating_duration_since(from));
    }

    /// Counts an accepted order of so many units, once a buyer. No two buyers get the same.
    pub fn accepted(&mut self, order: &str, units: u32) {
        self.funnel.reserved += 1;
        self.funnel.units += u64::from(units);
        if !self.orders.insert(order.to_owned()) {
            self.broke(format!("order {order} was given to two buyers"));
        }
    }

    /// Notes a promise that was broken.
    pub fn broke(&mut self, words: String) {
        self.broken_count += 1;
        if self.broken.len() < BROKEN_MAX {
            self.broken.push(words);
        }
    }

    /// Notes what became of a buyer.
    pub fn outcome(&mut self, words: String) {
        *self.outcomes.entry(words).or_default() += 1;
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: Self) {
        self.funnel.add(&other.funnel);
        add_counts(&mut self.outcomes, other.outcomes);
        add_counts(&mut self.refusals, other.refusals);
        add_counts(&mut self.lost, other.lost);
        for (key, latency) in other.latencies {
            self.latencies.entry(key).or_default().add(&latency);
        }
        for (way, latency) in other.ways {
            self.ways.entry(way).or_default().add(&latency);
        }
        self.lateness.add(&other.lateness);
        self.timeline.add(&other.timeline);
        self.answers += other.answers;
        for order in other.orders {
            if self.orders.contains(&order) {
                self.broke(format!("order {order} was given to two buyers"));
            }
            self.orders.insert(order);
        }
        self.broken_count += other.broken_count;
        let room = BROKEN_MAX.saturating_sub(self.broken.len());
        self.broken.extend(other.broken.into_iter().take(room));
    }
}

fn add_counts<K: Ord>(counts: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (key, count) in more {
        *counts.entry(key).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn moments(start: Instant, due: u64, sent: Option<u64>, ended: u64) -> Moments {
        let at = |ms| start + Duration::from_millis(ms);
        Moments {
            due: at(due),
            sent: sent.map(at),
            ended: at(ended),
        }
    }

    #[test]
    fn every_exchange_is_counted_once() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        tally.exchange(
            Step::Token,
            moments(start, 0, Some(5), 10),
            Verdict::Granted,
        );
        tally.exchange(
            Step::Token,
            moments(start, 0, Some(0), 30),
            Verdict::Refused(30001, 409),
        );
        tally.exchange(
            Step::Token,
            moments(start, 0, None, 90),
            Verdict::Lost(Lost::Connect),
        );
        tally.exchange(
            Step::Order,
            moments(start, 0, Some(0), 900),
            Verdict::Lost(Lost::Timeout),
        );
        assert_eq!(tally.answers, 2);
        assert_eq!(tally.refusals[&(Step::Token, 30001, 409)], 1);
        assert_eq!(tally.lost[&(Step::Token, Lost::Connect)], 1);
        assert_eq!(tally.latencies[&(Step::Token, true)].count(), 1);
        assert!((29.9..30.1).contains(&tally.latencies[&(Step::Token, false)].at_ms(1.0)));
        assert!(
            tally.latencies[&(Step::Order, false)].at_ms(1.0) > 890.0,
            "a timeout counts"
        );
        assert_eq!(tally.lateness.count(), 3);
        assert!((4.9..5.1).contains(&tally.lateness.at_ms(1.0)));
    }

    #[test]
    fn tallies_add_up() {
        let start = Instant::now();
        let part = |reserved: u64| {
            let mut tally = Tally::new(start);
            tally.funnel = Funnel {
                arrived: 10,
                reserved,
                units: 2 * reserved,
                ..Funnel::default()
            };
            tally.outcome("paid".to_owned());
            for _ in 0..reserved {
                tally.exchange(
                    Step::Order,
                    moments(start, 0, Some(0), 20),
                    Verdict::Granted,
                );
                tally.broke("twice".to_owned());
            }
            tally.way(
                Way::OrderToAccepted,
                start,
                start + Duration::from_millis(7),
            );
            tally
        };
        let mut sum = part(3);
        sum.add(part(200));
        assert_eq!(
            (sum.funnel.arrived, sum.funnel.reserved, sum.funnel.units),
            (20, 203, 406)
        );
        assert_eq!((sum.outcomes["paid"], sum.answers), (2, 203));
        assert_eq!(sum.latencies[&(Step::Order, true)].count(), 203);
        assert_eq!(sum.ways[&Way::OrderToAccepted].count(), 2);
        assert_eq!((sum.broken.len(), sum.broken_count), (BROKEN_MAX, 203));
    }

    #[test]
    fn one_order_for_two_buyers_is_seen_on_one_thread_and_on_two() {
        let start = Instant::now();
        let (mut one, mut two) = (Tally::new(start), Tally::new(start));
        one.accepted("1-1-1", 2);
        one.accepted("1-1-2", 1);
        two.accepted("1-1-2", 1);
        assert_eq!((one.broken_count, two.broken_count), (0, 0));
        one.add(two);
        assert_eq!(
            (one.broken_count, one.funnel.reserved, one.funnel.units),
            (1, 3, 4)
        );
        one.accepted("1-1-1", 1);
        assert_eq!(one.broken_count, 2);
    }
}
