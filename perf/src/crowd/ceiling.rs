//! The generator's own ceiling: the same requests, counted and measured in the same way, against a
//! responder in this process that does nothing but answer. A run that comes near it measures the
//! generator, not the shop.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::error::CrowdError;
use super::history::History;
use super::http::Request;
use super::pool::{Pool, Stay, Tcp};
use super::stage::{Call, Person, Pulse, Scene, Stage};
use super::steps::Step;
use crate::machine::ThreadTime;

/// Connections that the ceiling is measured over.
const CONNECTIONS: usize = 64;

/// What one thread of the generator can do at best.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ceiling {
    /// Answers a second, with the responder beside it on the same machine.
    pub per_second: f64,
    /// Processor time of the generator for one exchange, in microseconds.
    pub cpu_us_per_exchange: f64,
}

/// Measures one thread for `length`.
///
/// # Errors
/// If the responder cannot be started.
pub fn measure(scene: Arc<Scene>, length: Duration) -> Result<Ceiling, CrowdError> {
    let responder = Responder::start()?;
    let address = responder.address;
    // On a thread of its own, so that its processor time is told apart.
    let thread = std::thread::Builder::new().name("ceiling".to_owned());
    let measured = thread.spawn(move || -> io::Result<Ceiling> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(LocalSet::new().run_until(flood(scene, address, length))))
    })?;
    let ceiling = measured.join().map_err(|_| CrowdError::Thread)??;
    responder.end();
    Ok(ceiling)
}

async fn flood(scene: Arc<Scene>, address: SocketAddr, length: Duration) -> Ceiling {
    let start = Instant::now();
    let pool = Pool::new(Tcp(address), &address.to_string(), CONNECTIONS);
    let stage = Rc::new(Stage::new(
        scene,
        Clock::start(),
        start,
        pool,
        History::default(),
        Arc::new(Pulse::default()),
        CancellationToken::new(),
    ));
    let used = ThreadTime::now();
    let mut players = JoinSet::new();
    for index in 0..CONNECTIONS {
        let stage = stage.clone();
        players.spawn_local(async move {
            // As long as the shop's tokens are.
            let person = Person {
                index,
                buyer: 1,
                session: "s".repeat(300).into(),
            };
            let body = serde_json::json!({
                "itemId": 1, "promoId": 1, "amount": 1, "token": "t".repeat(400),
            });
            let get = Request::get("/item/get?id=1").bearer(&person.session);
            let post = Request::post("/order/create", &body).bearer(&person.session);
            let calls = [Call::new(Step::Item, get), Call::new(Step::Order, post)];
            while start.elapsed() < length {
                for call in &calls {
                    stage
                        .ask(&person, Instant::now(), call, Stay::ForAnswer)
                        .await;
                }
            }
        });
    }
    while players.join_next().await.is_some() {}
    let answers = stage.tally.borrow().answers as f64;
    let ran = match (used, ThreadTime::now()) {
        (Some(before), Some(after)) => after.since(before).ran,
        _ => Duration::ZERO,
    };
    Ceiling {
        per_second: answers / start.elapsed().as_secs_f64().max(1e-9),
        cpu_us_per_exchange: ran.as_secs_f64() * 1e6 / answers.max(1.0),
    }
}

/// Answers every request with the same words, from a thread of its own.
pub struct Responder {
    /// Where it listens.
    pub address: SocketAddr,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

/// What it says: an accepted order.
const ANSWER: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n\
    Content-Length: 75\r\n\r\n\
    {\"status\":\"success\",\"data\":{\"orderId\":\"1-1-123456\",\"state\":\"reserved\"    }}";

impl Responder {
    /// Starts it on a free port of the loopback address.
    ///
    /// # Errors
    /// If the system gives no port or no thread.
    pub fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("responder".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        // A listener that fails ends the measurement with what it has.
                        _ = serve(listener) => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            stop,
            thread,
        })
    }

    /// Stops it.
    pub fn end(self) {
        self.stop.cancel();
        // It has nothing to say that matters.
        let _ = self.thread.join();
    }
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(respond(stream));
    }
}

/// Answers each request on a connection; a request ends with its head or the body it announces.
async fn respond(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(4_096);
    loop {
        match request_length(&read) {
            Some(length) if read.len() >= length => {
                read.drain(..length);
                stream.write_all(ANSWER).await?;
            }
            _ if read.len() > 64 * 1024 => return Ok(()),
            _ => {
                if stream.read_buf(&mut read).await? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// The length of the request at the front, once its head is whole.
fn request_length(read: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(read) {
        Ok(httparse::Status::Complete(head)) => head,
        _ => return None,
    };
    let length = request
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let body = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    Some(head.saturating_add(body.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), 75);
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }

    #[test]
    fn requests_are_told_apart() {
        let get = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(request_length(get), Some(get.len()));
        let post = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(request_length(post), Some(post.len()));
        assert_eq!(request_length(b"POST / HTTP/1.1\r\nContent-"), None);
    }

    #[test]
    fn the_generator_measures_itself() {
        let scene = crate::crowd::mock::scene();
        let ceiling = measure(Arc::new(scene), Duration::from_millis(50)).unwrap();
        assert!(ceiling.per_second > 0.0);
    }
}
