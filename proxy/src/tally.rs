//! What a thread that serves has counted and not yet told. It counts for itself, in memory that no other
//! thread touches, and tells before it sleeps; while it does not sleep, once in a while.

use std::cell::RefCell;
use std::sync::Arc;

use prometheus::local::{LocalHistogram, LocalIntCounter};

use crate::metrics::Metrics;

/// A thread that does not sleep tells after so many answers.
const UNTOLD_MAX: usize = 64;

thread_local! {
    static OWN: RefCell<Option<Tally>> = const { RefCell::new(None) };
}

struct Tally {
    metrics: Arc<Metrics>,
    /// In the order in which they were met.
    series: Vec<Series>,
    fresh: LocalIntCounter,
    untold: usize,
}

/// The series of a route and an outcome.
struct Series {
    route: &'static str,
    outcome: &'static str,
    answers: LocalIntCounter,
    durations: LocalHistogram,
}

/// From now on this thread counts for itself.
pub(crate) fn begin(metrics: Arc<Metrics>) {
    let tally = Tally {
        fresh: metrics.item_lookups_fresh.local(),
        metrics,
        series: Vec::new(),
        untold: 0,
    };
    OWN.set(Some(tally));
}

/// Counts an answer; `false` if this thread does not count for itself.
pub(crate) fn answer(route: &'static str, outcome: &'static str, duration_s: f64) -> bool {
    with(|tally| tally.answer(route, outcome, duration_s))
}

/// Counts item details that were found fresh; `false` if this thread does not count for itself.
pub(crate) fn fresh_item() -> bool {
    with(|tally| {
        tally.fresh.inc();
        tally.untold += 1;
    })
}

/// Tells what is untold.
pub(crate) fn tell() {
    with(Tally::tell);
}

/// While a thread ends, there may be no tally any more.
fn with(act: impl FnOnce(&mut Tally)) -> bool {
    OWN.try_with(|own| own.borrow_mut().as_mut().map(act))
        .is_ok_and(|done| done.is_some())
}

impl Tally {
    fn answer(&mut self, route: &'static str, outcome: &'static str, duration_s: f64) {
        // By where the names stand: one that stood in two places would have two series here, and one when told.
        let is_it = |series: &Series| {
            std::ptr::eq(series.route, route) && std::ptr::eq(series.outcome, outcome)
        };
        let known = self.series.iter().position(is_it);
        let at = known.unwrap_or_else(|| {
            let (answers, durations) = self.metrics.series(route, outcome);
            self.series.push(Series {
                route,
                outcome,
                answers: answers.local(),
                durations: durations.local(),
            });
            self.series.len() - 1
        });
        if let Some(series) = self.series.get(at) {
            series.answers.inc();
            series.durations.observe(duration_s);
        }
        self.untold += 1;
        if self.untold >= UNTOLD_MAX {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if std::mem::take(&mut self.untold) == 0 {
            return;
        }
        self.fresh.flush();
        for series in &self.series {
            series.answers.flush();
            series.durations.flush();
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_once_at_the_latest_when_the_thread_ends() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let told = || {
            let (answers, durations) = metrics.series("page", "ok");
            (answers.get(), durations.get_sample_count())
        };
        assert!(!answer("page", "ok", 0.001), "this thread has no tally");
        let serve = || {
            begin(metrics.clone());
            for _ in 0..UNTOLD_MAX - 1 {
                assert!(answer("page", "ok", 0.001));
            }
            assert_eq!(told(), (0, 0));
            tell();
            let all = u64::try_from(UNTOLD_MAX).unwrap();
            assert_eq!(told(), (all - 1, all - 1));
            tell();
            for _ in 0..=UNTOLD_MAX {
                answer("page", "ok", 0.001);
            }
            assert_eq!(told(), (2 * all - 1, 2 * all - 1));
            assert!(fresh_item());
        };
        std::thread::scope(|scope| scope.spawn(serve).join().unwrap());
        let all = u64::try_from(2 * UNTOLD_MAX).unwrap();
        assert_eq!(told(), (all, all));
        assert_eq!(metrics.item_lookups_fresh.get(), 1);
    }
}
