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
