//! The picture: for each comparison two bars, grouped and one transaction each.

use super::{Comparison, median};
use crate::svg::{Anchor, Svg};

const WIDTH: f64 = 720.0;
const BAR: f64 = 26.0;
const LEFT: f64 = 190.0;
const SPACE: f64 = 420.0;
const GROUPED: &str = "#0d6e68";
const SINGLE: &str = "#c9a227";

/// The chart as SVG.
pub fn draw(comparisons: &[Comparison]) -> String {
    let height = 50.0 + 110.0 * comparisons.len() as f64;
    let mut svg = Svg::new(WIDTH, height);
    svg.title(
        (20.0, 28.0),
        "Grouped commits against one transaction each, operations a second",
    );
    for (index, each) in comparisons.iter().enumerate() {
        let top = 56.0 + 110.0 * index as f64;
        svg.text((20.0, top + 4.0), Anchor::Start, "#222", &each.what);
        let most = median(&each.grouped).max(median(&each.single)).max(1.0);
        for (row, (name, rates, colour)) in [
            ("grouped", &each.grouped, GROUPED),
            ("one transaction each", &each.single, SINGLE),
        ]
        .into_iter()
        .enumerate()
        {
            let (rate, y) = (median(rates), top + 14.0 + (BAR + 6.0) * row as f64);
            let long = (rate / most * SPACE).max(1.0);
            svg.text((LEFT - 10.0, y + 18.0), Anchor::End, "#444", name);
            svg.block((LEFT, y), (long, BAR), colour);
            svg.text(
                (LEFT + long + 8.0, y + 18.0),
                Anchor::Start,
                "#222",
                &format!("{rate:.0}"),
            );
        }
    }
    svg.finish()
}
