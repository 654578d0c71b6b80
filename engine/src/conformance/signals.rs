//! What nodes tell each other at once: sold out and back, published and steered, an item that changed.

use std::time::Duration;

use lua_free_rules::units::ItemId;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Home;
use super::sale::{PROMO, Sale};
use crate::{Control, Signal};

/// So that a home that tells nothing fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a listener tries whether he is heard.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// A listener that hears what is told from now on: a home may need a moment until it does.
async fn listen<H: Home>(sale: &Sale<H>) -> Receiver<Signal> {
    let mut signals = sale.engine.listen();
    let hears = async {
        loop {
            sale.engine.tell(Signal::Item(ItemId(0))).await.unwrap();
            let heard = tokio::time::timeout(TRY_EVERY, next(&mut signals));
            if heard.await == Ok(Signal::Item(ItemId(0))) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, hears).await.unwrap();
    signals
}

/// The next signal, of which none may be missed.
async fn next(signals: &mut Receiver<Signal>) -> Signal {
    match signals.recv().await {
        Ok(signal) => signal,
        Err(RecvError::Lagged(_)) => Signal::Missed,
        Err(RecvError::Closed) => panic!("the engine tells nothing any more"),
    }
}

/// The next signal that is not one of the listener's own tries.
async fn heard(signals: &mut Receiver<Signal>) -> Signal {
    let wanted = async {
        loop {
            let signal = next(signals).await;
            if signal != Signal::Item(ItemId(0)) {
                return signal;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wanted).await.unwrap()
}

/// Waits for a promo to be told as sold out, or as back; returns its epoch.
async fn sold(signals: &mut Receiver<Signal>, is_out: bool) -> i64 {
    loop {
        match heard(signals).await {
            Signal::Sold {
                promo,
                generation,
                epoch,
                sold_out,
            } => {
                assert_eq!((promo, generation.0, sold_out), (PROMO, 1, is_out));
                return epoch.0;
            }
            Signal::Promo(PROMO) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Whoever listens hears that a promo sold out and that stock came back, each under its epoch.
pub async fn sold_out_and_back_are_told_under_their_epochs<H: Home>() {
    let sale = Sale::<H>::open(|terms| terms.stock = 2).await;
    let mut signals = listen(&sale).await;
    let first = sale.buy(1, 1).await.unwrap();
    assert!(!first.sold_out);
    let last = sale.buy(2, 1).await.unwrap();
    assert!(last.sold_out);
    let out = sold(&mut signals, true).await;
    assert_eq!(out, last.sold_epoch.0);
    sale.home.advance_ms(1_100).await;
    sale.release(&last.reservation).await.unwrap();
    sale.engine.tend().await.unwrap();
    let back = sold(&mut signals, false).await;
    assert!(back > out);
    assert_eq!(sale.promo().await.sold_epoch.0, back);
}

/// Publishing and each steering that changes something is told.
pub async fn publishing_and_steering_are_told<H: Home>() {
    let sale = Sale::<H>::none().await;
    let mut signals = listen(&sale).await;
    sale.publish("a", |_| ()).await.unwrap();
    assert_eq!(heard(&mut signals).await, Signal::Promo(PROMO));
    for control in [
        Control::Pause,
        Control::Resume,
        Control::AddStock(3),
        Control::Close,
    ] {
        sale.engine.control(PROMO, control).await.unwrap();
        let told = heard(&mut signals).await;
        assert_eq!(told, Signal::Promo(PROMO), "{control:?}");
    }
}

/// What one node tells, every listener hears, the one that told it too, in the order it was told.
pub async fn every_listener_hears_what_is_told<H: Home>() {
    let sale = Sale::<H>::none().await;
    let mut listeners = [listen(&sale).await, listen(&sale).await];
    let told = [3, 9, 3].map(|id| Signal::Item(ItemId(id)));
    for signal in told {
        sale.engine.tell(signal).await.unwrap();
    }
    for signals in &mut listeners {
        for signal in told {
            assert_eq!(heard(signals).await, signal);
        }
    }
}
