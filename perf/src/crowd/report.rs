//! The report of a run: everything it found as data, made once from the tallies, and the judgement on
//! it: whether promises were broken, and whether the generator itself was in the way.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::ceiling::Ceiling;
use super::desk::Audit;
use super::latency::Percentiles;
use super::plan::{Arrivals, Shares};
use super::steps::{Lost, Step, refusal_name};
use super::tally::{Funnel, Tally};
use super::timeline::{Mark, Rate, SLOT, Timeline};
use crate::machine::{Effort, HOT, Machine};

/// A run that comes this near to the ceiling measures the generator as well.
const NEAR_CEILING: f64 = 0.8;
/// Requests sent later than this because of the generator make its latencies doubtful.
const LATE_MS: f64 = 20.0;

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// The shop.
    pub url: String,
    /// Which promo.
    pub promo: i64,
    /// Which item.
    pub item: i64,
    /// Everything drawn by chance follows from it.
    pub seed: u64,
    /// How many buyers.
    pub buyers: usize,
    /// When they come.
    pub arrivals: Arrivals,
    /// How long they think.
    pub think: String,
    /// Who behaves how.
    pub shares: Shares,
    /// Most connections.
    pub connections: usize,
    /// Threads of the generator.
    pub threads: usize,
}

/// Why the play ended before its last buyer was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CutOff {
    /// It took too long.
    TimeLimit,
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// One kind of refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// What was asked.
    pub step: Step,
    /// The error code; 0 where the answer named none.
    pub err_code: u32,
    /// The HTTP status.
    pub status: u16,
    /// The shop's name for it.
    pub name: &'static str,
    /// How often.
    pub count: u64,
}

/// Requests without an answer, of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unanswered {
    /// What was asked.
    pub step: Step,
    /// Why there is no answer.
    pub why: Lost,
    /// How often.
    pub count: u64,
}

/// How fast things went, each by itself: refusals are cheap and must not be taken for sales.
#[derive(Debug, Clone, Serialize)]
pub struct Rates {
    /// Orders accepted.
    pub accepted: Rate,
    /// Orders seen in the ledger.
    pub persisted: Rate,
    /// Orders paid.
    pub paid: Rate,
    /// Access tokens granted.
    pub admitted: Rate,
    /// Requests refused.
    pub refused: Rate,
    /// Answers of any kind.
    pub answered: Rate,
}

/// One row of latencies.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Of what.
    pub what: String,
    /// The figures.
    #[serde(flatten)]
    pub percentiles: Percentiles,
}

/// What the generator has to say of itself.
#[derive(Debug, Clone, Serialize)]
pub struct Generator {
    /// How busy its threads were; absent where the system does not tell.
    pub effort: Option<Effort>,
    /// What one thread can do at best; absent if it was not measured.
    pub ceiling: Option<Ceiling>,
    /// The busiest second's answers as a share of the ceiling of all threads.
    pub of_ceiling: Option<f64>,
    /// How late requests were sent.
    pub lateness: Percentiles,
    /// Why this run is to be read with care; empty if nothing speaks against it.
    pub marks: Vec<String>,
}

/// What each tenth of a second saw.
#[derive(Debug, Clone, Serialize)]
pub struct Slots {
    /// Length of a slot.
    pub slot_ms: u128,
    /// The counts.
    #[serde(flatten)]
    pub counts: BTreeMap<&'static str, Vec<u64>>,
}

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// When the run began, RFC 3339.
    pub date: String,
    /// The command line.
    pub command: String,
    /// The version of the generator.
    pub version: &'static str,
    /// The machine of the generator.
    pub machine: Machine,
    /// What was asked for.
    pub settings: Settings,
    /// From the start until the last buyer was done.
    pub took_s: f64,
    /// Why the play ended early, if it did.
    pub cut_off: Option<CutOff>,
    /// How far buyers came.
    pub funnel: Funnel,
    /// What became of each.
    pub outcomes: BTreeMap<String, u64>,
    /// Refusals, the most frequent first.
    pub refusals: Vec<Refused>,
    /// Requests without an answer.
    pub unanswered: Vec<Unanswered>,
    /// Orders not seen paid, by their state at the last look.
    pub standing: BTreeMap<String, u64>,
    /// How fast.
    pub rates: Rates,
    /// Latencies of steps and ways.
    pub latencies: Vec<Row>,
    /// The generator itself.
    pub generator: Generator,
    /// How many promises were seen broken.
    pub broken_count: u64,
    /// The first of them, in words.
    pub broken: Vec<String>,
    /// The shop's audit, if one was asked for.
    pub audit: Option<Audit>,
    /// Why there is no audit, though one was asked for.
    pub audit_failed: Option<String>,
    /// What happened when.
    pub timeline: Slots,
}

/// What a report is made from, apart from the tally.
pub struct Circumstances {
    /// When the run began, RFC 3339.
    pub date: String,
    /// The command line.
    pub command: String,
    /// What was asked for.
    pub settings: Settings,
    /// From the start until the last buyer was done.
    pub took: Duration,
    /// Why the play ended early.
    pub cut_off: Option<CutOff>,
    /// How busy the threads were.
    pub effort: Option<Effort>,
    /// What one thread can do.
    pub ceiling: Option<Ceiling>,
    /// Orders not seen paid, by state.
    pub standing: BTreeMap<String, u64>,
    /// The audit, if one was asked for.
    pub audit: Option<Result<Audit, String>>,
}

impl Report {
    /// The report on what was counted.
    pub fn new(tally: &Tally, told: Circumstances) -> Self {
        let (audit, audit_failed) = match told.audit {
            None => (None, None),
            Some(Ok(audit)) => (Some(audit), None),
            Some(Err(why)) => (None, Some(why)),
        };
        let rates = rates(&tally.timeline);
        let threads = told.settings.threads as f64;
        let of_ceiling = told
            .ceiling
            .filter(|ceiling| ceiling.per_second > 0.0)
            .map(|ceiling| rates.answered.busiest_second as f64 / (ceiling.per_second * threads));
        let lateness = tally.lateness.percentiles();
        let marks = marks(told.effort, of_ceiling, &lateness);
        let (effort, ceiling) = (told.effort, told.ceiling);
        let counts = Mark::ALL.map(|mark| (mark.name(), tally.timeline.of(mark)));
        Self {
            date: told.date,
            command: told.command,
            version: env!("CARGO_PKG_VERSION"),
            machine: Machine::this(),
            settings: told.settings,
            took_s: told.took.as_secs_f64(),
            cut_off: told.cut_off,
            funnel: tally.funnel,
            outcomes: tally.outcomes.clone(),
            refusals: refusals(tally),
            unanswered: tally
                .lost
                .iter()
                .map(|(&(step, why), &count)| Unanswered { step, why, count })
                .collect(),
            standing: told.standing,
            rates,
            latencies: latencies(tally),
            generator: Generator {
                effort,
                ceiling,
                of_ceiling,
                lateness,
                marks,
            },
            broken_count: tally.broken_count,
            broken: tally.broken.clone(),
            audit,
            audit_failed,
            timeline: Slots {
                slot_ms: SLOT.as_millis(),
                counts: counts.into(),
            },
        }
    }

    /// Whether a promise was broken, by what the crowd saw or by the shop's own audit.
    pub fn is_broken(&self) -> bool {
        self.broken_count > 0 || self.audit.as_ref().is_some_and(|audit| !audit.clean)
    }
}

fn rates(timeline: &Timeline) -> Rates {
    Rates {
        accepted: timeline.rate(Mark::Accepted),
        persisted: timeline.rate(Mark::Written),
        paid: timeline.rate(Mark::Paid),
        admitted: timeline.rate(Mark::Admitted),
        refused: timeline.rate(Mark::Refused),
        answered: timeline.rate(Mark::Answered),
    }
}

fn refusals(tally: &Tally) -> Vec<Refused> {
    let each = tally
        .refusals
        .iter()
        .map(|(&(step, err_code, status), &count)| Refused {
            step,
            err_code,
            status,
            name: refusal_name(err_code),
            count,
        });
    let mut refusals: Vec<_> = each.collect();
    refusals.sort_by_key(|refused| std::cmp::Reverse(refused.count));
    refusals
}

fn latencies(tally: &Tally) -> Vec<Row> {
    let steps = tally
        .latencies
        .iter()
        .map(|(&(step, granted), latency)| Row {
            what: format!(
                "{}, {}",
                step.name(),
                if granted { "granted" } else { "refused" }
            ),
            percentiles: latency.percentiles(),
        });
    let ways = tally.ways.iter().map(|(way, latency)| Row {
        what: way.name().to_owned(),
        percentiles: latency.percentiles(),
    });
    steps.chain(ways).collect()
}

fn marks(effort: Option<Effort>, of_ceiling: Option<f64>, lateness: &Percentiles) -> Vec<String> {
    let mut marks = Vec::new();
    match effort {
        Some(effort) if effort.hot_seconds > 0 => marks.push(format!(
            "the generator's core was above {:.0} % busy or contended in {} of {} thread-seconds: \
             latencies are partly its own",
            HOT * 100.0,
            effort.hot_seconds,
            effort.seconds
        )),
        Some(_) => {}
        None => marks.push("how busy the generator was is not known on this system".to_owned()),
    }
    if let Some(share) = of_ceiling.filter(|share| *share > NEAR_CEILING) {
        let share = share * 100.0;
        marks.push(format!(
            "the busiest second reached {share:.0} % of the generator's ceiling"
        ));
    }
    if lateness.p99_ms > LATE_MS {
        let late = lateness.p99_ms;
        marks.push(format!(
            "1 % of all requests went out more than {late:.0} ms late, for want of a free \
             connection or a core (the wait is in their latency)"
        ));
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_marked_where_the_generator_was_in_the_way() {
        let calm = Effort {
            busy: 0.3,
            seconds: 10,
            ..Effort::default()
        };
        let quiet = crate::crowd::latency::Latency::default().percentiles();
        assert!(marks(Some(calm), Some(0.2), &quiet).is_empty());
        let hot = Effort {
            hot_seconds: 1,
            ..calm
        };
        assert_eq!(marks(Some(hot), Some(0.2), &quiet).len(), 1);
        assert_eq!(marks(Some(hot), Some(0.9), &quiet).len(), 2);
        let late = Percentiles {
            p99_ms: 50.0,
            ..quiet
        };
        assert_eq!(marks(None, None, &late).len(), 2);
    }
}
