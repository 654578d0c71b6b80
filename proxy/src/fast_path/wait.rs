//! Waiting for bytes: for as long as a client may idle, then for as long as a header may take, and no
//! longer than the edge is open.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::spare;
use crate::workers;

/// The most that is read at once.
const READ_BYTES: usize = 8 << 10;

/// When a wait ends without bytes. One for all waits of a task, so that the next one costs no timer and no place in
/// a queue.
pub(super) struct Patience {
    /// Rings at `due` or before it.
    alarm: Pin<Box<Sleep>>,
    due: Instant,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_stopping: bool,
    shutdown: ShutdownWatch,
    /// Whom alarm and stop will wake.
    sleeper: Option<Waker>,
}

impl Patience {
    /// The patience with a connection, from now on.
    pub fn new(within: Duration, shutdown: &ShutdownWatch) -> Self {
        let due = Instant::now() + within;
        Self {
            alarm: Box::pin(sleep_until(due)),
            due,
            stop: Box::pin(workers::until_told(shutdown.clone())),
            is_stopping: false,
            shutdown: shutdown.clone(),
            sleeper: None,
        }
    }

    /// Bytes have to come `within` that time from `since`.
    pub fn renew(&mut self, since: std::time::Instant, within: Duration) {
        self.due = Instant::from_std(since) + within;
        if self.alarm.deadline() > self.due {
            self.alarm.as_mut().reset(self.due);
            self.sleeper = None;
        }
    }

    /// Adds what comes to `heard`; `false` if nothing comes in time: the client is gone, or too slow, or the
    /// edge is closing.
    pub async fn more(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        heard: &mut Vec<u8>,
    ) -> bool {
        let mut is_first = true;
        std::future::poll_fn(|context| match read(stream, heard, context) {
            Poll::Pending if std::mem::take(&mut is_first) && self.will_be_woken(context) => {
                Poll::Pending
            }
            Poll::Pending => self.poll_end(context).map(|()| false),
            ready => ready,
        })
        .await
    }

    /// Whether alarm and stop know whom to wake, and neither has done so yet.
    fn will_be_woken(&self, context: &Context<'_>) -> bool {
        let sleeper = self.sleeper.as_ref();
        sleeper.is_some_and(|sleeper| sleeper.will_wake(context.waker()))
            && !self.alarm.is_elapsed()
            && matches!(self.shutdown.has_changed(), Ok(false))
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_stopping || self.stop.as_mut().poll(context).is_ready() {
            self.is_stopping = true;
            return Poll::Ready(());
        }
        while self.alarm.as_mut().poll(context).is_ready() {
            if Instant::now() >= self.due {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(self.due);
        }
        self.sleeper = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Reads by way of the stack: while nothing comes, no buffer is held.
fn read(
    stream: &mut (impl AsyncRead + Unpin),
    heard: &mut Vec<u8>,
    context: &mut Context<'_>,
) -> Poll<bool> {
    let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
    let mut come = ReadBuf::uninit(&mut space);
    Pin::new(stream).poll_read(context, &mut come).map(|read| {
        let come = come.filled();
        if read.is_err() || come.is_empty() {
            return false;
        }
        if heard.capacity() == 0 {
            *heard = spare::take();
        }
        heard.extend_from_slice(come);
        true
    })
}
