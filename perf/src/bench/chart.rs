//! The picture: for each table a bar a server, with the processor time of a request; then how long 99 of 100
//! answers took at a steady rate.

use super::crowded::Crowded;
use super::latency::Latencies;
use super::report::{Measured, Report, Table};
use crate::spread::median;
use crate::svg::{Anchor, BAR_ROW, BARS_WIDTH, Svg};

const GAP: f64 = 46.0;
const HEAD: f64 = 52.0;

/// Bars that are compared with the first of them.
struct Group {
    words: String,
    bars: Vec<Bar>,
}

struct Bar {
    name: String,
    is_ours: bool,
    length: f64,
    words: String,
}

/// The chart as SVG.
pub fn draw(report: &Report) -> String {
    let measured = &report.measured;
    let times: Vec<Group> = measured.all().map(times).collect();
    let waits = waits(measured);
    let groups = times.iter().chain(&waits);
    let height: f64 = groups
        .map(|group| GAP + BAR_ROW * group.bars.len() as f64)
        .sum();
    let head = if waits.is_empty() { 0.0 } else { HEAD };
    let mut svg = Svg::new(BARS_WIDTH, height + head + 70.0);
    svg.title(
        (20.0, 28.0),
        "Processor time of the server for a request, in microseconds: less is better",
    );
    let caption = format!(
        "medians of {} rounds; {}",
        report.rounds, report.machine.cpu
    );
    svg.text((20.0, 50.0), Anchor::Start, "#666", &caption);
    let mut top = 80.0;
    for group in &times {
        top = compare(&mut svg, top, group);
    }
    if !waits.is_empty() {
        let words = "99 of 100 answers within so many milliseconds of when their request was due";
        svg.title((20.0, top), &format!("{words}: less is better"));
        top += HEAD - 20.0;
    }
    for group in &waits {
        top = compare(&mut svg, top, group);
    }
    svg.finish()
}

fn times(table: &Table) -> Group {
    let (connections, workers) = (table.connections, table.workers);
    let bars = table.rows.iter().enumerate().map(|(index, row)| {
        let time = median(&row.cpu_us);
        let ratio = row
            .ratio
            .map_or_else(String::new, |ratio| format!(" ({:.2} x)", ratio.median));
        Bar {
            name: row.peer.to_owned(),
            is_ours: index == 0,
            length: time,
            words: format!("{time:.2}{ratio}"),
        }
    });
    Group {
        words: format!(
            "{}, {connections} connections, workers: {workers}",
            table.work
        ),
        bars: bars.collect(),
    }
}

fn waits(measured: &Measured) -> Vec<Group> {
    let bar = |name: String, is_ours: bool, latencies: &Latencies| {
        let length = median(&latencies.p99_ms);
        let mark = if latencies.marked > 0 {
            " (marked)"
        } else {
            ""
        };
        Bar {
            name,
            is_ours,
            length,
            words: format!("{length:.3}{mark}"),
        }
    };
    let steady = measured.steady.iter().map(|steady| {
        let rows = steady.rows.iter().enumerate();
        Group {
            words: format!(
                "{} at {:.0}/s, {} connections, workers: 1",
                steady.work, steady.rate, steady.connections
            ),
            bars: rows
                .map(|(index, row)| bar(row.peer.to_owned(), index == 0, &row.latencies))
                .collect(),
        }
    });
    let crowded = measured.crowded.first().map(|first| {
        let all = measured.crowded.iter().enumerate();
        let bars = all.flat_map(
            |(
                index,
                Crowded {
                    peer,
                    alone,
                    beside,
                    ..
                },
            )| {
                [
                    bar(format!("{peer}, alone"), index == 0, alone),
                    bar(format!("{peer}, beside them"), index == 0, beside),
                ]
            },
        );
        Group {
            words: format!(
                "{} busy connections at {:.0}/s, alone and beside {} idle ones",
                first.busy, first.rate, first.idle
            ),
            bars: bars.collect(),
        }
    });
    steady.chain(crowded).collect()
}

/// Draws one group; returns where the next one begins.
fn compare(svg: &mut Svg, top: f64, group: &Group) -> f64 {
    svg.text((20.0, top), Anchor::Start, "#222", &group.words);
    let lengths = group.bars.iter().map(|bar| bar.length);
    let most = lengths.fold(0.001, f64::max);
    for (index, bar) in group.bars.iter().enumerate() {
        let y = top + 10.0 + BAR_ROW * index as f64;
        svg.bar(y, &bar.name, bar.length / most, bar.is_ours, &bar.words);
    }
    top + BAR_ROW * group.bars.len() as f64 + GAP
}
