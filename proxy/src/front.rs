//! The front of Pingora's proxy: sets how long a connection may idle and how long a request's header may
//! take altogether, then hands the connection to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use lua_free_rules::config::RequestLimits;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

use crate::call::{self, Call};
use crate::deadline;
use crate::service::Service;

/// What is collected before it is written, on a plain connection: the header of a short answer travels with its
/// body. Longer writes are not copied.
pub(crate) const WRITTEN_AT_ONCE: usize = 1 << 10;

/// The application behind the listener.
pub(crate) struct Front {
    proxy: Arc<HttpProxy<Service>>,
    options: HttpServerOptions,
    headers_max: u32,
    idle_s: u64,
    read_timeout: Duration,
    /// From the moment the connection is ready for a request: idle first, then slow, but no longer.
    header_within: Duration,
}

impl Front {
    pub fn new(proxy: HttpProxy<Service>, limits: &RequestLimits) -> Self {
        let idle = limits.idle_timeout.duration();
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(idle);
        Self {
            proxy: Arc::new(proxy),
            options,
            headers_max: u32::try_from(limits.headers_max.0).unwrap_or(u32::MAX),
            idle_s: idle.as_secs().max(1), // Pingora takes zero for "for ever"
            read_timeout: limits.read_timeout.duration(),
            header_within: idle.saturating_add(limits.read_timeout.duration()),
        }
    }

    /// Serves one request of an HTTP/1.1 connection, of which `read` has been read. `call` is `None` if
    /// nothing was decided about it. Gives the connection back if another request may follow: then
    /// nothing of this one is left on it.
    pub async fn serve_one(
        self: &Arc<Self>,
        stream: Stream,
        read: BytesMut,
        call: Option<Call>,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let mut session = ServerSession::new_http1(stream);
        let stopping = *shutdown.borrow();
        session.set_keepalive((!stopping).then_some(self.idle_s));
        // Pipelining stays off: Pingora closes a connection on which more came than this request.
        session.set_pipelined_prefix(read);
        let serve = self.process_new_http(session, shutdown);
        let (stream, _settings) = call::hand_over(call, serve).await?.consume();
        Some(stream)
    }
}

#[async_trait]
impl HttpServerApp for Front {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(self.idle_s));
        }
        session.set_read_timeout(Some(self.read_timeout));
        session.set_write_timeout(Some(self.read_timeout));
        session.set_total_drain_timeout(Some(self.read_timeout));
        let serve = self.proxy.process_new_http(session, shutdown);
        deadline::until_header(self.header_within, serve)
            .await
            .flatten()
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = default_h2_options();
        options.max_header_list_size(self.headers_max);
        Some(options)
    }
}
