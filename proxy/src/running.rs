//! Starting and stopping the edge.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::{Clock, SharedEngine, SystemClock};
use lua_free_rules::config;
use lua_free_rules::keys::KeyRing;
use lua_free_rules::units::Millis;
use pingora::listeners::tls::TlsSettings;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::Service as _;
use pingora::services::listening::Service as Listening;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connections::{Connections, Counted};
use crate::drain::InFlight;
use crate::edge::Edge;
use crate::error::ProxyError;
use crate::fast_path::{FastPath, Reactor};
use crate::front::{Front, WRITTEN_AT_ONCE};
use crate::item_cache::{ItemCache, Source};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::puzzles::{self, Pool};
use crate::service::Service;
use crate::tls::Tls;
use crate::upstreams::Upstreams;
use crate::workers::{self, Workers};
use crate::{admin, forward, listeners, signals, tally};

/// How long threads have, when stopping begins, to look at what has come.
const SETTLE: Duration = Duration::from_millis(20);

/// What the edge needs to start.
pub struct Settings {
    /// The edge's part of `floodgate.toml`. Its addresses, upstreams and folder of pages are not
    /// looked at: the resolved ones are below.
    pub edge: config::Edge,
    /// Where buyers come in; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The admin listener; port 0 lets the system choose.
    pub admin: SocketAddr,
    /// The order servers.
    pub upstreams: Vec<SocketAddr>,
    /// The folder of the pages.
    pub pages: PathBuf,
    /// The keys that sign sessions, challenges and tokens.
    pub keys: KeyRing,
    /// The operator's token.
    pub operator_token: String,
    /// How long after its token's expiry an order may be submitted again.
    pub resubmit_for: Millis,
}

/// A started edge. Dropped without [`Running::stop`], it drops what it is doing.
pub struct Running {
    /// Where buyers come in.
    pub listen: SocketAddr,
    /// Where `/live`, `/ready` and `/metrics` are answered.
    pub admin: SocketAddr,
    workers: Workers,
    in_flight: Arc<InFlight>,
    _background: JoinSet<()>,
}

/// Starts the edge: threads of its own that serve, and on the caller's runtime what goes on beside them. It
/// accepts requests when this returns.
///
/// # Errors
/// Says what the operator has to mend.
pub async fn start(settings: Settings, engine: SharedEngine) -> Result<Running, ProxyError> {
    start_with_clock(settings, engine, Arc::new(SystemClock)).await
}

/// Starts the edge on a clock of the caller's, for tests and simulations. Rates, tokens and promo
/// phases follow it; caches and timeouts follow the machine.
///
/// # Errors
/// Says what the operator has to mend.
pub async fn start_with_clock(
    settings: Settings,
    engine: SharedEngine,
    clock: Arc<dyn Clock>,
) -> Result<Running, ProxyError> {
    let tls = settings.edge.tls.as_ref().map(Tls::read).transpose()?;
    let admin_listener = tokio::net::TcpListener::from_std(bind(settings.admin)?);
    let admin_failed = |source| ProxyError::Listen {
        address: settings.admin,
        source,
    };
    let admin_listener = admin_listener.map_err(admin_failed)?;
    let admin = admin_listener.local_addr().map_err(admin_failed)?;
    let failed = |source| ProxyError::Listen {
        address: settings.listen,
        source,
    };
    let threads = workers::count(settings.edge.threads);
    let listeners = listeners::open(settings.listen, threads).map_err(failed)?;
    let listen = listeners
        .first()
        .map_or(Ok(settings.listen), TcpListener::local_addr);
    let listen = listen.map_err(failed)?;

    let edge = Arc::new(build(settings, engine, clock)?);
    let mut background = JoinSet::new();
    // Listens before it asks, so that nothing falls between.
    background.spawn(signals::follow(edge.clone(), edge.engine.listen()));
    edge.promos.poll(&edge.engine).await;
    background.spawn(edge.promos.clone().follow(edge.engine.clone()));
    background.spawn(edge.images.clone().refill());
    background.spawn(edge.proofs.clone().refill());
    let checks = edge.upstreams.clone();
    background.spawn(checks.check(client(&edge.config)?, edge.metrics.clone()));
    background.spawn(admin::serve(admin_listener, edge.clone()));

    let in_flight = edge.in_flight.clone();
    let limits = &edge.config.limits;
    let connections = Arc::new(Connections::new(
        (limits.connections_max, limits.connections_per_address_max),
        edge.config.trusted_proxies.clone(),
        edge.metrics.connections.clone(),
        edge.metrics.connections_refused.clone(),
    ));
    let pin = edge.config.pin_threads;
    let post = |listener| {
        Ok(Post {
            address: listen,
            listener,
            tls: tls.as_ref().map(Tls::settings).transpose()?,
            edge: edge.clone(),
            connections: connections.clone(),
        })
    };
    let posts = listeners.into_iter().map(post);
    let posts = posts.collect::<Result<_, ProxyError>>()?;
    let workers = Workers::start(posts, pin, tally::tell, accept)?;
    tracing::info!(%listen, %admin, "the edge is open");
    Ok(Running {
        listen,
        admin,
        workers,
        in_flight,
        _background: background,
    })
}

impl Running {
    /// Stops accepting, closes idle connections, and returns as soon as no request is in flight, at
    /// the latest after `grace`.
    pub async fn stop(mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.in_flight.begin_drain();
        let drained = timeout_at(deadline, async {
            self.workers.stop_accepting().await;
            // What has come on a connection by now is looked at.
            sleep(SETTLE).await;
            self.in_flight.drained().await;
        });
        if drained.await.is_err() {
            tracing::warn!("the grace limit has passed; requests in flight are dropped");
        }
        self.workers.end().await;
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, ProxyError> {
    TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|source| ProxyError::Listen { address, source })
}

/// Everything but the listeners.
///
/// # Errors
/// Says what the operator has to mend.
pub(crate) fn build(
    settings: Settings,
    engine: SharedEngine,
    clock: Arc<dyn Clock>,
) -> Result<Edge, ProxyError> {
    let config = settings.edge;
    let metrics = Arc::new(Metrics::new()?);
    let limits = &config.limits;
    let upstreams = Arc::new(Upstreams::new(&settings.upstreams, limits.in_flight_max));
    let source = Source::new(
        upstreams.clone(),
        client(&config)?,
        limits.upstream_timeout.duration(),
        metrics.clone(),
    );
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret)?;
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let size = config.puzzles.pool;
    let images = puzzles::image_maker(&config.puzzles);
    let proofs = puzzles::proof_maker(&config.puzzles, secret);
    let https = config.tls.is_some() || config.behind_tls;
    Ok(Edge {
        keys: settings.keys,
        operator_token: settings.operator_token,
        resubmit_for: settings.resubmit_for,
        secure_cookies: https || !settings.listen.ip().is_loopback(),
        https,
        engine,
        promos: Arc::default(),
        clock,
        items: Arc::new(ItemCache::new(&config.item_cache, source)),
        limits: Limits::new(config.rates.keys_max),
        pages: Pages::load(&settings.pages, config.tls.is_some())?,
        images: Arc::new(Pool::new(size, metrics.images_ready.clone(), images)),
        proofs: Arc::new(Pool::new(size, metrics.proofs_ready.clone(), proofs)),
        upstreams,
        in_flight: Arc::default(),
        metrics,
        config,
    })
}

/// A client for what the edge itself asks of order servers.
fn client(config: &config::Edge) -> Result<reqwest::Client, ProxyError> {
    let client = reqwest::Client::builder()
        .connect_timeout(config.limits.connect_timeout.duration())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    Ok(client.build()?)
}

/// What a thread needs to take connections.
struct Post {
    address: SocketAddr,
    listener: TcpListener,
    tls: Option<TlsSettings>,
    edge: Arc<Edge>,
    connections: Arc<Connections>,
}

/// A thread takes connections. When this is dropped and nobody has said so, the thread is lost: the edge is no
/// longer ready, so that an operator or a supervisor has it started anew.
struct Serving {
    edge: Arc<Edge>,
    shutdown: ShutdownWatch,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let is_wanted = self.shutdown.has_changed().is_ok() && !*self.shutdown.borrow();
        if is_wanted {
            self.edge.metrics.threads_lost.inc();
            tracing::error!("a thread of the edge takes no more connections");
        }
    }
}

/// Takes connections on one thread, and serves them, until it is to stop.
async fn accept(post: Post, shutdown: ShutdownWatch) {
    let _serving = Serving {
        edge: post.edge.clone(),
        shutdown: shutdown.clone(),
    };
    tally::begin(post.edge.metrics.clone());
    let conf = ServerConf {
        max_retries: forward::ATTEMPTS_MAX,
        ..ServerConf::default()
    };
    let limits = post.edge.config.limits.clone();
    let proxy = http_proxy(&Arc::new(conf), Service(post.edge.clone()));
    let fast_path = FastPath::new(post.edge, Front::new(proxy, &limits));
    let links = fast_path.links();
    tokio::spawn(async move { links.expire().await });
    match post.tls {
        None if fast_path.is_enabled() => {
            let (open, closed) = oneshot::channel();
            let (fast_path, connections) = (Arc::new(fast_path), post.connections);
            let reactor = Reactor::new(fast_path, connections, post.listener, open, &shutdown);
            match reactor {
                Ok(reactor) => drop(tokio::spawn(reactor.run())),
                Err(error) => tracing::error!(%error, "connections cannot be watched"),
            }
            // Either way nobody can come any more.
            let _ = closed.await;
        }
        tls => {
            let app = Counted::new(fast_path, post.connections);
            listen(app, post.address, post.listener, tls, shutdown).await;
        }
    }
}

/// Lets Pingora accept connections, and decrypt them, until it is to stop.
async fn listen(
    app: Counted<FastPath>,
    address: SocketAddr,
    listener: TcpListener,
    tls: Option<TlsSettings>,
    shutdown: ShutdownWatch,
) {
    let mut listening = Listening::new("edge".to_owned(), app);
    let address = address.to_string();
    let endpoint = ListenerConfig::tcp(&address);
    listening.add_listener(match tls {
        Some(tls) => endpoint.tls(tls),
        // Whoever reads has a buffer of his own.
        None => endpoint.l4_buffer(L4BufferSettings::new(0, WRITTEN_AT_ONCE)),
    });
    // Pingora finds the bound socket under its address.
    let mut fds = Fds::new();
    fds.add(address, listener.into_raw_fd());
    let fds: ListenFds = Arc::new(fds.into());
    listening.start_service(Some(fds), shutdown, 1).await;
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::connections::tests::connections;
    use crate::edge::tests::edge;

    #[tokio::test]
    async fn a_thread_that_ends_unasked_is_lost() {
        let files = tempfile::tempdir().unwrap();
        let edge = Arc::new(edge(files.path()));
        let lost = || edge.metrics.threads_lost.get();
        for is_asked in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            let post = Post {
                address,
                listener,
                tls: None,
                edge: edge.clone(),
                connections: Arc::new(connections(5)),
            };
            let (stopping, shutdown) = watch::channel(false);
            let accepting = tokio::spawn(accept(post, shutdown));
            let client = tokio::net::TcpStream::connect(address).await;
            client.unwrap();
            if is_asked {
                stopping.send_replace(true);
                accepting.await.unwrap();
                assert_eq!(lost(), 0);
            } else {
                accepting.abort();
                assert!(accepting.await.unwrap_err().is_cancelled());
                assert_eq!(lost(), 1);
            }
        }
    }
}
