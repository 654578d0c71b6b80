//! What happened when: counts for each tenth of a second of the run, and the rates that follow.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// Length of a slot.
pub const SLOT: Duration = Duration::from_millis(100);
/// Most slots: an hour. What comes later counts in the last.
const SLOTS_MAX: usize = 36_000;
/// Slots in a second.
const A_SECOND: usize = 10;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A buyer came.
    Arrived,
    /// An access token was granted.
    Admitted,
    /// An order was accepted.
    Accepted,
    /// An order was first seen in the ledger.
    Written,
    /// An order was paid.
    Paid,
    /// A request was answered, whatever the answer.
    Answered,
    /// A request was refused.
    Refused,
    /// A request has no answer.
    Lost,
}

impl Mark {
    /// Every mark.
    pub const ALL: [Self; 8] = [
        Self::Arrived,
        Self::Admitted,
        Self::Accepted,
        Self::Written,
        Self::Paid,
        Self::Answered,
        Self::Refused,
        Self::Lost,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Admitted => "admitted",
            Self::Accepted => "accepted",
            Self::Written => "written",
            Self::Paid => "paid",
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }
}

/// How often something happened.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// In all.
    pub count: u64,
    /// From the first to the last, in seconds; at least one slot.
    pub span_s: f64,
    /// Count / span.
    pub per_second: f64,
    /// In the busiest second.
    pub busiest_second: u64,
}

/// Counts by slot and mark.
#[derive(Debug, Clone)]
pub struct Timeline {
    start: Instant,
    slots: Vec<[u64; Mark::ALL.len()]>,
}

impl Timeline {
    /// An empty one.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            slots: Vec::new(),
        }
    }

    /// Counts `mark` at a moment; before the start is at the start.
    pub fn mark(&mut self, mark: Mark, at: Instant) {
        let slot = at.saturating_duration_since(self.start).as_millis() / SLOT.as_millis();
        let slot = usize::try_from(slot)
            .unwrap_or(SLOTS_MAX)
            .min(SLOTS_MAX - 1);
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, [0; Mark::ALL.len()]);
        }
        self.slots[slot][mark as usize] += 1;
    }

    /// The counts of one mark, slot by slot.
    pub fn of(&self, mark: Mark) -> Vec<u64> {
        self.slots.iter().map(|slot| slot[mark as usize]).collect()
    }

    /// How often `mark` happened.
    pub fn rate(&self, mark: Mark) -> Rate {
        let counts = self.of(mark);
        let count = counts.iter().sum();
        let first = counts.iter().position(|count| *count > 0).unwrap_or(0);
        let last = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
        let span_s = (last + 1 - first) as f64 / A_SECOND as f64;
        let seconds = counts.windows(A_SECOND.min(counts.len()).max(1));
        let busiest_second = seconds.map(|second| second.iter().sum()).max().unwrap_or(0);
        Rate {
            count,
            span_s,
            per_second: count as f64 / span_s,
            busiest_second,
        }
    }

    /// Adds another's; both have the same start.
    pub fn add(&mut self, other: &Self) {
        if self.slots.len() < other.slots.len() {
            self.slots.resize(other.slots.len(), [0; Mark::ALL.len()]);
        }
        for (slot, more) in self.slots.iter_mut().zip(&other.slots) {
            for (count, more) in slot.iter_mut().zip(more) {
                *count += more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_run_from_the_first_to_the_last() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timeline = Timeline::new(start);
        for ms in [1_000, 1_050, 1_950, 2_990] {
            timeline.mark(Mark::Accepted, at(ms));
        }
        timeline.mark(Mark::Refused, at(10_000));
        let rate = timeline.rate(Mark::Accepted);
        assert_eq!((rate.count, rate.span_s, rate.per_second), (4, 2.0, 2.0));
        assert_eq!(rate.busiest_second, 3, "slots 10 to 19");
        assert_eq!(timeline.rate(Mark::Paid).count, 0);
        assert_eq!(Timeline::new(start).rate(Mark::Paid).per_second, 0.0);
    }

    #[test]
    fn a_timeline_is_bounded_and_adds_up() {
        let start = Instant::now();
        let mut one = Timeline::new(start);
        one.mark(Mark::Lost, start + Duration::from_secs(1_000_000));
        let mut two = Timeline::new(start);
        two.mark(Mark::Lost, start);
        two.add(&one);
        assert_eq!(two.of(Mark::Lost).len(), SLOTS_MAX);
        assert_eq!(two.rate(Mark::Lost).count, 2);
    }
}
