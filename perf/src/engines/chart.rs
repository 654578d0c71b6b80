//! The picture: for each comparison a bar a way, with the median rate and how many times as much ours does.

use super::report::{Comparison, Report, Way};
use crate::spread::median;
use crate::svg::{Anchor, BAR_ROW, BARS_WIDTH, Svg};

/// The chart as SVG.
pub fn draw(report: &Report) -> String {
    let rows: usize = report.comparisons.iter().map(|each| each.ways.len()).sum();
    let height = 70.0 + BAR_ROW * rows as f64 + 46.0 * report.comparisons.len() as f64;
    let mut svg = Svg::new(BARS_WIDTH, height);
    svg.title(
        (20.0, 28.0),
        "Orders a second; in brackets, how many times as many Floodgate's way does",
    );
    let rounds = report.fsync_ms.len();
    let caption = format!("medians of {rounds} rounds; {}", report.disk());
    svg.text((20.0, 50.0), Anchor::Start, "#666", &caption);
    let mut top = 80.0;
    for each in &report.comparisons {
        top = compare(&mut svg, top, each);
    }
    svg.finish()
}

/// Draws one comparison; returns where the next one begins.
fn compare(svg: &mut Svg, top: f64, each: &Comparison) -> f64 {
    svg.text((20.0, top), Anchor::Start, "#222", &each.what);
    let rates = each.ways.iter().map(|way| median(&way.rates));
    let most = rates.fold(1.0, f64::max);
    for (row, way) in each.ways.iter().enumerate() {
        let (rate, y) = (median(&way.rates), top + 10.0 + BAR_ROW * row as f64);
        svg.bar(y, &way.name, rate / most, row == 0, &words(way, rate));
    }
    top + BAR_ROW * each.ways.len() as f64 + 46.0
}

fn words(way: &Way, rate: f64) -> String {
    let mut words = format!("{}/s", grouped(rate));
    if !way.redis_cpu_us.is_empty() {
        words += &format!(", {:.1} us of Redis", median(&way.redis_cpu_us));
    }
    if let Some(ratio) = way.ratio {
        words += &format!(" ({:.1} x)", ratio.median);
    }
    words
}

/// A number with a comma before each three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut words = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_grouped() {
        for (number, right) in [(7.0, "7"), (999.6, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(grouped(number), right);
        }
    }
}
