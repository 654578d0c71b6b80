//! What several rounds say together.

use serde::Serialize;

/// Lowest, median and highest of the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The lowest.
    pub low: f64,
    /// The median; of an even number of rounds, between the two in the middle.
    pub median: f64,
    /// The highest.
    pub high: f64,
}

impl Spread {
    /// That of some figures; none of no figures.
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (low, high) = (*figures.first()?, *figures.last()?);
        let upper = figures.len() / 2;
        let lower = (figures.len() - 1) / 2;
        let median = f64::midpoint(figures[lower], figures[upper]);
        Some(Self { low, median, high })
    }
}

/// The median.
pub fn median(figures: &[f64]) -> f64 {
    Spread::of(figures.to_vec()).map_or(f64::NAN, |spread| spread.median)
}
