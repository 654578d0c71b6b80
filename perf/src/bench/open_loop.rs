//! A steady rate of requests, sent when each is due and not when the server is ready for it. Latency runs from
//! the moment a request should have been sent, so one that waited behind a stall counts with all of its wait:
//! without what Gil Tene named *coordinated omission*.
//!
//! One thread does it all, and does not sleep while it waits: it would wake too late.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;

use super::Failure;
use super::exchange::Exchange;

/// What comes before anything counts: connections are made, and what is lazy is done.
const WARM_UP: Duration = Duration::from_millis(500);
/// Longest that the last answers are waited for.
const GRACE: Duration = Duration::from_secs(10);
/// A request that is due sooner than this is waited for without sleep; timers have a grain of 1 ms.
const SLEEPLESS: Duration = Duration::from_millis(3);
/// More than an answer here is long.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The generator kept its schedule if 99 of 100 requests went out no later than this.
pub const LATE_MAX_MS: f64 = 0.1;

/// What is to be sent, and how.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// To this port of this machine.
    pub port: u16,
    /// This, again and again.
    pub exchange: &'a Exchange,
    /// Over so many connections; none has more than one request in flight.
    pub connections: usize,
    /// So many a second, evenly spaced.
    pub rate: f64,
    /// For so long, after a warm-up.
    pub duration: Duration,
    /// From this core, if from a certain one.
    pub core: Option<usize>,
}

/// What was seen. Latencies are in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Seen {
    /// Answers, all of them right.
    pub requests: u64,
    /// Half of them came within this.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1,000.
    pub p999_ms: f64,
    /// All.
    pub max_ms: f64,
    /// How late the generator itself sent: 99 of 100 no later than this. Waiting for a connection on which
    /// the server owes an answer is the server's lateness, not the generator's.
    pub late_p99_ms: f64,
    /// The latest.
    pub late_max_ms: f64,
}

impl Seen {
    /// Whether the generator could not keep its schedule: then its latencies are its own as well.
    pub fn is_marked(&self) -> bool {
        self.late_p99_ms > LATE_MAX_MS
    }
}

/// Sends as planned, on a thread of its own.
///
/// # Errors
/// If an answer is wrong, a connection ends, or the server falls so far behind that it cannot catch up.
pub fn play(plan: &Plan<'_>) -> Result<Seen, Failure> {
    std::thread::scope(|threads| {
        let playing = threads.spawn(|| {
            if let Some(core) = plan.core {
                bind_to(core)?;
            }
            Generator::connect(plan)?.run()
        });
        playing.join().map_err(|_| "the generator panicked")?
    })
}

/// Binds the calling thread to a core.
fn bind_to(core: usize) -> Result<(), Failure> {
    let thread = std::fs::read_link("/proc/thread-self")?;
    let thread = thread.file_name().ok_or("a thread without a number")?;
    let output = Command::new("taskset")
        .args(["-c", "-p", &core.to_string()])
        .arg(thread)
        .output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into())
    }
}

struct Generator<'a> {
    plan: &'a Plan<'a>,
    poll: Poll,
    connections: Vec<Connection>,
    /// Connections without a request in flight, and since when; who waits longest is next.
    free: VecDeque<(usize, Instant)>,
    begin: Instant,
    /// Requests of the plan, those of the warm-up included.
    planned: u64,
    sent: u64,
    answered: u64,
    latency_ns: Histogram<u64>,
    late_ns: Histogram<u64>,
}

struct Connection {
    stream: TcpStream,
    /// When the request in flight was due.
    due: Instant,
    buffer: Vec<u8>,
    filled: usize,
}

impl<'a> Generator<'a> {
    fn connect(plan: &'a Plan<'a>) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(plan.connections);
        let begin = Instant::now();
        for index in 0..plan.connections {
            let stream = std::net::TcpStream::connect(("127.0.0.1", plan.port))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, Token(index), Interest::READABLE)?;
            connections.push(Connection {
                stream,
                due: begin,
                buffer: vec![0; ANSWER_BYTES_MAX],
                filled: 0,
            });
        }
        let seconds = (WARM_UP + plan.duration).as_secs_f64();
        let histogram = Histogram::new_with_bounds(1, 120_000_000_000, 3)?;
        let begin = Instant::now();
        Ok(Self {
            plan,
            poll,
            free: (0..plan.connections).map(|index| (index, begin)).collect(),
            connections,
            begin,
            planned: (seconds * plan.rate).ceil() as u64,
            sent: 0,
            answered: 0,
            latency_ns: histogram.clone(),
            late_ns: histogram,
        })
    }

    fn run(mut self) -> Result<Seen, Failure> {
        let give_up = self.begin + WARM_UP + self.plan.duration + GRACE;
        let mut events = Events::with_capacity(1_024);
        while self.answered < self.planned {
            if Instant::now() > give_up {
                let (planned, answered) = (self.planned, self.answered);
                return Err(
                    format!("{answered} of {planned} requests were answered in time").into(),
                );
            }
            self.send_due()?;
            let wait = self
                .due(self.sent)
                .saturating_duration_since(Instant::now());
            let wait = if self.sent == self.planned || wait < SLEEPLESS {
                Duration::ZERO
            } else {
                wait - SLEEPLESS
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error.into());
            }
            for event in &events {
                self.receive(event.token().0)?;
                // However many answers came at once, none makes a request late.
                self.send_due()?;
            }
        }
        Ok(self.seen())
    }

    /// When the request with this number is due.
    fn due(&self, number: u64) -> Instant {
        self.begin + Duration::from_secs_f64(number as f64 / self.plan.rate)
    }

    /// Sends what is due, as far as there are connections for it.
    fn send_due(&mut self) -> Result<(), Failure> {
        while self.sent < self.planned {
            let (due, now) = (self.due(self.sent), Instant::now());
            if due > now {
                break;
            }
            let Some((index, free_since)) = self.free.pop_front() else {
                break;
            };
            if self.counts(due) {
                let late = now.saturating_duration_since(due.max(free_since));
                self.late_ns.saturating_record(nanoseconds(late));
            }
            self.sent += 1;
            let Some(connection) = self.connections.get_mut(index) else {
                continue;
            };
            connection.due = due;
            // A request is short, and nothing else is under way on its connection.
            let request = self.plan.exchange.request();
            if connection.stream.write(request)? != request.len() {
                return Err("a request that could not be sent at once".into());
            }
        }
        Ok(())
    }

    /// Reads what has come on a connection.
    fn receive(&mut self, index: usize) -> Result<(), Failure> {
        let Some(connection) = self.connections.get_mut(index) else {
            return Ok(());
        };
        loop {
            let room = connection.buffer.get_mut(connection.filled..);
            let room = room.unwrap_or_default();
            let count = match connection.stream.read(room) {
                Ok(0) => return Err("a connection was closed, or its answer is too long".into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let was_all = count < room.len();
            connection.filled += count;
            let arrived = connection.buffer.get(..connection.filled);
            if self
                .plan
                .exchange
                .is_answered(arrived.unwrap_or_default())?
            {
                let now = Instant::now();
                let due = connection.due;
                connection.filled = 0;
                self.answered += 1;
                self.free.push_back((index, now));
                if self.counts(due) {
                    let latency = now.saturating_duration_since(due);
                    self.latency_ns.saturating_record(nanoseconds(latency));
                }
                return Ok(());
            }
            if was_all {
                return Ok(());
            }
        }
    }

    fn counts(&self, due: Instant) -> bool {
        due >= self.begin + WARM_UP
    }

    fn seen(&self) -> Seen {
        let (latency, late) = (&self.latency_ns, &self.late_ns);
        let at = |histogram: &Histogram<u64>, quantile| {
            histogram.value_at_quantile(quantile) as f64 / 1e6
        };
        Seen {
            requests: latency.len(),
            p50_ms: at(latency, 0.5),
            p99_ms: at(latency, 0.99),
            p999_ms: at(latency, 0.999),
            max_ms: latency.max() as f64 / 1e6,
            late_p99_ms: at(late, 0.99),
            late_max_ms: late.max() as f64 / 1e6,
        }
    }
}

fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const BODY: &[u8] = b"the item";

    /// Answers every request with `body`, on each connection by a thread of its own; the first request of
    /// each that comes later than `stall` after the first one of all waits so long again.
    fn responder(body: &'static [u8], stall: Option<Duration>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let begin = Instant::now();
            while let Ok((mut stream, _)) = listener.accept() {
                let mut stall = stall;
                std::thread::spawn(move || {
                    let mut buffer = [0; 1_024];
                    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                        if let Some(length) = stall.filter(|length| begin.elapsed() > *length * 3) {
                            stall = None;
                            std::thread::sleep(length);
                        }
                        let head =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        if stream.write_all(&[head.as_bytes(), body].concat()).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        port
    }

    fn played(port: u16) -> Result<Seen, Failure> {
        play(&Plan {
            port,
            exchange: &Exchange::new(b"GET / HTTP/1.1\r\n\r\n".to_vec(), 200, BODY.to_vec()),
            connections: 2,
            rate: 1_000.0,
            duration: Duration::from_secs(1),
            core: None,
        })
    }

    #[test]
    fn every_request_is_sent_and_counted() {
        let seen = played(responder(BODY, None)).unwrap();
        assert!((998..=1_002).contains(&seen.requests), "{seen:?}");
        assert!(seen.p50_ms > 0.0 && seen.p50_ms <= seen.p99_ms && seen.p99_ms <= seen.max_ms);
    }

    #[test]
    fn who_waits_behind_a_stall_counts_with_all_of_his_wait() {
        // Two connections stand still for 300 ms: only two requests are under way, but 300 are due.
        let seen = played(responder(BODY, Some(Duration::from_millis(300)))).unwrap();
        assert!(seen.max_ms >= 290.0 && seen.p99_ms > 200.0, "{seen:?}");
    }

    #[test]
    fn a_wrong_answer_is_a_failure() {
        let error = played(responder(b"an item!", None)).unwrap_err();
        assert!(error.to_string().contains("another body"), "{error}");
    }
}
