//! Passes an order on to an order server without a session of Pingora's: the request goes out in one piece,
//! and the answer comes back in one.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod` | the tries, and what comes of them |
//! | `request` | the request as an order server gets it |
//! | `reply` | which answers are taken: those that can be read in one way only |
//! | `links` | connections to order servers, kept from one order to the next |
//!
//! Which order server, how often, and what a failure means is `forward`'s, as it is on Pingora's way. An
//! answer is here whole before the client gets its first byte: one that breaks off is asked for again. One
//! that cannot be taken (in chunks, say) is left to Pingora, which asks for it again: an order may be sent
//! twice, for its key makes the two one.

mod links;
mod reply;
mod request;

use std::io;
use std::net::SocketAddr;

use lua_free_rules::config::RequestLimits;
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wire::Message;
use super::{head, spare};
use crate::call::Call;
use crate::edge::Edge;
use crate::forward;
use reply::Reading;

pub(crate) use links::Links;
pub(super) use request::write as write_request;

/// Room for a usual answer.
const READ_BYTES: usize = 4 << 10;

/// What comes of a request that is passed on.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Message),
    /// It was answered in a way that is not taken here.
    Unusual,
    /// No order server has a place for it.
    Full,
    /// All tries failed.
    Failed,
}

/// A try that brought no answer.
struct Failure {
    error: Box<Error>,
    sent: Sent,
}

/// How far it came.
enum Sent {
    /// There was no connection.
    Nothing,
    /// Something went out, on a connection that may have been used before.
    Something { is_reused: bool },
}

/// Sends an order until it is answered, or there is nobody left to send it to. `keep` tells whether the client
/// may send another request when he has his answer.
pub(super) async fn carry(
    edge: &Edge,
    links: &Links,
    call: &mut Call,
    request: &[u8],
    keep: impl Fn() -> bool,
) -> Outcome {
    call.lease = edge.upstreams.lease(&call.tried);
    while let Some(lease) = &call.lease {
        if lease.upstream().answers_oddly() {
            return Outcome::Unusual;
        }
        let Some(address) = forward::count_attempt(edge, call) else {
            break;
        };
        match attempt(edge, links, address, request, &keep).await {
            Ok(Some(message)) => return Outcome::Answered(message),
            Ok(None) => {
                if let Some(lease) = &call.lease {
                    lease.upstream().note_odd_answer();
                }
                return Outcome::Unusual;
            }
            Err(Failure { mut error, sent }) => match sent {
                Sent::Nothing => forward::after_no_connection(edge, call, &mut error),
                Sent::Something { is_reused } => {
                    forward::try_elsewhere(edge, call, &mut error, is_reused);
                }
            },
        }
    }
    if call.attempts == 0 {
        Outcome::Full
    } else {
        Outcome::Failed
    }
}

/// One try. `None` if the answer cannot be taken.
async fn attempt(
    edge: &Edge,
    links: &Links,
    address: SocketAddr,
    request: &[u8],
    keep: &impl Fn() -> bool,
) -> Result<Option<Message>, Failure> {
    let limits = &edge.config.limits;
    let (mut link, is_reused) = match links.take(address) {
        Some(link) => (link, true),
        None => {
            let connected = connect(address, limits).await;
            let sent = Sent::Nothing;
            let link = connected.map_err(|error| Failure { error, sent })?;
            (link, false)
        }
    };
    let mut heard = spare::take();
    let exchange = exchange(edge, &mut link, request, &mut heard, keep);
    let exchanged = timeout(limits.upstream_timeout.duration(), exchange).await;
    spare::give(heard);
    let failed = |kind, cause: io::Error| {
        if is_reused && is_ended(&cause) {
            links.forget(address);
        }
        Failure {
            error: Error::because(kind, "no answer", cause).into_up(),
            sent: Sent::Something { is_reused },
        }
    };
    match exchanged {
        Ok(Ok(Some((message, keeps)))) => {
            if keeps {
                links.keep(address, link);
            }
            Ok(Some(message))
        }
        Ok(Ok(None)) => Ok(None),
        Ok(Err(cause)) => Err(failed(ErrorType::ReadError, cause)),
        Err(elapsed) => Err(failed(ErrorType::ReadTimedout, elapsed.into())),
    }
}

/// Whether the other end has closed the connection.
fn is_ended(cause: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(cause.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

async fn connect(address: SocketAddr, limits: &RequestLimits) -> Result<TcpStream> {
    let connecting = async {
        let link = TcpStream::connect(address).await?;
        link.set_nodelay(true)?;
        Ok(link)
    };
    let within = limits.connect_timeout.duration();
    let connected = timeout(within, connecting).await;
    connected
        .unwrap_or_else(|elapsed| Err(elapsed.into()))
        .map_err(|cause: io::Error| {
            let kind = match cause.kind() {
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                    ErrorType::ConnectNoRoute
                }
                io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, "no connection", cause).into_up()
        })
}

/// Sends the request, and reads the answer; tells whether the connection may be used again.
async fn exchange(
    edge: &Edge,
    link: &mut TcpStream,
    request: &[u8],
    heard: &mut Vec<u8>,
    keep: &impl Fn() -> bool,
) -> io::Result<Option<(Message, bool)>> {
    link.write_all(request).await?;
    loop {
        heard.reserve(READ_BYTES);
        if link.read_buf(heard).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match reply::read(heard, &mut head::space()) {
            Reading::Partial => {}
            Reading::Unusual => return Ok(None),
            Reading::Whole(reply) => {
                for signal in reply.signals() {
                    forward::take_signal(edge, signal);
                }
                return Ok(Some((reply.for_client(keep()), reply.keeps)));
            }
        }
    }
}
