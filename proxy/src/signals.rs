//! What the engine tells every edge at once. A signal says where to look again, and no more: an edge that
//! hears none learns the same a little later, by asking.

use std::sync::Arc;

use engine::Signal;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::edge::Edge;
use crate::sold_out::Sold;

/// Takes signals in until the task is dropped.
pub(crate) async fn follow(edge: Arc<Edge>, mut signals: Receiver<Signal>) {
    loop {
        match signals.recv().await {
            Ok(signal) => take(&edge, signal),
            Err(RecvError::Lagged(count)) => {
                tracing::debug!(count, "signals came too fast");
                take(&edge, Signal::Missed);
            }
            // The engine is gone, and the edge with it.
            Err(RecvError::Closed) => return,
        }
    }
}

fn take(edge: &Edge, signal: Signal) {
    edge.metrics.signal(match signal {
        Signal::Sold { .. } => "sold",
        Signal::Promo(_) => "promo",
        Signal::Item(_) => "item",
        Signal::Missed => "missed",
    });
    match signal {
        Signal::Sold {
            promo,
            generation,
            epoch,
            sold_out,
        } => edge.promos.sold(Sold {
            promo,
            generation,
            epoch,
            sold_out,
        }),
        Signal::Promo(_) => edge.promos.poll_soon(),
        Signal::Item(id) => edge.items.changed(id),
        Signal::Missed => {
            edge.promos.poll_soon();
            edge.items.all_are_due();
        }
    }
}
