//! The chart of a run: what came and what was refused, what was sold, and the latencies by percentile.

use crate::svg::{Anchor, Svg, step};

use super::latency::Latency;
use super::report::Report;
use super::steps::Step;
use super::tally::Tally;
use super::timeline::{Mark, SLOT};

const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 900.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const PANEL: f64 = 190.0;
const GREY: &str = "#e4e4e4";
const INK: &str = "#555";
/// Most points in a curve; longer runs are drawn in longer slots.
const POINTS_MAX: usize = 600;

/// Colours that people with colour-blindness tell apart.
const BLUE: &str = "#0072b2";
const RED: &str = "#d55e00";
const GREEN: &str = "#009e73";
const PINK: &str = "#cc79a7";
const ORANGE: &str = "#e69f00";
const SKY: &str = "#56b4e9";

/// A curve and its name.
struct Series<'a> {
    name: &'a str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// Draws the run.
pub fn draw(report: &Report, tally: &Tally) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    let (funnel, set) = (&report.funnel, &report.settings);
    svg.title(
        (LEFT, 30.0),
        &format!(
            "{} buyers: {} orders accepted, {} paid",
            set.buyers, funnel.reserved, funnel.paid
        ),
    );
    let machine = &report.machine;
    let about = format!(
        "{} · promo {} · seed {} · {}, {} cores{}",
        report.date,
        set.promo,
        set.seed,
        machine.cpu,
        machine.cores,
        if report.generator.marks.is_empty() {
            ""
        } else {
            " · MARKED: see the report"
        }
    );
    svg.text((LEFT, 50.0), Anchor::Start, INK, &about);
    let slots = tally.timeline.of(Mark::Answered).len().max(1);
    let merged = slots.div_ceil(POINTS_MAX);
    let series = |name, colour, mark| Series {
        name,
        colour,
        points: by_time(&tally.timeline.of(mark), merged, slots),
    };
    let unit = format!("in {} ms", SLOT.as_millis() * merged as u128);
    let demand = [
        series("arrived", BLUE, Mark::Arrived),
        series("refused", RED, Mark::Refused),
        series("no answer", PINK, Mark::Lost),
    ];
    over_time(&mut svg, 100.0, &format!("The crowd, {unit}"), &demand);
    let sale = [
        series("admitted", SKY, Mark::Admitted),
        series("accepted", GREEN, Mark::Accepted),
        series("seen written", ORANGE, Mark::Written),
        series("paid", PINK, Mark::Paid),
    ];
    over_time(&mut svg, 370.0, &format!("The sale, {unit}"), &sale);
    by_percentile(&mut svg, 640.0, tally);
    svg.finish()
}

/// Points in seconds and counts; `merged` slots become one.
fn by_time(counts: &[u64], merged: usize, slots: usize) -> Vec<(f64, f64)> {
    let seconds = SLOT.as_secs_f64();
    (0..slots.div_ceil(merged))
        .map(|n| {
            let from = (n * merged).min(counts.len());
            let to = ((n + 1) * merged).min(counts.len());
            let sum: u64 = counts[from..to].iter().sum();
            ((n * merged) as f64 * seconds, sum as f64)
        })
        .collect()
}

fn over_time(svg: &mut Svg, top: f64, title: &str, all: &[Series<'_>]) {
    let points = || all.iter().flat_map(|series| &series.points);
    let latest = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let most = points().map(|(_, y)| *y).fold(1.0, f64::max);
    let x = |second: f64| LEFT + second / latest * (WIDTH - LEFT - RIGHT);
    let rise = step(most, 4.0);
    let high = (most / rise).ceil() * rise;
    let y = |count: f64| top + PANEL - count / high * PANEL;
    frame(svg, top, title, all);
    let mut mark = 0.0;
    while mark <= high * 1.001 {
        svg.line((LEFT, y(mark)), (WIDTH - RIGHT, y(mark)), GREY);
        svg.text((LEFT - 8.0, y(mark) + 4.0), Anchor::End, INK, &number(mark));
        mark += rise;
    }
    let stride = step(latest, 10.0);
    let mut mark = 0.0;
    while mark <= latest {
        svg.text(
            (x(mark), top + PANEL + 18.0),
            Anchor::Middle,
            INK,
            &format!("{} s", number(mark)),
        );
        mark += stride;
    }
    for series in all {
        let points: Vec<_> = series
            .points
            .iter()
            .map(|(at, count)| (x(*at), y(*count)))
            .collect();
        svg.curve(&points, series.colour);
    }
}

/// The percentiles on the axis, and how many nines they are.
const MARKS: [(f64, &str); 6] = [
    (0.0, "min"),
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
];
/// Nines at the right edge.
const NINES: f64 = 4.3;

fn by_percentile(svg: &mut Svg, top: f64, tally: &Tally) {
    let wanted = [
        ("item", BLUE, (Step::Item, true)),
        ("token granted", SKY, (Step::Token, true)),
        ("token refused", RED, (Step::Token, false)),
        ("order accepted", GREEN, (Step::Order, true)),
        ("order refused", ORANGE, (Step::Order, false)),
        ("paid", PINK, (Step::Pay, true)),
    ];
    let there = wanted.into_iter().filter_map(|(name, colour, key)| {
        let points = nines(
            tally
                .latencies
                .get(&key)
                .filter(|latency| latency.count() > 0)?,
        );
        Some(Series {
            name,
            colour,
            points,
        })
    });
    let all: Vec<_> = there.collect();
    let values = || {
        all.iter()
            .flat_map(|series| &series.points)
            .map(|(_, ms)| *ms)
    };
    // Whole decades around what was seen.
    let low = values().fold(1.0, f64::min).max(0.01).log10().floor();
    let high = values().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let x = |nines: f64| LEFT + nines / NINES * (WIDTH - LEFT - RIGHT);
    let y = |ms: f64| top + PANEL - (ms.max(0.01).log10() - low) / (high - low) * PANEL;
    frame(svg, top, "Latency by percentile", &all);
    let mut decade = low;
    while decade <= high {
        let ms = 10_f64.powf(decade);
        svg.line((LEFT, y(ms)), (WIDTH - RIGHT, y(ms)), GREY);
        svg.text(
            (LEFT - 8.0, y(ms) + 4.0),
            Anchor::End,
            INK,
            &format!("{} ms", number(ms)),
        );
        decade += 1.0;
    }
    for (share, name) in MARKS {
        let at = x(-(1.0 - share).log10());
        svg.line((at, top), (at, top + PANEL), GREY);
        svg.text((at, top + PANEL + 18.0), Anchor::Middle, INK, name);
    }
    for series in &all {
        let points: Vec<_> = series
            .points
            .iter()
            .map(|(at, ms)| (x(*at), y(*ms)))
            .collect();
        svg.curve(&points, series.colour);
    }
}

/// Latency over nines, as far as there are enough latencies to speak of so many nines.
fn nines(latency: &Latency) -> Vec<(f64, f64)> {
    let last = (latency.count() as f64).log10().min(NINES);
    let steps = (last * 40.0) as usize;
    (0..=steps)
        .map(|n| n as f64 / 40.0)
        .map(|nines| (nines, latency.at_ms(1.0 - 10_f64.powf(-nines))))
        .collect()
}

fn frame(svg: &mut Svg, top: f64, title: &str, all: &[Series<'_>]) {
    svg.title((LEFT, top - 14.0), title);
    let mut at = WIDTH - RIGHT;
    for series in all.iter().rev() {
        at -= series.name.len() as f64 * 7.2 + 30.0;
        svg.block((at, top - 22.0), (14.0, 4.0), series.colour);
        svg.text((at + 19.0, top - 15.0), Anchor::Start, INK, series.name);
    }
}

/// As short as it can be said.
fn number(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    if rounded >= 10_000.0 {
        format!("{}k", rounded / 1_000.0)
    } else {
        format!("{rounded}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn slots_are_merged_without_losing_any() {
        let points = by_time(&[1, 2, 3, 4, 5], 2, 7);
        assert_eq!(
            points,
            vec![
                (0.0, 3.0),
                (0.2, 7.0),
                (0.4, 5.0),
                (0.6000000000000001, 0.0)
            ]
        );
    }

    #[test]
    fn a_curve_says_no_more_nines_than_were_measured() {
        let mut latency = Latency::default();
        for ms in 1..=100 {
            latency.record(Duration::from_millis(ms));
        }
        let curve = nines(&latency);
        assert!(
            (curve[curve.len() - 1].0 - 2.0).abs() < 1e-9,
            "100 latencies are two nines"
        );
        assert!(curve.is_sorted_by(|a, b| a.1 <= b.1));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [number(0.1), number(20.0), number(50_000.0)],
            ["0.1", "20", "50k"]
        );
    }
}
