//! The connections of a reactor: each has a seat, which is all that it costs while it waits.
//!
//! What can be read, decided on and written at once is. A request that something has to be waited for is waited
//! for by a task, and answered from the seat. A connection that itself has to be waited for (a client sends or
//! takes slowly, more came than one request, Pingora serves) leaves for a task of its own, and comes back from
//! there when it waits for its next request.

use std::io::{self, Read as _};
use std::net::{self, Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use pingora::server::ShutdownWatch;
use slab::Slab;
use tokio::sync::mpsc;

use super::task::Heard;
use super::wire::Message;
use super::{Begun, Deed, Ended, FastPath, Step, spare};
use crate::call::Moment;
use crate::connections::Held;

/// The most that is read at once: what is shorter was all that there is.
const READ_BYTES: usize = 16 << 10;

/// The connections.
pub(super) struct Seats {
    path: Arc<FastPath>,
    registry: Registry,
    taken: Slab<Seat>,
    space: Vec<u8>,
    /// How often something was waited for.
    tickets: u64,
    /// When what is served now was seen.
    moment: Moment,
    home: mpsc::UnboundedSender<Back>,
    shutdown: ShutdownWatch,
}

/// One connection.
struct Seat {
    stream: TcpStream,
    peer: SocketAddr,
    held: Held,
    /// Since when it has waited for a request.
    since: Instant,
    /// While something is waited for.
    busy: Option<Busy>,
}

/// The request that something is waited for.
struct Busy {
    ticket: Ticket,
    /// It, and what was read after it.
    heard: Vec<u8>,
    /// What was seen on the connection meanwhile.
    seen: Option<Seen>,
}

/// Which wait it is: a seat that has been given up may have been taken by another one since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    at: usize,
    number: u64,
}

/// What was seen on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seen {
    /// There is something to read.
    Bytes,
    /// After that, nothing will follow.
    End,
}

/// What comes from a task. There are never more than there are connections.
pub(super) enum Back {
    /// What is to be done about the request that was waited for; `None` if its task failed.
    Deed(Ticket, Option<Deed>),
    /// A connection that waits for its next request.
    Connection(net::TcpStream, SocketAddr, Held, Instant),
}

/// Tells the reactor, whatever becomes of the task.
struct Report {
    home: mpsc::UnboundedSender<Back>,
    ticket: Ticket,
    deed: Option<Deed>,
}

impl Drop for Report {
    fn drop(&mut self) {
        // An error means that the reactor is gone, and its connections with it.
        let _ = self.home.send(Back::Deed(self.ticket, self.deed.take()));
    }
}

impl Seats {
    pub fn new(
        path: Arc<FastPath>,
        registry: Registry,
        home: mpsc::UnboundedSender<Back>,
        shutdown: ShutdownWatch,
    ) -> Self {
        Self {
            moment: Moment::now(&path.edge),
            path,
            registry,
            taken: Slab::new(),
            space: vec![0; READ_BYTES],
            tickets: 0,
            home,
            shutdown,
        }
    }

    /// What is seen from now on is seen at this moment. For many requests that come at once the clocks are asked
    /// once: each of them had arrived by then.
    pub fn look_up(&mut self) {
        self.moment = Moment::now(&self.path.edge);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Takes in a connection that waits for a request, and tells its seat.
    ///
    /// # Errors
    /// If the system does not watch it.
    pub fn take_in(
        &mut self,
        mut stream: TcpStream,
        peer: SocketAddr,
        held: Held,
        since: Instant,
    ) -> io::Result<usize> {
        let place = self.taken.vacant_entry();
        let at = place.key();
        self.registry
            .register(&mut stream, Token(at), Interest::READABLE)?;
        place.insert(Seat {
            stream,
            peer,
            held,
            since,
            busy: None,
        });
        Ok(at)
    }

    /// Something was seen on the connection at that seat. Where there is none any more, nothing was.
    pub fn see(&mut self, at: usize, seen: Seen) {
        self.guard(at, |seats| seats.read(at, seen));
    }

    /// What a task sends.
    pub fn receive(&mut self, back: Back) {
        self.look_up();
        match back {
            Back::Deed(ticket, deed) => {
                self.guard(ticket.at, |seats| seats.go_on(ticket, deed));
            }
            Back::Connection(stream, peer, held, since) => {
                match self.take_in(TcpStream::from_std(stream), peer, held, since) {
                    // When all that idle are closed, this is looked at before.
                    Ok(at) if *self.shutdown.borrow() => self.see(at, Seen::Bytes),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "a connection cannot be kept"),
                }
            }
        }
    }

    /// Closes those that have waited for a request since before `then`.
    pub fn close_since(&mut self, then: Instant) {
        self.taken
            .retain(|_, seat| seat.busy.is_some() || seat.since > then);
    }

    /// Closes those that wait for a request.
    pub fn close_idle(&mut self) {
        self.taken.retain(|_, seat| seat.busy.is_some());
    }

    /// A panic is a fault of ours. It ends one connection, not all of the thread.
    fn guard(&mut self, at: usize, act: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| act(self))).is_err() {
            tracing::error!("a request could not be served: its connection is closed");
            self.taken.try_remove(at);
        }
    }

    /// Reads what there is, and serves it.
    fn read(&mut self, at: usize, seen: Seen) {
        while let Some(seat) = self.taken.get_mut(at) {
            if let Some(busy) = &mut seat.busy {
                busy.seen = busy.seen.max(Some(seen));
                return;
            }
            let count = match seat.stream.read(&mut self.space) {
                Ok(count) if count > 0 => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(_) | Err(_) => {
                    self.taken.remove(at);
                    return;
                }
            };
            self.serve(at, count);
            if count < READ_BYTES && seen == Seen::Bytes {
                return;
            }
        }
    }

    /// Serves the first request in what has just been read.
    fn serve(&mut self, at: usize, count: usize) {
        let Some(seat) = self.taken.get_mut(at) else {
            return;
        };
        let heard = self.space.get(..count).unwrap_or_default();
        let peer = Some(seat.peer.ip());
        match self.path.step(heard, peer, self.moment) {
            Ok(Step::Now(Deed::Send(begun, message))) => {
                let behind = heard.get(begun.bytes..).unwrap_or_default().to_vec();
                self.send(at, begun, message, behind);
            }
            Ok(Step::Wait(begun, waiting)) => {
                let mut kept = spare::take();
                kept.extend_from_slice(heard);
                self.tickets += 1;
                let number = self.tickets;
                let ticket = Ticket { at, number };
                seat.busy = Some(Busy {
                    ticket,
                    heard: kept,
                    seen: None,
                });
                let (path, home) = (self.path.clone(), self.home.clone());
                tokio::spawn(async move {
                    let deed = None;
                    let mut report = Report { home, ticket, deed };
                    report.deed = Some(path.wait(begun, waiting).await);
                });
            }
            // Pingora is to serve it, or some of it is still to come.
            step => {
                let heard = heard.to_vec();
                self.leave(at, heard, step.ok());
            }
        }
    }

    /// What was waited for is there.
    fn go_on(&mut self, ticket: Ticket, deed: Option<Deed>) {
        let at = ticket.at;
        let Some(seat) = self.taken.get_mut(at) else {
            return;
        };
        let is_its = |busy: &mut Busy| busy.ticket == ticket;
        let Some(Busy { heard, seen, .. }) = seat.busy.take_if(is_its) else {
            return;
        };
        match deed {
            Some(Deed::Send(begun, message)) => {
                let behind = heard.get(begun.bytes..).unwrap_or_default().to_vec();
                spare::give(heard);
                self.send(at, begun, message, behind);
                if let Some(seen) = seen {
                    self.read(at, seen);
                }
            }
            Some(deed) => self.leave(at, heard, Some(Step::Now(deed))),
            None => drop(self.taken.remove(at)),
        }
    }

    /// Answers the first request; `behind` is what has come after it.
    fn send(&mut self, at: usize, mut begun: Begun, mut message: Message, behind: Vec<u8>) {
        let Some(seat) = self.taken.get_mut(at) else {
            return;
        };
        let sent = match message.write_now(&mut seat.stream) {
            Ok(true) => Ok(()),
            Ok(false) => {
                // The task hears only what came after it.
                begun.bytes = 0;
                let rest = Step::Now(Deed::Send(begun, message));
                return self.leave(at, behind, Some(rest));
            }
            Err(error) => Err(error),
        };
        match self.path.settle(begun, &message, sent) {
            Ok(now) => {
                seat.since = now;
                if !behind.is_empty() {
                    self.leave(at, behind, None);
                }
            }
            Err(ended) => {
                if matches!(ended, Ended::Closed) {
                    // If the client is gone by now, he needs no telling.
                    let _ = seat.stream.shutdown(Shutdown::Write);
                }
                self.taken.remove(at);
            }
        }
    }

    /// The connection goes to a task of its own, with what has come on it. `first` is what is to be done about
    /// the first request, if that is known.
    fn leave(&mut self, at: usize, heard: Vec<u8>, first: Option<Step>) {
        let seat = self.taken.remove(at);
        let (mut stream, peer, held) = (seat.stream, seat.peer, seat.held);
        let stream = self
            .registry
            .deregister(&mut stream)
            .and_then(|()| tokio::net::TcpStream::from_std(stream.into()));
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be served");
                return;
            }
        };
        let mut heard = Heard {
            bytes: heard,
            since: seat.since,
        };
        let (path, home) = (self.path.clone(), self.home.clone());
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            let served = path.serve_heard(stream, peer, &mut heard, first, &shutdown);
            let Some(stream) = served.await else { return };
            match stream.into_std() {
                Ok(stream) => {
                    // An error means that the reactor is gone.
                    let _ = home.send(Back::Connection(stream, peer, held, heard.since));
                }
                Err(error) => tracing::warn!(%error, "a connection cannot be kept"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use allocation_counter::measure;
    use mio::Poll;
    use tokio::sync::watch;

    use super::*;
    use crate::connections::Connections;
    use crate::connections::tests::connections;
    use crate::fast_path::tests::{REQUEST, fast_path};
    use crate::tally;

    const ASKED: &[u8] = b"GET /item/get?id=3 HTTP/1.1\r\nHost: shop\r\n\r\n";

    struct Room {
        seats: Seats,
        backs: mpsc::UnboundedReceiver<Back>,
        listener: TcpListener,
        connections: Arc<Connections>,
        _epoll: Poll,
        _files: tempfile::TempDir,
        _stopping: watch::Sender<bool>,
    }

    impl Room {
        fn new() -> Self {
            let files = tempfile::tempdir().unwrap();
            let epoll = Poll::new().unwrap();
            let (home, backs) = mpsc::unbounded_channel();
            let (stopping, shutdown) = watch::channel(false);
            let path = Arc::new(fast_path(&files));
            let registry = epoll.registry().try_clone().unwrap();
            Self {
                seats: Seats::new(path, registry, home, shutdown),
                backs,
                listener: TcpListener::bind("127.0.0.1:0").unwrap(),
                connections: Arc::new(connections(5)),
                _epoll: epoll,
                _files: files,
                _stopping: stopping,
            }
        }

        /// A client, and his seat.
        fn client(&mut self) -> (net::TcpStream, usize) {
            let address = self.listener.local_addr().unwrap();
            let client = net::TcpStream::connect(address).unwrap();
            let (stream, peer) = self.listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let held = self.connections.hold(Some(peer.ip())).unwrap();
            let stream = TcpStream::from_std(stream);
            let at = self.seats.take_in(stream, peer, held, Instant::now());
            (client, at.unwrap())
        }

        fn ask(&mut self, (client, at): &mut (net::TcpStream, usize), request: &[u8]) {
            client.write_all(request).unwrap();
            self.seats.see(*at, Seen::Bytes);
        }
    }

    fn status(client: &mut net::TcpStream) -> [u8; 12] {
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        status
    }

    fn is_closed(client: &mut net::TcpStream) -> bool {
        matches!(client.read(&mut [0]), Ok(0))
    }

    #[tokio::test]
    async fn what_is_answered_at_once_allocates_nothing() {
        let mut room = Room::new();
        tally::begin(room.seats.path.edge.metrics.clone());
        let mut client = room.client();
        for round in 0..3 {
            client.0.write_all(REQUEST).unwrap();
            let counted = measure(|| room.seats.see(client.1, Seen::Bytes));
            let mut answer = [0; 1 << 10];
            assert!(client.0.read(&mut answer).unwrap() > 12);
            // The first ones are met, written, or remembered.
            assert!(round < 2 || counted.count_total == 0, "{counted:?}");
        }
    }

    #[tokio::test]
    async fn a_fault_of_ours_ends_one_connection() {
        let mut room = Room::new();
        let (mut first, mut second) = (room.client(), room.client());
        room.seats.guard(first.1, |_| panic!("a fault of ours"));
        assert!(is_closed(&mut first.0));
        // Nobody has that seat any more.
        room.seats.see(first.1, Seen::Bytes);
        room.ask(&mut second, REQUEST);
        assert_eq!(&status(&mut second.0), b"HTTP/1.1 404");
    }

    #[tokio::test]
    async fn an_answer_goes_to_who_asked_or_to_nobody() {
        let mut room = Room::new();
        let mut first = room.client();
        // There is no order server, so the item is asked for in vain.
        room.ask(&mut first, ASKED);
        let late = room.backs.recv().await.unwrap();
        // Meanwhile the seat is another one's, who waits for something, too.
        room.seats.taken.remove(first.1);
        assert!(is_closed(&mut first.0));
        let mut second = room.client();
        assert_eq!(second.1, first.1);
        room.ask(&mut second, ASKED);
        room.seats.receive(late);
        second.0.set_nonblocking(true).unwrap();
        assert!(second.0.read(&mut [0]).is_err(), "nothing has come");
        second.0.set_nonblocking(false).unwrap();
        let own = room.backs.recv().await.unwrap();
        room.seats.receive(own);
        assert_eq!(&status(&mut second.0), b"HTTP/1.1 503");
    }

    #[tokio::test]
    async fn a_wait_that_fails_ends_its_connection() {
        let mut room = Room::new();
        let mut client = room.client();
        room.ask(&mut client, ASKED);
        let Some(Back::Deed(ticket, _)) = room.backs.recv().await else {
            panic!("nothing was waited for");
        };
        room.seats.receive(Back::Deed(ticket, None));
        assert!(is_closed(&mut client.0) && room.seats.is_empty());
    }

    #[test]
    fn a_connection_that_waits_takes_little_room() {
        assert!(size_of::<Seat>() <= 160, "{}", size_of::<Seat>());
    }
}
