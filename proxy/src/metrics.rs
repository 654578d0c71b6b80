//! Every metric of the edge, by name. Labels: promo, route, outcome, upstream.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::tally;

/// Seconds; from an answer out of memory to an order server at its limit.
const DURATION_BUCKETS: [f64; 10] = [
    0.000_1, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0,
];

/// The edge's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    answers: IntCounterVec,
    durations: HistogramVec,
    /// Requests being worked on.
    pub in_flight: IntGauge,
    upstream_requests: IntCounterVec,
    upstream_failures: IntCounterVec,
    upstream_healthy: IntGaugeVec,
    upstream_in_flight: IntGaugeVec,
    item_lookups: IntCounterVec,
    /// Item details looked up and found fresh.
    pub item_lookups_fresh: IntCounter,
    item_refreshes: IntCounterVec,
    signals: IntCounterVec,
    tokens_issued: IntCounterVec,
    challenges_issued: IntCounterVec,
    /// Requests sent again to another order server.
    pub retries: IntCounter,
    /// Threads that take no more connections, though the edge is open.
    pub threads_lost: IntCounter,
    /// Connections to the public listener.
    pub connections: IntGauge,
    /// Connections that were closed at once, for there were too many.
    pub connections_refused: IntCounter,
    /// Pictures in stock.
    pub images_ready: IntGauge,
    /// Proof-of-work puzzles in stock.
    pub proofs_ready: IntGauge,
    /// Keys that the rate limits remember.
    pub limit_keys: IntGauge,
    /// How old the engine's word on the promos is.
    pub promos_age_ms: IntGauge,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["upstream"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "floodgate_edge_request_duration_seconds",
                "From the request's header to the end of its answer.",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(durations.clone()))?;
        let retries = IntCounter::new(
            "floodgate_edge_upstream_retries_total",
            "Requests sent again to another order server.",
        )?;
        registry.register(Box::new(retries.clone()))?;
        let threads_lost = IntCounter::new(
            "floodgate_edge_threads_lost_total",
            "Threads that take no more connections, though the edge is open.",
        )?;
        registry.register(Box::new(threads_lost.clone()))?;
        let connections_refused = IntCounter::new(
            "floodgate_edge_connections_refused_total",
            "Connections that were closed at once, for there were too many.",
        )?;
        registry.register(Box::new(connections_refused.clone()))?;
        let item_lookups = counters(
            "floodgate_edge_item_lookups_total",
            "Item details looked up: `fresh`, `stale` (served while a refresh is due), `outdated` \
             (fetched again first) or `miss`.",
            &["outcome"],
        )?;
        Ok(Self {
            answers: counters(
                "floodgate_edge_answers_total",
                "Answers to clients; `ok`, a refusal's name, `upstream` for those passed on, \
                 `broken_off` by an order server, or `gone` with the client.",
                &["route", "outcome"],
            )?,
            durations,
            in_flight: gauge(
                "floodgate_edge_requests_in_flight",
                "Requests being worked on.",
            )?,
            upstream_requests: counters(
                "floodgate_edge_upstream_requests_total",
                "Requests sent to an order server, retries included.",
                &["upstream", "route"],
            )?,
            upstream_failures: counters(
                "floodgate_edge_upstream_failures_total",
                "Requests that an order server did not answer.",
                &["upstream"],
            )?,
            upstream_healthy: gauges(
                "floodgate_edge_upstream_healthy",
                "1 if the order server is in rotation.",
            )?,
            upstream_in_flight: gauges(
                "floodgate_edge_upstream_in_flight",
                "Requests in flight to the order server.",
            )?,
            item_lookups_fresh: item_lookups.with_label_values(&["fresh"]),
            item_lookups,
            item_refreshes: counters(
                "floodgate_edge_item_refreshes_total",
                "Item details asked of an order server.",
                &["outcome"],
            )?,
            signals: counters(
                "floodgate_edge_signals_total",
                "What the engine told at once: `sold`, `promo`, `item`, or `missed`.",
                &["outcome"],
            )?,
            tokens_issued: counters(
                "floodgate_edge_tokens_issued_total",
                "Access tokens given out, those given again included.",
                &["promo"],
            )?,
            challenges_issued: counters(
                "floodgate_edge_challenges_issued_total",
                "Challenges given out.",
                &["promo"],
            )?,
            retries,
            threads_lost,
            connections: gauge(
                "floodgate_edge_connections",
                "Connections to the public listener.",
            )?,
            connections_refused,
            images_ready: gauge("floodgate_edge_images_ready", "Pictures in stock.")?,
            proofs_ready: gauge(
                "floodgate_edge_proofs_ready",
                "Proof-of-work puzzles in stock.",
            )?,
            limit_keys: gauge(
                "floodgate_edge_limit_keys",
                "Addresses and buyers that the rate limits remember.",
            )?,
            promos_age_ms: gauge(
                "floodgate_edge_promos_age_milliseconds",
                "How old the engine's word on the promos is.",
            )?,
            registry,
        })
    }

    /// An answer was sent.
    pub fn answer(&self, route: &'static str, outcome: &'static str, duration_s: f64) {
        if !tally::answer(route, outcome, duration_s) {
            let (answers, durations) = self.series(route, outcome);
            answers.inc();
            durations.observe(duration_s);
        }
    }

    /// The series of a route and an outcome.
    pub fn series(&self, route: &str, outcome: &str) -> (IntCounter, Histogram) {
        let answers = self.answers.with_label_values(&[route, outcome]);
        (answers, self.durations.with_label_values(&[route]))
    }

    /// A request goes to an order server.
    pub fn upstream_request(&self, upstream: &str, route: &str) {
        self.upstream_requests
            .with_label_values(&[upstream, route])
            .inc();
    }

    /// An order server did not answer.
    pub fn upstream_failure(&self, upstream: &str) {
        self.upstream_failures.with_label_values(&[upstream]).inc();
    }

    /// How an order server is.
    pub fn upstream_state(&self, upstream: &str, healthy: bool, in_flight: u32) {
        let labels = &[upstream];
        self.upstream_healthy
            .with_label_values(labels)
            .set(i64::from(healthy));
        self.upstream_in_flight
            .with_label_values(labels)
            .set(i64::from(in_flight));
    }

    /// Item details were looked up and found fresh.
    pub fn fresh_item(&self) {
        if !tally::fresh_item() {
            self.item_lookups_fresh.inc();
        }
    }

    /// Item details were looked up.
    pub fn item_lookup(&self, outcome: &str) {
        self.item_lookups.with_label_values(&[outcome]).inc();
    }

    /// An order server was asked for item details.
    pub fn item_refresh(&self, outcome: &str) {
        self.item_refreshes.with_label_values(&[outcome]).inc();
    }

    /// The engine told something.
    pub fn signal(&self, outcome: &str) {
        self.signals.with_label_values(&[outcome]).inc();
    }

    /// An access token was given out.
    pub fn token_issued(&self, promo: &str) {
        self.tokens_issued.with_label_values(&[promo]).inc();
    }

    /// A challenge was given out.
    pub fn challenge_issued(&self, promo: &str) {
        self.challenges_issued.with_label_values(&[promo]).inc();
    }

    /// Everything, in Prometheus' text format.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}
