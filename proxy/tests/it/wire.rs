//! HTTP/1.1 by hand, to see what a connection does after an answer, and to send what no client would.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection, and what came on it beyond the last answer.
pub struct Wire(TcpStream, Vec<u8>);

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    /// The refusal's code.
    pub fn code(&self) -> u64 {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["data"]["errCode"].as_u64().unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        // What is sent in pieces is to arrive in pieces, and at once.
        stream.set_nodelay(true).unwrap();
        Self::of(stream)
    }

    pub const fn of(stream: TcpStream) -> Self {
        Self(stream, Vec::new())
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Whether the other end still takes bytes.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Ends this side: nothing more will be sent, but answers are still read.
    pub async fn end_sending(&mut self) {
        self.0.shutdown().await.unwrap();
    }

    pub async fn try_end_sending(&mut self) {
        // One that is closed has ended already.
        let _ = self.0.shutdown().await;
    }

    /// All that comes until the other end closes the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.1);
        // Whether it was closed or broken off, it has ended.
        let _ = self.0.read_to_end(&mut bytes).await;
        bytes
    }

    /// Sends a request without a body and reads the answer.
    pub async fn ask(&mut self, line: &str) -> Reply {
        self.send(format!("{line} HTTP/1.1\r\nHost: shop\r\n\r\n"))
            .await;
        self.reply(line.starts_with("HEAD")).await.unwrap()
    }

    /// The next answer; `None` if the connection was closed instead.
    pub async fn reply(&mut self, bodiless: bool) -> Option<Reply> {
        let mut bytes = std::mem::take(&mut self.1);
        let end = loop {
            if let Some(end) = find(&bytes, b"\r\n\r\n") {
                break end;
            }
            if self.0.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut reply = Reply {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: bytes[end + 4..].to_vec(),
        };
        let length = reply
            .header("content-length")
            .map_or(0, |n| n.parse().unwrap());
        while !bodiless && reply.body.len() < length {
            if self.0.read_buf(&mut reply.body).await.ok()? == 0 {
                return None;
            }
        }
        if !bodiless {
            self.1 = reply.body.split_off(length);
        }
        Some(reply)
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
