//! How long a connection may take until a request's header is there. Pingora bounds single reads, not
//! the header as a whole; without this, one byte every few seconds would hold a connection for hours.

use std::cell::Cell;
use std::time::Duration;

tokio::task_local! {
    /// Whether the header of the request that this task waits for has arrived.
    static HEADER_ARRIVED: Cell<bool>;
}

/// Called when a request's header is there: from here on other limits hold.
pub(crate) fn header_arrived() {
    // Outside the scope there is no deadline to lift.
    let _ = HEADER_ARRIVED.try_with(|arrived| arrived.set(true));
}

/// Drives `serve`, and gives it up if no header has arrived `within` that time. Once one has, it may
/// take as long as its own limits let it.
pub(crate) async fn until_header<F: Future>(within: Duration, serve: F) -> Option<F::Output> {
    let serve = async {
        let mut serve = std::pin::pin!(serve);
        let late = tokio::select! {
            biased;
            done = &mut serve => return Some(done),
            () = tokio::time::sleep(within) => !HEADER_ARRIVED.with(Cell::get),
        };
        if late { None } else { Some(serve.await) }
    };
    HEADER_ARRIVED.scope(Cell::new(false), serve).await
}
