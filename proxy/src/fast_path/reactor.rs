//! The event loop of a thread (the reactor pattern): it accepts connections, and watches all that wait for a
//! request with an epoll instance of its own, which the thread's runtime watches in turn. So a connection that
//! waits has neither task nor buffer, and a burst of requests is served one after the other without the
//! runtime in between.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Token};
use pingora::server::ShutdownWatch;
use rustix::io::Errno;
use tokio::io::Interest as Watched;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::FastPath;
use super::seats::{Back, Seats, Seen};
use crate::connections::Connections;
use crate::listeners::BACKLOG;
use crate::workers;

/// When so many connections have been served, what else the thread has to do has its turn.
const TURN_MAX: usize = 256;
/// Most connections that are accepted in a row.
const ACCEPTED_MAX: usize = 64;
/// So many times in a row at the end: as many as may wait. And as often what they sent is taken up.
const CLOSING_MAX: usize = BACKLOG as usize / ACCEPTED_MAX;
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
    /// How many connections may be served in a row.
    turn_max: usize,
    /// `None` once it accepts no more.
    door: Option<Door>,
    /// Whether somebody may wait to be accepted.
    has_callers: bool,
    /// Whether the system has no room for more connections just now.
    is_short: bool,
    /// Whether more connections may have something for it than it has seen.
    has_more: bool,
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
        Self::with_turns(TURN_MAX, path, connections, listener, open, shutdown)
    }

    fn with_turns(
        turn_max: usize,
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
        Ok(Self {
            seats: Seats::new(path.clone(), registry, home, shutdown.clone()),
            path,
            connections,
            epoll: watch(epoll)?,
            events: Events::with_capacity(turn_max),
            turn_max,
            door: Some(Door {
                listener,
                _open: open,
            }),
            has_callers: true,
            is_short: false,
            has_more: true,
            backs,
            ticks,
            stop: Box::pin(workers::until_told(shutdown.clone())),
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
        let mut is_time = false;
        while self.ticks.poll_tick(context).is_ready() {
            is_time = true;
            (self.is_short, self.has_callers) = (false, true);
        }
        let is_done = self.turn(context)?;
        // After what has come was looked at: who has just sent a request does not idle.
        if is_time && let Some(then) = Instant::now().checked_sub(self.path.idle_within) {
            self.seats.close_since(then);
        }
        if self.door.is_some() && self.stop.as_mut().poll(context).is_ready() {
            self.close()?;
        }
        if self.door.is_none() {
            self.seats.close_idle();
            if self.seats.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        if !is_done {
            // Goes on when the runtime has looked what else there is.
            let _ = pin!(yield_now()).poll(context);
        }
        Poll::Pending
    }

    /// Takes up what there is. Returns whether that is all: then the task is woken when there is more. What is
    /// left behind makes the epoll instance ready for nobody.
    fn turn(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut taken = 0;
        while taken < self.turn_max {
            match self.epoll.poll_read_ready_mut(context) {
                // What comes from now on makes it ready anew.
                Poll::Ready(ready) => ready?.clear_ready(),
                Poll::Pending if !self.has_more && !self.has_callers => return Ok(true),
                Poll::Pending => {}
            }
            let count = self.take_up()?;
            // To look once more costs less than to wait for nothing.
            self.has_more = count > 0;
            taken += count;
            if self.has_callers {
                taken += self.accept();
            }
        }
        Ok(false)
    }

    /// Accepts no more. Who has sent a request by now gets an answer.
    fn close(&mut self) -> io::Result<()> {
        self.has_callers = true;
        for _ in 0..CLOSING_MAX {
            if !self.has_callers {
                break;
            }
            self.accept();
        }
        self.door = None;
        for _ in 0..CLOSING_MAX {
            if self.take_up()? == 0 {
                break;
            }
        }
        Ok(())
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
        if !self.events.is_empty() {
            self.seats.look_up();
        }
        let mut count = 0;
        for event in &self.events {
            count += 1;
            match event.token() {
                LISTENER => self.has_callers = !self.is_short,
                Token(seat) if event.is_read_closed() => self.seats.see(seat, Seen::End),
                Token(seat) => self.seats.see(seat, Seen::Bytes),
            }
        }
        Ok(count)
    }

    /// Accepts some of those who wait; returns how many.
    fn accept(&mut self) -> usize {
        for count in 0..ACCEPTED_MAX {
            let Some(Door { listener, .. }) = &self.door else {
                self.has_callers = false;
                return count;
            };
            let taken_in = match listener.accept() {
                Ok((stream, peer)) => self.welcome(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.has_callers = false;
                    return count;
                }
                Err(error) => Err(error),
            };
            match taken_in {
                Ok(()) => {}
                Err(error) if is_short(&error) => {
                    tracing::warn!(%error, "no connection can be accepted for a moment");
                    (self.is_short, self.has_callers) = (true, false);
                    return count;
                }
                // It concerns one connection only, which is over.
                Err(error) => tracing::debug!(%error, "a connection was not accepted"),
            }
        }
        ACCEPTED_MAX
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let Some(held) = self.connections.hold(Some(peer.ip())) else {
            return Ok(());
        };
        stream.set_nodelay(true)?;
        self.seats
            .take_in(stream, peer, held, Instant::now())
            .map(|_| ())
    }
}

#[expect(
    deprecated,
    reason = "it leaves a condition unchecked that holds: an epoll instance keeps its descriptor"
)]
fn watch(epoll: mio::Poll) -> io::Result<AsyncFd<mio::Poll>> {
    AsyncFd::with_interest(epoll, Watched::READABLE)
}

/// Whether the system has too little of something for one more connection.
fn is_short(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC)
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use tokio::sync::watch;

    use super::*;
    use crate::connections::tests::connections;
    use crate::fast_path::tests::{REQUEST, fast_path};

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A reactor that serves only a few in a row, where it listens, and what says that it no longer does.
    fn reactor(
        files: &tempfile::TempDir,
        room: usize,
        shutdown: &ShutdownWatch,
    ) -> (Reactor, net::SocketAddr, oneshot::Receiver<Infallible>) {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (open, closed) = oneshot::channel();
        let connections = Arc::new(connections(room));
        let path = Arc::new(fast_path(files));
        let reactor = Reactor::with_turns(8, path, connections, listener, open, shutdown);
        (reactor.unwrap(), address, closed)
    }

    /// A client who has sent a request.
    fn caller(address: net::SocketAddr) -> net::TcpStream {
        let mut client = net::TcpStream::connect(address).unwrap();
        client.write_all(REQUEST).unwrap();
        client
    }

    /// More come at once than are taken up in a row. Nothing else happens on the thread that could wake it.
    #[tokio::test(start_paused = true)]
    async fn what_is_left_behind_is_taken_up_without_being_asked_again() {
        let files = tempfile::tempdir().unwrap();
        let (_stopping, shutdown) = watch::channel(false);
        let (reactor, address, _closed) = reactor(&files, 100, &shutdown);
        let mut clients: Vec<_> = (0..50).map(|_| caller(address)).collect();
        let mut run = Box::pin(reactor.run());
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let mut seen = 0;
        loop {
            assert!(run.as_mut().poll(&mut context).is_pending());
            // The runtime looks what there is, but no time passes.
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut seen, woken.0.load(Ordering::SeqCst));
            if before == seen {
                break;
            }
        }
        for client in &mut clients {
            client.set_nonblocking(true).unwrap();
            assert!(client.read(&mut [0; 512]).unwrap() > 0);
        }
    }

    #[tokio::test]
    async fn who_called_before_the_end_is_answered() {
        let files = tempfile::tempdir().unwrap();
        let (stopping, shutdown) = watch::channel(false);
        let (reactor, address, closed) = reactor(&files, 200, &shutdown);
        let clients: Vec<_> = (0..100).map(|_| caller(address)).collect();
        reactor.path.edge.in_flight.begin_drain();
        stopping.send_replace(true);
        reactor.run().await;
        assert!(closed.await.is_err());
        for mut client in clients {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 404 "));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_system_has_no_room_accepting_is_tried_again_after_a_while() {
        let files = tempfile::tempdir().unwrap();
        let (_stopping, shutdown) = watch::channel(false);
        let (mut reactor, address, _closed) = reactor(&files, 10, &shutdown);
        assert!(is_short(&io::Error::from(Errno::MFILE)));
        assert!(!is_short(&io::Error::from(Errno::PROTO)));
        poll_fn(|context| {
            assert!(reactor.poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        (reactor.is_short, reactor.has_callers) = (true, false);
        let mut client = caller(address);
        client.set_nonblocking(true).unwrap();
        let running = tokio::spawn(reactor.run());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(client.read(&mut [0]).is_err(), "it is not accepted");
        tokio::time::sleep(TICK_MAX * 2).await;
        assert_eq!(client.read(&mut [0]).unwrap(), 1);
        running.abort();
    }

    #[tokio::test]
    async fn one_that_ends_says_so() {
        let files = tempfile::tempdir().unwrap();
        let (_stopping, shutdown) = watch::channel(false);
        let (reactor, _, mut closed) = reactor(&files, 1, &shutdown);
        let running = tokio::spawn(reactor.run());
        tokio::task::yield_now().await;
        assert!(closed.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        running.abort();
        assert!(closed.await.is_err());
    }
}
