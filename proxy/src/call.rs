//! One request on its way through Pingora's phases: what is known of it so far.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use crate::drain::Entered;
use crate::routes::{self, Kind};
use crate::upstreams::Lease;

/// The outcome of a request that an order server answered.
const UPSTREAM: &str = "upstream";

/// One request on its way through the phases.
pub(crate) struct Call {
    _entered: Entered,
    pub started: Instant,
    pub client: IpAddr,
    /// The route's name; [`routes::NO_ROUTE`] until it is known.
    pub route: &'static str,
    pub kind: Option<Kind>,
    pub outcome: &'static str,
    /// The place at an order server.
    pub lease: Option<Lease>,
    /// Order servers that failed this request.
    pub tried: Vec<SocketAddr>,
    pub attempts: usize,
}

impl Call {
    /// A request whose header has just arrived.
    pub fn new(entered: Entered) -> Self {
        Self {
            _entered: entered,
            started: Instant::now(),
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            route: routes::NO_ROUTE,
            kind: None,
            outcome: UPSTREAM,
            lease: None,
            tried: Vec::new(),
            attempts: 0,
        }
    }
}
