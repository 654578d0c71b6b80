//! What an idle connection costs: each has been answered once and is kept alive.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde::Serialize;

use super::Failure;

/// How long servers get to put away what a request needed.
const SETTLED: Duration = Duration::from_secs(2);

/// Memory for each idle connection.
#[derive(Debug, Serialize)]
pub struct Idle {
    /// Of which server.
    pub peer: &'static str,
    /// How many there were.
    pub connections: usize,
    /// KiB for each, in the server's own memory; buffers of the kernel are not in it.
    pub kib: f64,
}

/// Opens so many, asks once on each, and looks how much more memory the server has.
pub fn measure(
    peer: &'static str,
    port: u16,
    connections: usize,
    memory_kib: impl Fn() -> u64,
) -> Result<Idle, Failure> {
    let before = memory_kib();
    let mut open = Vec::with_capacity(connections);
    let mut buffer = [0; 16 * 1024];
    for _ in 0..connections {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /item/get?id=1 HTTP/1.1\r\nHost: shop\r\n\r\n")?;
        if stream.read(&mut buffer)? == 0 {
            return Err(format!("{peer} closed a connection").into());
        }
        open.push(stream);
    }
    std::thread::sleep(SETTLED);
    let more = memory_kib().saturating_sub(before);
    Ok(Idle {
        peer,
        connections,
        kib: more as f64 / connections.max(1) as f64,
    })
}
