//! Request bodies: read whole at the edge before anything is decided or sent on, so that a slow client
//! never holds a place at an order server, and a body can be sent again to another one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT};
use lua_free_rules::refusal::Refusal;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use tokio::time::timeout;

/// What Pingora keeps of a body to send it again. A longer one is passed on as it arrives.
const REPLAY_MAX: usize = 64 << 10;
/// What is read of a body that nobody wants, so that the client gets to read the answer.
const LINGER_BYTES: usize = 1 << 20;
const LINGER_FOR: Duration = Duration::from_secs(1);

/// A body, or the part of its story that matters.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it.
    Whole(Bytes),
    /// Longer than can be sent again: within the limit, but not read.
    Long,
}

impl Body {
    /// All of it, if it was read.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Long => None,
        }
    }
}

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The client is told.
    Refused(Refusal),
    /// The connection is gone; there is nobody to tell.
    Gone(Box<Error>),
}

/// Reads the body, at most `body_max` bytes, within `within` altogether.
pub(crate) async fn read(
    session: &mut Session,
    body_max: usize,
    within: Duration,
) -> Result<Body, Fault> {
    let declared = declared_length(session);
    if declared.is_some_and(|length| length > body_max) {
        return Err(Fault::Refused(Refusal::TooLarge));
    }
    if session.is_body_empty() {
        return Ok(Body::Whole(Bytes::new()));
    }
    if declared.is_some_and(|length| length > REPLAY_MAX) {
        return Ok(Body::Long);
    }
    session.enable_retry_buffering();
    let whole = read_whole(session, body_max.min(REPLAY_MAX));
    let arrived = timeout(within, whole).await;
    arrived.unwrap_or_else(|_| {
        let words = "the body did not arrive in time".to_owned();
        Err(Fault::Refused(Refusal::BadParameter(words)))
    })
}

async fn read_whole(session: &mut Session, body_max: usize) -> Result<Body, Fault> {
    if session.get_header(EXPECT).is_some() {
        session
            .write_continue_response()
            .await
            .map_err(Fault::Gone)?;
    }
    let mut whole = BytesMut::new();
    loop {
        let chunk = session.read_request_body().await;
        let Some(chunk) = chunk.map_err(broken_off)? else {
            return Ok(Body::Whole(whole.freeze()));
        };
        if whole.len() + chunk.len() > body_max {
            return Err(Fault::Refused(Refusal::TooLarge));
        }
        whole.extend_from_slice(&chunk);
    }
}

/// A client that has stopped sending may still be reading.
fn broken_off(error: Box<Error>) -> Fault {
    match error.etype() {
        ErrorType::ConnectionClosed => {
            Fault::Refused(Refusal::BadParameter("the body broke off".to_owned()))
        }
        _ => Fault::Gone(error),
    }
}

/// Whether the client may hold its body back until it is asked for. One that gets a refusal instead
/// may never send it.
fn waits_for_go_ahead(session: &mut Session) -> bool {
    session.get_header(EXPECT).is_some() && !session.is_body_done()
}

fn declared_length(session: &Session) -> Option<usize> {
    let value = session.get_header(CONTENT_LENGTH)?.to_str().ok()?;
    // Pingora has refused what is no number; one beyond `usize` is beyond every limit too.
    Some(value.trim().parse().unwrap_or(usize::MAX))
}

/// Reads off a short body that was not asked for, so that the connection can serve on.
pub(crate) async fn discard_short(session: &mut Session, body_max: usize) {
    if waits_for_go_ahead(session) {
        // Whether a body or a request comes next is not to be told.
        session.set_keepalive(None);
        return;
    }
    if session.is_body_done() || declared_length(session).is_none_or(|length| length > body_max) {
        return;
    }
    // If it does not come, the connection is closed after the answer instead.
    let _ = timeout(LINGER_FOR, session.drain_request_body()).await;
}

/// After the answer to a request whose body was refused: reads on for a moment, since closing a
/// connection with unread bytes would throw the answer away before the client has read it.
pub(crate) async fn linger(session: &mut Session) {
    if session.is_body_done() || waits_for_go_ahead(session) {
        return;
    }
    let _ = timeout(LINGER_FOR, async {
        let mut read = 0;
        while let Ok(Some(chunk)) = session.read_request_body().await {
            read += chunk.len();
            if read > LINGER_BYTES {
                break;
            }
        }
    })
    .await;
}
