//! Connections that are held open: each was answered once, then left idle.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::Failure;
use super::exchange::Exchange;

/// Longest that one answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// So many of them, to one server.
#[derive(Debug)]
pub struct Held {
    streams: Vec<TcpStream>,
}

impl Held {
    /// Opens so many to a port of this machine, and asks once on each.
    ///
    /// # Errors
    /// If one is refused, or answered wrongly.
    pub fn open(port: u16, count: usize, exchange: &Exchange) -> Result<Self, Failure> {
        let mut streams = Vec::with_capacity(count);
        for number in 1..=count {
            let stream = opened(port, exchange);
            streams.push(
                stream.map_err(|error| format!("idle connection {number} of {count}: {error}"))?,
            );
        }
        Ok(Self { streams })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Asks again on every one of them.
    ///
    /// # Errors
    /// If one was closed meanwhile, or is answered wrongly.
    pub fn ask(&mut self, exchange: &Exchange) -> Result<(), Failure> {
        let count = self.len();
        for (index, stream) in self.streams.iter_mut().enumerate() {
            asked(stream, exchange).map_err(|error| {
                format!(
                    "connection {} of {count}, idle until now: {error}",
                    index + 1
                )
            })?;
        }
        Ok(())
    }
}

fn opened(port: u16, exchange: &Exchange) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWERED_WITHIN))?;
    asked(&mut stream, exchange)?;
    Ok(stream)
}

fn asked(stream: &mut TcpStream, exchange: &Exchange) -> Result<(), Failure> {
    stream.write_all(exchange.request())?;
    let mut arrived = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while !exchange.is_answered(&arrived)? {
        match stream.read(&mut buffer)? {
            0 => return Err("it was closed".into()),
            count => arrived.extend(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers so many requests on each connection, then closes it.
    fn responder(answers: usize) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 1_024];
                    for _ in 0..answers {
                        let _ = stream.read(&mut buffer);
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    }
                });
            }
        });
        port
    }

    #[test]
    fn one_that_was_closed_meanwhile_is_found() {
        let exchange = Exchange::new(b"GET / HTTP/1.1\r\n\r\n".to_vec(), 200, b"ok".to_vec());
        let mut held = Held::open(responder(2), 3, &exchange).unwrap();
        held.ask(&exchange).unwrap();
        assert!(held.ask(&exchange).is_err());
        let mut held = Held::open(responder(1), 3, &exchange).unwrap();
        let error = held.ask(&exchange).unwrap_err().to_string();
        assert!(error.starts_with("connection 1 of 3"), "{error}");
        assert!(Held::open(responder(0), 3, &exchange).is_err());
    }
}
