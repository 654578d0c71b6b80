//! A peer in the place of an order server: answers as told, and remembers what reached it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// What a long answer takes.
const LONG_BYTES: usize = 60_000;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Answer,
    /// 500.
    Fail,
    /// Reads the request, then closes the connection.
    Cut,
    /// Answers once `release` has a permit for it.
    Hold,
    /// Answers with this many as the sold-out signal's epoch.
    SoldOut(i64),
    /// Answers at length.
    Long,
}

/// A request that reached it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

pub struct Peer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    mode: Mutex<Mode>,
    title: Mutex<&'static str>,
    seen: Mutex<Vec<Seen>>,
    arrived: Semaphore,
    release: Semaphore,
}

impl Peer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Answer),
            title: Mutex::new("Sneakers"),
            seen: Mutex::default(),
            arrived: Semaphore::new(0),
            release: Semaphore::new(0),
        });
        let serving = tokio::spawn(accept(listener, shared.clone()));
        Self {
            address,
            shared,
            serving,
        }
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Calls its item otherwise. What arrived before is answered with the old name.
    pub fn rename(&self, title: &'static str) {
        *self.shared.title.lock().unwrap() = title;
    }

    /// What reached it, checks left out.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests for `path` reached it.
    pub fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path == path).count()
    }

    /// Waits until one more request has arrived.
    pub async fn arrived(&self) {
        self.shared.arrived.acquire().await.unwrap().forget();
    }

    /// Lets so many held requests go on.
    pub fn release(&self, count: usize) {
        self.shared.release.add_permits(count);
    }

    /// Gone: connections are closed and new ones refused.
    pub async fn stop(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = shared.clone();
        connections.spawn(async move {
            let answer = service_fn(move |request| answer(shared.clone(), request));
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct CutOff;

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, CutOff> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/live" {
        return Ok(Response::new(Full::default()));
    }
    let body = body.collect().await.map_err(|_| CutOff)?.to_bytes();
    shared.seen.lock().unwrap().push(Seen {
        path: parts.uri.to_string(),
        headers: parts.headers,
        body,
    });
    let content = content(&parts.uri, *shared.title.lock().unwrap());
    shared.arrived.add_permits(1);
    let mode = *shared.mode.lock().unwrap();
    match mode {
        Mode::Cut => return Err(CutOff),
        Mode::Hold => shared.release.acquire().await.unwrap().forget(),
        Mode::Answer | Mode::Fail | Mode::SoldOut(_) | Mode::Long => {}
    }
    let content = match mode {
        Mode::Long => vec![b' '; LONG_BYTES].into(),
        _ => content,
    };
    let mut response = Response::new(Full::new(content));
    if mode == Mode::Fail {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    } else if parts.uri.query() == Some("id=404") {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    if let Mode::SoldOut(epoch) = mode {
        let signal = format!("7;1;{epoch};1").parse().unwrap();
        response.headers_mut().insert("floodgate-sold-out", signal);
    }
    Ok::<_, Infallible>(response).map_err(|never| match never {})
}

fn content(uri: &http::Uri, title: &str) -> Bytes {
    let item = format!(
        r#"{{"id":3,"title":"{title}","price":"129.00","stock":400,"description":"","sales":0,"imgUrl":"/a.svg"}}"#
    );
    let data = match uri.path() {
        "/item/get" => item,
        "/item/list" => format!("[{item}]"),
        _ => r#"{"from":"peer"}"#.to_owned(),
    };
    format!(r#"{{"status":"success","data":{data}}}"#).into()
}
