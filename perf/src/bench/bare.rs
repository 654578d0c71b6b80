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

/// Answers with the file's content for ever, on so many threads.
///
/// # Errors
/// If the address is taken, or the file cannot be read.
pub fn run(port: u16, body: &Path, workers: usize) -> Result<(), Failure> {
    let body = std::fs::read(body)?;
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: public, max-age=3600\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
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
    let mut streams: HashMap<Token, TcpStream> = HashMap::new();
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
                    streams.insert(Token(last), stream);
                }
            } else if let Some(stream) = streams.get_mut(&event.token())
                && !answered(stream, &mut buffer, answer)
            {
                streams.remove(&event.token());
            }
        }
    }
}

/// Answers what has arrived; false if the connection is over.
fn answered(stream: &mut TcpStream, buffer: &mut [u8], answer: &[u8]) -> bool {
    loop {
        let count = match stream.read(buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let read = buffer.get(..count).unwrap_or_default();
        let requests = read.windows(4).filter(|four| four == b"\r\n\r\n").count();
        for _ in 0..requests {
            if stream.write_all(answer).is_err() {
                return false;
            }
        }
        // What is shorter than it could be was all there is.
        if count < buffer.len() {
            return true;
        }
    }
}
