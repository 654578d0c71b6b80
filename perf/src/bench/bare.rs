//! A responder that does nothing but answer: what any server on this machine costs at least. It waits with
//! epoll, reads, and writes the same prepared bytes for each request that it sees the end of.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::Failure;

const LISTENER: Token = Token(0);
/// More than the requests that arrive together on one connection here.
const READ_BYTES: usize = 16 * 1024;
/// Connections that may wait to be taken, as with the servers beside it.
const BACKLOG: i32 = 4_096;

/// Answers with the file's content for ever, on so many threads.
///
/// # Errors
/// If the address is taken, or the file cannot be read.
pub fn run(port: u16, status: u16, body: &Path, workers: usize) -> Result<(), Failure> {
    let body = std::fs::read(body)?;
    // What an order server says is for one buyer; an item is for all, and caches ask how long it lasts.
    let words = match status {
        200 => "OK\r\nCache-Control: public, max-age=3600",
        _ => "Accepted\r\nCache-Control: no-store",
    };
    let mut answer = format!(
        "HTTP/1.1 {status} {words}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    // Usually 128 may wait; where more come at once, some would be asked to come again after a second.
    rustix::net::listen(&listener, BACKLOG)?;
    std::thread::scope(|threads| {
        let mut all = Vec::new();
        for _ in 0..workers.max(1) {
            let listener = listener.try_clone()?;
            let answer = &answer;
            all.push(threads.spawn(move || serve(TcpListener::from_std(listener), answer)));
        }
        for thread in all {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

fn serve(mut listener: TcpListener, answer: &[u8]) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1_024);
    let mut open: HashMap<Token, Connection> = HashMap::new();
    let mut last = LISTENER.0;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    last += 1;
                    stream.set_nodelay(true)?;
                    poll.registry()
                        .register(&mut stream, Token(last), Interest::READABLE)?;
                    let begun = Vec::new();
                    open.insert(Token(last), Connection { stream, begun });
                }
            } else if let Some(connection) = open.get_mut(&event.token())
                && !connection.answered(&mut buffer, answer)
            {
                open.remove(&event.token());
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// What has arrived of a request that is not whole yet.
    begun: Vec<u8>,
}

impl Connection {
    /// Answers what has arrived; false if the connection is over.
    fn answered(&mut self, buffer: &mut [u8], answer: &[u8]) -> bool {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            let read = buffer.get(..count).unwrap_or_default();
            let (requests, rest) = if self.begun.is_empty() {
                whole(read)
            } else {
                self.begun.extend(read);
                whole(&self.begun)
            };
            self.begun = rest.to_vec();
            for _ in 0..requests {
                if self.stream.write_all(answer).is_err() {
                    return false;
                }
            }
            // What is shorter than it could be was all there is.
            if count < buffer.len() {
                return true;
            }
        }
    }
}

/// How many whole requests there are, and what follows them.
fn whole(mut bytes: &[u8]) -> (usize, &[u8]) {
    let mut requests = 0;
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let (head, rest) = bytes.split_at(end + 4);
        let Some(next) = rest.get(body_bytes(head)..) else {
            break;
        };
        requests += 1;
        bytes = next;
    }
    (requests, bytes)
}

/// How long the body is that a head tells of.
fn body_bytes(head: &[u8]) -> usize {
    if !head.starts_with(b"POST") {
        return 0;
    }
    let length = |line: &[u8]| {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    };
    let length = head.split(|byte| *byte == b'\n').find_map(length);
    length.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_its_body() {
        let get = b"GET / HTTP/1.1\r\n\r\n".as_slice();
        let post = b"POST / HTTP/1.1\r\ncontent-LENGTH: 6\r\n\r\n\r\n\r\nab".as_slice();
        let both = [get, post, get].concat();
        assert_eq!(whole(&both), (3, &b""[..]));
        for end in get.len()..get.len() + post.len() {
            assert_eq!(whole(&both[..end]), (1, &both[get.len()..end]));
        }
        assert_eq!(whole(b"GET /"), (0, &b"GET /"[..]));
    }
}
