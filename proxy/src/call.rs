//! One request on its way: what is known of it so far. The fast path begins one, and hands it over to
//! Pingora's phases if it goes on to an order server; else the phases begin it.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use lua_free_rules::units::Timestamp;

use crate::answer::Answer;
use crate::drain::Entered;
use crate::edge::Edge;
use crate::gate::Arrived;
use crate::routes::{self, Kind, Route};
use crate::upstreams::{Lease, Upstream};

/// The outcome of a request that an order server answered.
pub(crate) const UPSTREAM: &str = "upstream";
/// The outcome of a request whose client went away.
pub(crate) const GONE: &str = "gone";

/// When a request arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub started: Instant,
    /// The same by the shop's clock.
    pub now: Timestamp,
}

impl Moment {
    /// This one.
    pub fn now(edge: &Edge) -> Self {
        Self {
            started: Instant::now(),
            now: edge.now(),
        }
    }
}

/// One request on its way through the phases.
pub(crate) struct Call {
    _entered: Entered,
    pub started: Instant,
    /// When it is decided on, by the shop's clock.
    pub now: Timestamp,
    pub client: IpAddr,
    /// The route's name; [`routes::NO_ROUTE`] until it is known.
    pub route: &'static str,
    pub kind: Option<Kind>,
    /// Whether the gate has let it pass already: it is not asked, nor counted against limits, twice.
    pub passed: bool,
    pub outcome: &'static str,
    /// The place at an order server.
    pub lease: Option<Lease>,
    /// The order server whose place was given back after it had answered.
    served_by: Option<Arc<Upstream>>,
    /// Order servers that failed this request.
    pub tried: Vec<SocketAddr>,
    pub attempts: usize,
}

impl Call {
    /// A request whose header has just arrived.
    pub fn new(edge: &Edge) -> Self {
        Self::at(edge, Moment::now(edge))
    }

    /// A request whose header has arrived at that moment.
    pub fn at(edge: &Edge, Moment { started, now }: Moment) -> Self {
        Self {
            _entered: edge.in_flight.enter(),
            started,
            now,
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            route: routes::NO_ROUTE,
            kind: None,
            passed: false,
            outcome: UPSTREAM,
            lease: None,
            served_by: None,
            tried: Vec::new(),
            attempts: 0,
        }
    }

    /// Takes in what its header says; returns its route.
    ///
    /// # Errors
    /// The answer, if it goes no further.
    pub fn arrive(&mut self, arrived: Arrived) -> Result<&'static Route, Answer> {
        self.client = arrived.client;
        let route = arrived.route?;
        (self.route, self.kind) = (route.name, Some(route.kind));
        Ok(route)
    }

    /// The order server has done its part: another request may have the place. The client may take long.
    pub fn give_back(&mut self) {
        self.served_by = self.lease.take().map(Lease::end);
    }

    /// The order server that has, or had, the request.
    pub fn upstream(&self) -> Option<&Upstream> {
        let now = self.lease.as_ref().map(Lease::upstream);
        now.or(self.served_by.as_deref())
    }
}

tokio::task_local! {
    static HANDED_OVER: Cell<Option<Call>>;
}

/// Runs `serve`, in which [`handed_over`] finds the call.
pub(crate) async fn hand_over<F: Future>(call: Option<Call>, serve: F) -> F::Output {
    HANDED_OVER.scope(Cell::new(call), serve).await
}

/// The call that was begun before Pingora had the request; `None` if there is none.
pub(crate) fn handed_over() -> Option<Call> {
    HANDED_OVER.try_with(Cell::take).ok().flatten()
}
