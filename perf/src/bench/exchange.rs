//! One request, and the only answer to it that is right; or whatever is answered.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::Failure;

/// Longest that an answer is waited for by who only wants to see it.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// What is sent, and what has to come back.
#[derive(Debug, Clone)]
pub struct Exchange {
    request: Vec<u8>,
    status: u16,
    body: Vec<u8>,
}

impl Exchange {
    /// A request as it is sent, byte for byte.
    pub const fn new(request: Vec<u8>, status: u16, body: Vec<u8>) -> Self {
        Self {
            request,
            status,
            body,
        }
    }

    /// What is sent.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Whether the answer is there as a whole, given what has arrived since the request.
    ///
    /// # Errors
    /// If it is, or is about to be, another one than the right one.
    pub fn is_answered(&self, arrived: &[u8]) -> Result<bool, Failure> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(end) = response.parse(arrived)? else {
            return Ok(false);
        };
        let status = response.code.unwrap_or_default();
        if status != self.status {
            return Err(format!("answered {status}, not {}", self.status).into());
        }
        let (length, right) = (length(&response)?, self.body.len());
        if length != right {
            return Err(format!("an answer of {length} bytes, not {right}").into());
        }
        let body = arrived.get(end..).unwrap_or_default();
        if body.len() < self.body.len() {
            return Ok(false);
        }
        if body != self.body {
            return Err("an answer with another body".into());
        }
        Ok(true)
    }
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
    /// How long it was, its head included.
    pub length: usize,
    headers: Vec<(String, String)>,
}

impl Answer {
    /// A header field, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(other, _)| other == name);
        field.map(|(_, value)| value.as_str())
    }

    #[cfg(test)]
    pub(super) const fn of(status: u16, length: usize) -> Self {
        Self {
            status,
            body: Vec::new(),
            length,
            headers: Vec::new(),
        }
    }

    fn read(arrived: &[u8]) -> Result<Option<Self>, Failure> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(end) = response.parse(arrived)? else {
            return Ok(None);
        };
        let length = end + length(&response)?;
        let Some(body) = arrived.get(end..length) else {
            return Ok(None);
        };
        let fields = response.headers.iter().map(|header| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_ascii_lowercase(), value)
        });
        Ok(Some(Self {
            status: response.code.unwrap_or_default(),
            body: body.to_vec(),
            length,
            headers: fields.collect(),
        }))
    }
}

/// How long the body of an answer is. Who has it already gets none, whatever length is named.
fn length(response: &httparse::Response<'_, '_>) -> Result<usize, Failure> {
    if response.code == Some(304) {
        return Ok(0);
    }
    let mut headers = response.headers.iter();
    let field = headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let value = field.ok_or("an answer without a length")?.value;
    Ok(std::str::from_utf8(value)?.parse()?)
}

/// Sends one request, as it is, and says what is answered.
///
/// # Errors
/// If there is no answer in time, or none that can be read.
pub fn fetch(port: u16, request: &str) -> Result<Answer, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SEEN_WITHIN))?;
    stream.write_all(request.as_bytes())?;
    let mut arrived = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        if let Some(answer) = Answer::read(&arrived)? {
            return Ok(answer);
        }
        match stream.read(&mut buffer)? {
            0 => return Err("an answer that was cut off".into()),
            count => arrived.extend(buffer.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_answer_is_one() {
        let exchange = Exchange::new(Vec::new(), 200, b"yes".to_vec());
        let right = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes";
        for cut in 0..right.len() {
            assert!(!exchange.is_answered(&right[..cut]).unwrap(), "{cut}");
        }
        assert!(exchange.is_answered(right).unwrap());
        for wrong in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nyes",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyep",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes, and more",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n",
            "no HTTP at all",
        ] {
            assert!(exchange.is_answered(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let unchanged = Exchange::new(Vec::new(), 304, Vec::new());
        let answer = b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n";
        assert!(unchanged.is_answered(answer).unwrap());
        let answer = Answer::read(answer).unwrap().unwrap();
        assert_eq!((answer.status, answer.header("etag")), (304, Some("\"a\"")));
    }
}
