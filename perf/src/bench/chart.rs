//! The picture: for each table a bar a server, with the processor time of a request.

use super::report::{Report, Table};
use crate::spread::median;
use crate::svg::{Anchor, BAR_ROW, BARS_WIDTH, Svg};

const GAP: f64 = 46.0;

/// The chart as SVG.
pub fn draw(report: &Report) -> String {
    let tables: Vec<&Table> = report.measured.all().collect();
    let rows: usize = tables.iter().map(|table| table.rows.len()).sum();
    let height = 70.0 + BAR_ROW * rows as f64 + GAP * tables.len() as f64;
    let mut svg = Svg::new(BARS_WIDTH, height);
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
    for table in tables {
        top = compare(&mut svg, top, table);
    }
    svg.finish()
}

/// Draws one table; returns where the next one begins.
fn compare(svg: &mut Svg, top: f64, table: &Table) -> f64 {
    let (connections, workers) = (table.connections, table.workers);
    let words = format!(
        "{}, {connections} connections, workers: {workers}",
        table.work
    );
    svg.text((20.0, top), Anchor::Start, "#222", &words);
    let times = table.rows.iter().map(|row| median(&row.cpu_us));
    let most = times.fold(0.001, f64::max);
    for (index, row) in table.rows.iter().enumerate() {
        let (time, y) = (median(&row.cpu_us), top + 10.0 + BAR_ROW * index as f64);
        let ratio = row
            .ratio
            .map_or_else(String::new, |ratio| format!(" ({:.2} x)", ratio.median));
        svg.bar(
            y,
            row.peer,
            time / most,
            index == 0,
            &format!("{time:.2}{ratio}"),
        );
    }
    top + BAR_ROW * table.rows.len() as f64 + GAP
}
