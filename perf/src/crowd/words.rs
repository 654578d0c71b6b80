//! The report as a person reads it.

use std::fmt;

use super::report::{CutOff, Report};
use super::timeline::Rate;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.funnel(f)?;
        self.refused(f)?;
        self.speed(f)?;
        self.latency(f)?;
        self.generator(f)?;
        self.verdict(f)
    }
}

impl Report {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (set, machine) = (&self.settings, &self.machine);
        writeln!(
            f,
            "{} buyers at {}, promo {}",
            set.buyers, set.url, set.promo
        )?;
        writeln!(
            f,
            "  seed {} (--seed {} plays the same crowd again)",
            set.seed, set.seed
        )?;
        writeln!(
            f,
            "  {} · {}, {} cores, {} MiB, Linux {}",
            self.date, machine.cpu, machine.cores, machine.memory_mib, machine.kernel
        )?;
        match self.cut_off {
            Some(CutOff::TimeLimit) => writeln!(f, "  cut off by the time limit")?,
            Some(CutOff::Interrupted) => writeln!(f, "  interrupted")?,
            None => {}
        }
        writeln!(f, "  took {:.1} s\n", self.took_s)
    }

    fn funnel(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let funnel = &self.funnel;
        writeln!(f, "Funnel")?;
        for (what, count) in [
            ("arrived", funnel.arrived),
            ("asked for a token", funnel.asked),
            ("got a challenge", funnel.challenged),
            ("admitted", funnel.admitted),
            ("reserved (202)", funnel.reserved),
            ("  units", funnel.units),
            ("written", funnel.written),
            ("paid", funnel.paid),
            ("expired", funnel.expired),
        ] {
            writeln!(f, "  {what:<24}{count:>9}")?;
        }
        writeln!(f, "\nWhat became of each buyer")?;
        for (outcome, count) in &self.outcomes {
            writeln!(f, "  {outcome:<40}{count:>9}")?;
        }
        if !self.standing.is_empty() {
            writeln!(f, "\nOrders not seen paid, at the last look")?;
            for (state, count) in &self.standing {
                writeln!(f, "  {state:<40}{count:>9}")?;
            }
        }
        writeln!(f)
    }

    fn refused(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Refusals")?;
        if self.refusals.is_empty() {
            writeln!(f, "  none")?;
        }
        for refused in &self.refusals {
            writeln!(
                f,
                "  {:<10} {:>3} {:>5} {:<20}{:>9}",
                refused.step.name(),
                refused.status,
                refused.err_code,
                refused.name,
                refused.count
            )?;
        }
        if !self.unanswered.is_empty() {
            writeln!(f, "\nRequests without an answer")?;
            for lost in &self.unanswered {
                writeln!(
                    f,
                    "  {:<10} {:<30}{:>9}",
                    lost.step.name(),
                    lost.why.words(),
                    lost.count
                )?;
            }
        }
        writeln!(f)
    }

    fn speed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Speed{:>31}{:>12}{:>12}{:>16}",
            "count", "over", "a second", "busiest second"
        )?;
        let row = |f: &mut fmt::Formatter<'_>, what: &str, rate: &Rate| {
            writeln!(
                f,
                "  {what:<25}{:>9}{:>10.1} s{:>12.0}{:>16}",
                rate.count, rate.span_s, rate.per_second, rate.busiest_second
            )
        };
        let rates = &self.rates;
        row(f, "accepted orders", &rates.accepted)?;
        row(f, "persisted (seen written)", &rates.persisted)?;
        row(f, "paid", &rates.paid)?;
        row(f, "admitted (tokens)", &rates.admitted)?;
        row(f, "rejected requests", &rates.refused)?;
        row(f, "all answers", &rates.answered)?;
        writeln!(f)
    }

    fn latency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Latency in ms, from the moment the buyer meant to send")?;
        writeln!(
            f,
            "  {:<22}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "", "count", "50 %", "90 %", "99 %", "99.9 %", "max"
        )?;
        for row in &self.latencies {
            let told = &row.percentiles;
            writeln!(
                f,
                "  {:<22}{:>9}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
                row.what,
                told.count,
                told.p50_ms,
                told.p90_ms,
                told.p99_ms,
                told.p999_ms,
                told.max_ms
            )?;
        }
        writeln!(f)
    }

    fn generator(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = &self.generator;
        writeln!(f, "The generator itself")?;
        if let Some(effort) = own.effort {
            writeln!(
                f,
                "  {:.1} s of processor time; each thread busy {:.0} % (busiest second {:.0} %), \
                 without a core {:.0} %",
                effort.cpu_s,
                effort.busy * 100.0,
                effort.busiest_second * 100.0,
                effort.without_core * 100.0
            )?;
        }
        if let Some(ceiling) = own.ceiling {
            writeln!(
                f,
                "  ceiling {:.0} exchanges/s a thread against a bare responder, {:.1} us of \
                 processor time each; this run's busiest second: {:.0} %",
                ceiling.per_second,
                ceiling.cpu_us_per_exchange,
                own.of_ceiling.unwrap_or(0.0) * 100.0
            )?;
        }
        let late = &own.lateness;
        writeln!(
            f,
            "  requests sent late by {:.2} ms (50 %), {:.2} ms (99 %), {:.2} ms at most",
            late.p50_ms, late.p99_ms, late.max_ms
        )?;
        for mark in &own.marks {
            writeln!(f, "  MARKED: {mark}")?;
        }
        writeln!(f)
    }

    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.broken_count > 0 {
            writeln!(
                f,
                "BROKEN PROMISES seen by the crowd: {}",
                self.broken_count
            )?;
            for words in &self.broken {
                writeln!(f, "  {words}")?;
            }
        } else {
            writeln!(f, "The crowd saw no promise broken.")?;
        }
        if let Some(why) = &self.audit_failed {
            writeln!(f, "Audit: not to be had: {why}")?;
        }
        let Some(audit) = &self.audit else {
            return Ok(());
        };
        let verdict = if audit.clean {
            "the books balance"
        } else {
            "THE BOOKS DO NOT BALANCE"
        };
        writeln!(f, "Audit: {verdict}.")?;
        let promos = audit
            .rest
            .get("promos")
            .and_then(serde_json::Value::as_array);
        for promo in promos.into_iter().flatten() {
            let (id, generation) = (&promo["promoId"], &promo["generation"]);
            writeln!(
                f,
                "  promo {id}, generation {generation}: {}",
                promo["books"]
            )?;
            for fault in promo["faults"].as_array().into_iter().flatten() {
                writeln!(
                    f,
                    "    {}",
                    fault.as_str().unwrap_or("a fault without words")
                )?;
            }
        }
        Ok(())
    }
}
