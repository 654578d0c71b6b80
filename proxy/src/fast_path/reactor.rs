//! The event loop of a thread (the reactor pattern): it accepts connections, and watches all that wait for a
//! request with an epoll instance of its own, which the thread's runtime watches in turn. So a connection that
//! waits has neither task nor buffer, and a burst of requests is served one after the other without the
//! runtime in between.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Token};
use pingora::server::ShutdownWatch;
use tokio::io::Interest as Watched;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::FastPath;
use super::seats::{Back, Seats, Seen};
use crate::connections::Connections;

/// Most events that are taken up at once.
const EVENTS_MAX: usize = 256;
/// Where more than this came at once, there is likely to be more when that has been served.
const EVENTS_FEW: usize = 2;
/// After so many turns, what else the thread has to do has its own.
const TURNS_MAX: usize = 4;
/// Most connections that are accepted in a row.
const ACCEPTED_MAX: usize = 64;
/// How often it looks for connections that have idled too long, at most.
const TICK_MIN: Duration = Duration::from_millis(10);
/// And at least. Then, too, accepting is tried again where the system had no room for more.
const TICK_MAX: Duration = Duration::from_millis(500);
/// No seat has this number.
const LISTENER: Token = Token(usize::MAX);

/// The event loop.
pub(crate) struct Reactor {
    path: Arc<FastPath>,
    connections: Arc<Connections>,
    epoll: AsyncFd<mio::Poll>,
    events: Events,
    /// `None` once it accepts no more.
    door: Option<Door>,
    /// Whether somebody may wait to be accepted.
    has_callers: bool,
    seats: Seats,
    backs: mpsc::UnboundedReceiver<Back>,
    ticks: Interval,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

struct Door {
    listener: TcpListener,
    /// Dropped with the listener.
    _open: oneshot::Sender<Infallible>,
}

impl Reactor {
    /// Will serve those who come to `listener`. Drops `open` when it accepts no more.
    ///
    /// # Errors
    /// If the system does not watch it.
    pub fn new(
        path: Arc<FastPath>,
        connections: Arc<Connections>,
        listener: std::net::TcpListener,
        open: oneshot::Sender<Infallible>,
        shutdown: &ShutdownWatch,
    ) -> io::Result<Self> {
        let epoll = mio::Poll::new()?;
        let mut listener = TcpListener::from_std(listener);
        epoll
            .registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let (home, backs) = mpsc::unbounded_channel();
        let registry = epoll.registry().try_clone()?;
        let mut ticks = interval((path.idle_within / 4).clamp(TICK_MIN, TICK_MAX));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = shutdown.clone();
        Ok(Self {
            seats: Seats::new(path.clone(), registry, home, shutdown.clone()),
            path,
            connections,
            epoll: watch(epoll)?,
            events: Events::with_capacity(EVENTS_MAX),
            door: Some(Door {
                listener,
                _open: open,
            }),
            has_callers: true,
            backs,
            ticks,
            stop: Box::pin(async move {
                // An error means that nobody is left to say so.
                let _ = stopping.wait_for(|stopping| *stopping).await;
            }),
        })
    }

    /// Serves until it is to stop and nothing is waited for.
    pub async fn run(mut self) {
        if let Err(error) = poll_fn(|context| self.poll(context)).await {
            tracing::error!(%error, "connections cannot be watched");
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Poll::Ready(Some(back)) = self.backs.poll_recv(context) {
            self.seats.receive(back);
        }
        while self.ticks.poll_tick(context).is_ready() {
            self.has_callers = true;
            if let Some(then) = Instant::now().checked_sub(self.path.idle_within) {
                self.seats.close_since(then);
            }
        }
        let has_more = self.turns(context)?;
        if self.door.is_some() && self.stop.as_mut().poll(context).is_ready() {
            self.accept();
            self.door = None;
            // Who has sent a request by now gets an answer.
            while self.take_up()? > 0 {}
        }
        if self.door.is_none() {
            self.seats.close_idle();
            if self.seats.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        if has_more {
            // Goes on when the runtime has looked what else there is.
            let _ = pin!(yield_now()).poll(context);
        }
        Poll::Pending
    }

    /// Takes up what there is. Returns whether there may be more; if not, the task is woken when there is.
    fn turns(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut count = 0;
        for _ in 0..TURNS_MAX {
            match self.epoll.poll_read_ready_mut(context) {
                // What comes from now on makes it ready anew.
                Poll::Ready(ready) => ready?.clear_ready(),
                Poll::Pending if count <= EVENTS_FEW && !self.has_callers => return Ok(false),
                Poll::Pending => {}
            }
            count = self.take_up()?;
            if self.has_callers {
                self.accept();
            }
        }
        Ok(true)
    }

    /// Serves the connections on which something has been seen; returns how many there were.
    fn take_up(&mut self) -> io::Result<usize> {
        match self
            .epoll
            .get_mut()
            .poll(&mut self.events, Some(Duration::ZERO))
        {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.seats.look_up();
        let mut count = 0;
        for event in &self.events {
            count += 1;
            match event.token() {
                LISTENER => self.has_callers = true,
                Token(seat) if event.is_read_closed() => self.seats.see(seat, Seen::End),
                Token(seat) => self.seats.see(seat, Seen::Bytes),
            }
        }
        Ok(count)
    }

    /// Accepts some of those who wait.
    fn accept(&mut self) {
        let Some(Door { listener, .. }) = &self.door else {
            self.has_callers = false;
            return;
        };
        for _ in 0..ACCEPTED_MAX {
            let taken_in = match listener.accept() {
                Ok((stream, peer)) => match self.connections.hold(Some(peer.ip())) {
                    Some(held) => stream
                        .set_nodelay(true)
                        .and_then(|()| self.seats.take_in(stream, peer, held, Instant::now())),
                    None => Ok(()),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.has_callers = false;
                    return;
                }
                Err(error) => Err(error),
            };
            if let Err(error) = taken_in
                && !is_of_one(&error)
            {
                tracing::warn!(%error, "no connection can be accepted for a moment");
                self.has_callers = false;
                return;
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "it leaves a condition unchecked that holds: an epoll instance keeps its descriptor"
)]
fn watch(epoll: mio::Poll) -> io::Result<AsyncFd<mio::Poll>> {
    AsyncFd::with_interest(epoll, Watched::READABLE)
}

/// Whether an error concerns one connection only, which is over.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, InvalidInput,
        NetworkDown, NetworkUnreachable, NotConnected,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | InvalidInput
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
    )
}
