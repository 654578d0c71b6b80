//! The front of the listener: sets how long a connection may idle and how long a request's header may
//! take altogether, then hands the connection to Pingora's proxy. A faster way for answers from memory
//! belongs here, before the proxy.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lua_free_rules::config::RequestLimits;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

use crate::service::Service;

tokio::task_local! {
    /// Whether the header of the request that this task waits for has arrived.
    static HEADER_ARRIVED: Cell<bool>;
}

/// Called when a request's header is there: from here on other limits hold.
pub(crate) fn header_arrived() {
    // Outside the scope there is no deadline to lift.
    let _ = HEADER_ARRIVED.try_with(|arrived| arrived.set(true));
}

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
        let serve = async {
            let mut serve = std::pin::pin!(self.proxy.process_new_http(session, shutdown));
            let late = tokio::select! {
                biased;
                done = &mut serve => return done,
                () = tokio::time::sleep(self.header_within) => !HEADER_ARRIVED.with(Cell::get),
            };
            if late { None } else { serve.await }
        };
        HEADER_ARRIVED.scope(Cell::new(false), serve).await
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
