//! What was measured, told: ways of doing the same work, round by round, and how many times as much
//! Floodgate's way does as each other one.

use serde::Serialize;

use crate::machine::Machine;
use crate::spread::{Spread, median};

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The command that made it.
    pub command: String,
    /// The machine it was made on.
    pub machine: Machine,
    /// How long a small durable write takes in the same folder, in each round, in milliseconds.
    pub fsync_ms: Vec<f64>,
    /// Whether the tool was built with optimisation.
    pub is_release: bool,
    /// What was compared.
    pub comparisons: Vec<Comparison>,
}

/// The same work in several ways.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// What is done.
    pub what: String,
    /// Floodgate's way, then the others.
    pub ways: Vec<Way>,
}

/// One way.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Way {
    /// What it is called.
    pub name: String,
    /// Orders in one measurement.
    pub orders: usize,
    /// Orders a second, in each round.
    pub rates: Vec<f64>,
    /// Processor time of Redis for each order in microseconds, in each round; empty where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redis_cpu_us: Vec<f64>,
    /// How many times as much Floodgate's way did; absent for that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_cpu_us_max: Option<f64>,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    rate: f64,
    redis_cpu_us: Option<f64>,
}

impl Measured {
    /// So many orders in so long.
    pub fn new(orders: usize, seconds: f64) -> Self {
        Self {
            rate: orders as f64 / seconds,
            redis_cpu_us: None,
        }
    }

    /// And what Redis took for each of them.
    pub const fn with_redis(mut self, cpu_us: f64) -> Self {
        self.redis_cpu_us = Some(cpu_us);
        self
    }
}

impl Way {
    /// A way that is measured with so many orders.
    pub fn new(name: impl Into<String>, orders: usize) -> Self {
        Self {
            name: name.into(),
            orders,
            ..Self::default()
        }
    }

    /// The goal: Floodgate's way does at least so many times as much as this one.
    pub const fn beaten_by(mut self, times: f64) -> Self {
        self.ratio_min = Some(times);
        self
    }

    /// The goal: so many orders a second.
    pub const fn at_least_per_second(mut self, rate: f64) -> Self {
        self.rate_min = Some(rate);
        self
    }

    /// The goal: Redis takes no more microseconds for an order.
    pub const fn at_most_of_redis(mut self, cpu_us: f64) -> Self {
        self.redis_cpu_us_max = Some(cpu_us);
        self
    }

    /// Adds a round.
    pub fn add(&mut self, measured: Measured) {
        self.rates.push(measured.rate);
        self.redis_cpu_us.extend(measured.redis_cpu_us);
    }
}

impl Comparison {
    /// A comparison of ways that are yet to be measured.
    pub fn new(what: impl Into<String>, ways: Vec<Way>) -> Self {
        let what = what.into();
        Self { what, ways }
    }

    /// Works the ratios out, each round on its own.
    pub fn finish(&mut self) {
        let Some((ours, others)) = self.ways.split_first_mut() else {
            return;
        };
        for way in others {
            let rounds = ours.rates.iter().zip(&way.rates);
            way.ratio = Spread::of(rounds.map(|(ours, theirs)| ours / theirs).collect());
        }
    }

    /// Whether every way was measured so often, and did something.
    #[cfg(test)]
    pub fn is_whole(&self, rounds: usize) -> bool {
        let mut ways = self.ways.iter();
        ways.all(|way| way.rates.len() == rounds && way.rates.iter().all(|rate| *rate > 0.0))
    }

    fn told(&self) -> String {
        let mut text = format!("{}\n", self.what);
        for way in &self.ways {
            let cpu = Spread::of(way.redis_cpu_us.clone());
            let cpu = cpu.map_or_else(String::new, |cpu| format!("{:>6.2} us", cpu.median));
            text += &format!(
                "  {:<32}{:>9.0}/s{cpu:>10}   (rounds: {})\n",
                way.name,
                median(&way.rates),
                listed(&way.rates)
            );
        }
        let ours = self.ways.first().map_or("", |way| way.name.as_str());
        for way in &self.ways {
            if let Some(ratio) = way.ratio {
                let goal = goal(way.ratio_min, |least| {
                    (format!("at least {least} x"), ratio.median >= least)
                });
                text += &format!(
                    "  {ours} / {}: {:.1} x ({:.1} to {:.1}){goal}\n",
                    way.name, ratio.median, ratio.low, ratio.high
                );
            }
            if let Some(least) = way.rate_min {
                let goal = goal(Some(least), |least| {
                    (format!("at least {least}/s"), median(&way.rates) >= least)
                });
                text += &format!("  {}: {:.0}/s{goal}\n", way.name, median(&way.rates));
            }
            if let Some((most, cpu)) = way
                .redis_cpu_us_max
                .zip(Spread::of(way.redis_cpu_us.clone()))
            {
                let goal = goal(Some(most), |most| {
                    (format!("at most {most} us"), cpu.median <= most)
                });
                text += &format!(
                    "  {}, Redis CPU each: {:.2} us ({:.2} to {:.2}){goal}\n",
                    way.name, cpu.median, cpu.low, cpu.high
                );
            }
        }
        text
    }
}

impl Report {
    /// In words.
    pub fn told(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{}\n{}, {} cores, Linux {}, {} build\n{}\n(rounds: {})\n",
            self.command,
            machine.cpu,
            machine.cores,
            machine.kernel,
            if self.is_release { "release" } else { "dev" },
            self.disk(),
            self.fsync_ms
                .iter()
                .map(|ms| format!("{ms:.2}"))
                .collect::<Vec<_>>()
                .join(", ")
        );
        for each in &self.comparisons {
            text.push('\n');
            text += &each.told();
        }
        text
    }

    /// What the disk was like.
    pub fn disk(&self) -> String {
        Spread::of(self.fsync_ms.clone()).map_or_else(String::new, |ms| {
            format!(
                "the disk in the same run: 4 KiB appended and synced in {:.2} ms ({:.2} to {:.2})",
                ms.median, ms.low, ms.high
            )
        })
    }
}

fn goal(goal: Option<f64>, judge: impl Fn(f64) -> (String, bool)) -> String {
    goal.map(judge).map_or_else(String::new, |(words, is_met)| {
        let met = if is_met { "reached" } else { "MISSED" };
        format!("; goal {words}: {met}")
    })
}

fn listed(rates: &[f64]) -> String {
    let rates: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
    rates.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_number_favours_nobody() {
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
        assert!((median(&[7.0]) - 7.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ratios_are_taken_round_by_round_and_judged_by_their_median() {
        let mut ours = Way::new("ours", 1).at_most_of_redis(3.5);
        let mut missed = Way::new("missed", 1).beaten_by(11.0);
        let mut reached = Way::new("reached", 1).beaten_by(10.0);
        for (rate, other) in [(100.0, 10.0), (300.0, 10.0), (200.0, 40.0)] {
            ours.add(Measured::new(100, 100.0 / rate).with_redis(rate / 60.0));
            missed.add(Measured::new(100, 100.0 / other));
            reached.add(Measured::new(100, 100.0 / other));
        }
        let mut each = Comparison::new("work", vec![ours, missed, reached]);
        each.finish();
        let (low, median, high) = (5.0, 10.0, 30.0);
        let ratio = each.ways[1].ratio.unwrap();
        for (found, right) in [
            (ratio.low, low),
            (ratio.median, median),
            (ratio.high, high),
            (super::median(&each.ways[0].rates), 200.0),
        ] {
            assert!((found - right).abs() < 1e-9, "{found} is not {right}");
        }
        let told = each.told();
        for line in [
            "ours / missed: 10.0 x (5.0 to 30.0); goal at least 11 x: MISSED",
            "ours / reached: 10.0 x (5.0 to 30.0); goal at least 10 x: reached",
            "ours, Redis CPU each: 3.33 us (1.67 to 5.00); goal at most 3.5 us: reached",
        ] {
            assert!(told.contains(line), "{told}");
        }
    }
}
