//! Two sweepers of a simulated sale, each as a process of its own would have it, and the question whether
//! one that was replaced still ended an order.

use std::sync::{Arc, Mutex};

use engine::{Fence, Promos as _};

use super::house::House;
use super::invariants::{Check, Invariant, demand};
use super::line::Line;
use super::requests::{Said, Work};

/// What the sweepers are called.
pub const SWEEPERS: [&str; 2] = ["a", "b"];

/// Who may sweep.
#[derive(Default, Clone)]
pub struct Watch(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    /// The last number under which anyone began.
    last: Fence,
    broken: Option<String>,
}

impl Watch {
    fn began(&self, fence: Fence) {
        let mut watched = self.0.lock().unwrap();
        watched.last = watched.last.max(fence);
    }

    fn expired(&self, fence: Fence, orders: usize) {
        let mut watched = self.0.lock().unwrap();
        if orders > 0 && fence < watched.last {
            let last = watched.last.0;
            let detail = format!("{orders} ended under {}, after {last} had begun", fence.0);
            watched.broken = Some(detail);
        }
    }

    /// Whether all is well.
    pub fn check(&self) -> Check {
        let broken = self.0.lock().unwrap().broken.clone();
        demand(Invariant::OneSweeper, broken.is_none(), || {
            broken.unwrap_or_default()
        })
    }
}

/// One turn of a sweeper: the lease, the engine's upkeep, a sweep.
pub fn turn(house: &House, line: &Arc<Line>, holder: &str, watch: Watch) -> Work {
    let (sweeper, line) = (house.sweeper(line, holder), line.clone());
    Box::pin(async move {
        let Some(fence) = sweeper.take().await? else {
            return Ok(Said::Done("another sweeps"));
        };
        watch.began(fence);
        line.tend().await?;
        let expired = sweeper.expire(fence).await?;
        watch.expired(fence, expired);
        sweeper.settle().await?;
        Ok(Said::Done("swept"))
    })
}
