//! Reservations through the embedded engine: many in one group commit, or one transaction each.

use std::path::Path;
use std::sync::Arc;

use engine::embedded::{Embedded, Options};
use engine::{SharedEngine, Stock as _, SystemClock};

use super::report::{Comparison, Measured, Way};
use super::{Failure, Measuring, buyers};

/// Most requests in one transaction when they are grouped.
const GROUPED: usize = 1_024;

/// What was measured so far.
pub struct Rounds(Comparison);

impl Rounds {
    /// Nothing yet.
    pub fn new(measuring: &Measuring) -> Self {
        Self(Comparison::new(
            format!(
                "reservations, embedded, synchronous=FULL, {} callers",
                measuring.callers
            ),
            vec![
                Way::new("group commit", measuring.orders).at_least_per_second(20_000.0),
                Way::new("one transaction each", measuring.few()).beaten_by(30.0),
            ],
        ))
    }

    /// Measures each way once.
    pub async fn round(&mut self, measuring: &Measuring) -> Result<(), Failure> {
        for (way, batch_max) in self.0.ways.iter_mut().zip([GROUPED, 1]) {
            let callers = measuring.callers;
            way.add(measure(&measuring.folder, way.orders, callers, batch_max).await?);
        }
        Ok(())
    }

    /// The comparison.
    pub fn end(self) -> Vec<Comparison> {
        vec![self.0]
    }
}

async fn measure(
    folder: &Path,
    orders: usize,
    callers: usize,
    batch_max: usize,
) -> Result<Measured, Failure> {
    let directory = tempfile::tempdir_in(folder)?;
    let path = directory.path().join("engine.db");
    let open = |batch_max| {
        let options = Options {
            stream_max: u64::MAX,
            batch_max,
            ..Options::default()
        };
        Embedded::open(&path, Arc::new(SystemClock), options).map(Arc::new)
    };
    // Everyone comes in by group commits, whatever is measured.
    let engine = open(GROUPED)?;
    let shared: SharedEngine = engine.clone();
    let requests = buyers::admit(&shared, orders).await?;
    drop(shared);
    engine.close().await;
    drop(engine);
    let engine = open(batch_max)?;
    let reserving = engine.clone();
    let seconds = buyers::race(requests, callers, move |_, request| {
        let engine = reserving.clone();
        async move { Ok(engine.reserve(request).await.map(drop)?) }
    })
    .await?;
    let shared: SharedEngine = engine.clone();
    buyers::check(&shared, orders).await?;
    engine.close().await;
    Ok(Measured::new(orders, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn both_ways_do_the_whole_work() {
        let folder = tempfile::tempdir().unwrap();
        let mut rounds = Rounds::new(&Measuring::small(folder.path()));
        rounds
            .round(&Measuring::small(folder.path()))
            .await
            .unwrap();
        assert!(rounds.end()[0].is_whole(1));
    }
}
