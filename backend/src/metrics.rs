//! Every metric of this crate, by name. Labels are only `promo`, `route` and `outcome`, whose values
//! come from tables and verified tokens, never from the text of a request.

use std::time::Duration;

use engine::Backlog;
use lua_free_rules::units::{PromoId, Timestamp};
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::error::{BackendError, Result};

const REQUESTS: &str = "floodgate_backend_requests_total";
const REQUEST_SECONDS: &str = "floodgate_backend_request_duration_seconds";
const RESERVATIONS: &str = "floodgate_backend_reservations_total";
const CONNECTIONS: &str = "floodgate_backend_connections";
const EVENTS: &str = "floodgate_writer_events_total";
const BATCH_SECONDS: &str = "floodgate_writer_batch_duration_seconds";
const WRITER_RETRIES: &str = "floodgate_writer_retries_total";
const STREAM_ENTRIES: &str = "floodgate_stream_entries";
const STREAM_AGE: &str = "floodgate_stream_oldest_age_seconds";
const DEAD_LETTERS: &str = "floodgate_stream_dead_letters";
const REBUILDS: &str = "floodgate_engine_rebuilds_total";
const SWEPT: &str = "floodgate_sweeper_orders_total";
const SWEEPING: &str = "floodgate_sweeper_has_lease";
const ITEM_COPIES: &str = "floodgate_backend_item_copies_total";
const PAYMENTS: &str = "floodgate_payments_total";

/// Seconds; from a reservation in memory to a request that waited for the database.
const BUCKETS: [f64; 12] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// The metrics of one process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    reservations: IntCounterVec,
    connections: IntGauge,
    events: IntCounterVec,
    batch_seconds: Histogram,
    writer_retries: IntCounterVec,
    stream_entries: IntGauge,
    stream_age: IntGauge,
    dead_letters: IntGauge,
    rebuilds: prometheus::IntCounter,
    swept: IntCounterVec,
    sweeping: IntGauge,
    item_copies: IntCounterVec,
    payments: IntCounterVec,
}

impl Metrics {
    /// A set of its own, all at zero.
    ///
    /// # Errors
    /// If a name is taken twice.
    pub fn new() -> Result<Self> {
        Self::register().map_err(|error| BackendError::Unexpected(format!("metrics: {error}")))
    }

    fn register() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |name, help, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let request_seconds = HistogramVec::new(
            HistogramOpts::new(REQUEST_SECONDS, "Time to answer a request.")
                .buckets(BUCKETS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(request_seconds.clone()))?;
        let batch_seconds = Histogram::with_opts(
            HistogramOpts::new(BATCH_SECONDS, "Time to write a batch of events.")
                .buckets(BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(batch_seconds.clone()))?;
        Ok(Self {
            requests: counters(REQUESTS, "Requests answered.", &["route", "outcome"])?,
            reservations: counters(
                RESERVATIONS,
                "Requests to reserve, by what came of them.",
                &["promo", "outcome"],
            )?,
            connections: gauge(CONNECTIONS, "Open connections.")?,
            events: counters(
                EVENTS,
                "Stream entries, by what became of them.",
                &["outcome"],
            )?,
            writer_retries: counters(
                WRITER_RETRIES,
                "Times the order writer had to wait and try again.",
                &["outcome"],
            )?,
            stream_entries: gauge(STREAM_ENTRIES, "Events that wait for the ledger.")?,
            stream_age: gauge(STREAM_AGE, "Age of the oldest event that waits.")?,
            dead_letters: gauge(DEAD_LETTERS, "Events that were set aside.")?,
            rebuilds: {
                let rebuilds = prometheus::IntCounter::new(
                    REBUILDS,
                    "Times this process rebuilt an engine from the ledger.",
                )?;
                registry.register(Box::new(rebuilds.clone()))?;
                rebuilds
            },
            swept: counters(
                SWEPT,
                "Orders ended or released by the sweeper.",
                &["outcome"],
            )?,
            sweeping: gauge(SWEEPING, "1 where this process is the one that sweeps.")?,
            item_copies: counters(
                ITEM_COPIES,
                "Shared copies of items: `hit`, `miss`, or `failed` to be reached.",
                &["outcome"],
            )?,
            payments: counters(
                PAYMENTS,
                "Notices of payment, by what became of them.",
                &["outcome"],
            )?,
            registry,
            request_seconds,
            batch_seconds,
        })
    }

    pub(crate) fn request(&self, route: &str, outcome: &str, took: Duration) {
        self.requests.with_label_values(&[route, outcome]).inc();
        self.request_seconds
            .with_label_values(&[route])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn reservation(&self, promo: PromoId, outcome: &str) {
        self.reservations
            .with_label_values(&[promo.to_string().as_str(), outcome])
            .inc();
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    pub(crate) fn events(&self, outcome: &str, count: usize) {
        self.events
            .with_label_values(&[outcome])
            .inc_by(count as u64);
    }

    pub(crate) fn batch(&self, took: Duration) {
        self.batch_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn writer_retry(&self, outcome: &str) {
        self.writer_retries.with_label_values(&[outcome]).inc();
    }

    #[cfg(test)]
    pub(crate) fn retries(&self, outcome: &str) -> u64 {
        self.writer_retries.with_label_values(&[outcome]).get()
    }

    pub(crate) fn engine_rebuilt(&self) {
        self.rebuilds.inc();
    }

    pub(crate) fn swept(&self, outcome: &str, count: usize) {
        self.swept
            .with_label_values(&[outcome])
            .inc_by(count as u64);
    }

    pub(crate) fn sweeping(&self, has_lease: bool) {
        self.sweeping.set(i64::from(has_lease));
    }

    #[cfg(test)]
    pub(crate) fn is_sweeping(&self) -> bool {
        self.sweeping.get() == 1
    }

    pub(crate) fn item_copy(&self, outcome: &str) {
        self.item_copies.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn payment(&self, outcome: &str) {
        self.payments.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn backlog(&self, backlog: &Backlog, now: Timestamp) {
        let age_ms = backlog
            .oldest
            .map_or(0, |oldest| now.ms_since(oldest).max(0));
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.stream_entries.set(count(backlog.entries));
        self.stream_age.set(age_ms / 1_000);
        self.dead_letters.set(count(backlog.dead_letters));
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn text(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .map_err(|error| BackendError::Unexpected(format!("metrics: {error}")))?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_was_counted() {
        let metrics = Metrics::new().unwrap();
        metrics.reservation(PromoId(7), "made");
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(
            text.contains(r#"floodgate_backend_reservations_total{outcome="made",promo="7"} 1"#)
        );
    }
}
