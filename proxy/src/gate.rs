//! The gate: gathers the facts of a request, asks the rules, and answers or lets it pass.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use lua_free_rules::admission::{self, OrderFacts};
use lua_free_rules::fields::Fields;
use lua_free_rules::limit::{Arrival, Verdict};
use lua_free_rules::purchase::Purchase;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::{self, Access, Session as SignedIn};
use pingora::Result;
use pingora::proxy::Session;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::answer::Answer;
use crate::body::{self, Body, Fault};
use crate::edge::Edge;
use crate::limits::{Key, Network};
use crate::routes::{self, Guard, Kind, NoRoute, Route};
use crate::{challenges, client, shop, tokens};

/// The longest path with its query.
const URL_BYTES_MAX: usize = 4_096;
/// The header that makes an order repeatable.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header in which browsers tell where a request was made.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// One year: browsers that came by https once come by nothing else.
const HTTPS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The edge answers by itself.
    Answer(Answer),
    /// An order server answers.
    Forward,
}

/// A request as the gate sees it before its body: where it goes, and who sends it.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub client: IpAddr,
    /// `None` with the answer that says why.
    pub route: Result<&'static Route, Answer>,
}

/// Looks at the header alone: sizes, address, rate, route.
pub(crate) fn arrive(edge: &Edge, session: &Session) -> Arrived {
    let request: &Parts = session.req_header();
    let peer = session.client_addr().and_then(|address| address.as_inet());
    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), std::net::SocketAddr::ip);
    let client = client::address(peer, &request.headers, &edge.config.trusted_proxies);
    let refuse = |refusal: &Refusal| Err(Answer::refusal(refusal));
    let route = if let Err(refusal) = address_rate(edge, client) {
        refuse(&refusal)
    } else if is_oversized(edge, session) {
        refuse(&Refusal::TooLarge)
    } else {
        match routes::find(&request.method, request.uri.path()) {
            Ok(route) if is_forged(request, route) => refuse(&Refusal::NotAllowed),
            Ok(route) => Ok(route),
            Err(NoRoute::Path) => refuse(&Refusal::NotFound),
            Err(NoRoute::Method(allow)) => Err(Answer::method_not_allowed(allow)),
        }
    };
    Arrived { client, route }
}

/// Decides on a request that has a route. Bodies are read first: they are short, and a connection
/// can only serve on after them.
///
/// # Errors
/// If the connection is gone.
pub(crate) async fn decide(
    edge: &Edge,
    session: &mut Session,
    route: &Route,
    client: IpAddr,
) -> Result<Decision> {
    let limits = &edge.config.limits;
    let body_max = limits.body_max.0;
    let body = match body::read(session, body_max, limits.read_timeout.duration()).await {
        Ok(body) => body,
        Err(Fault::Refused(refusal)) => return Ok(refused(&refusal)),
        Err(Fault::Gone(error)) => return Err(error.into_down()),
    };
    let request: &Parts = session.req_header();
    let decision = match (route.kind, body) {
        (Kind::Proxied(guard), _) => guarded(edge, guard, request, client),
        (_, Body::Long) => Err(Refusal::TooLarge),
        (Kind::Order, Body::Whole(body)) => order(edge, request, &body).map(|_| Decision::Forward),
        (kind, Body::Whole(body)) => {
            let answer = at_the_edge(edge, kind, request, &body).await;
            answer.map(Decision::Answer)
        }
    };
    Ok(decision.unwrap_or_else(|refusal| refused(&refusal)))
}

fn refused(refusal: &Refusal) -> Decision {
    Decision::Answer(Answer::refusal(refusal))
}

/// What the edge answers by itself.
async fn at_the_edge(
    edge: &Edge,
    kind: Kind,
    request: &Parts,
    body: &Bytes,
) -> Result<Answer, Refusal> {
    let query = request.uri.query();
    match kind {
        Kind::Page => {
            let page = edge.pages.answer(request.uri.path(), &request.headers);
            Ok(if edge.config.tls.is_some() {
                page.with(STRICT_TRANSPORT_SECURITY, HTTPS_ONLY)
            } else {
                page
            })
        }
        Kind::ItemGet => shop::item(edge, query).await,
        Kind::ItemList => shop::list(edge).await,
        Kind::PromoState => shop::promo_state(edge, query),
        Kind::Challenge => {
            let (session, rate) = buyer(edge, request);
            challenges::issue(edge, request, body, session, rate).await
        }
        Kind::Token => {
            let (session, rate) = buyer(edge, request);
            tokens::issue(edge, request, body, session, rate).await
        }
        // Never asked here: `decide` sends these on.
        Kind::Order | Kind::Proxied(_) => Err(Refusal::NotFound),
    }
}

/// Whether a request to create an order may go to an order server.
fn order(edge: &Edge, request: &Parts, body: &Bytes) -> Result<Access, Refusal> {
    let (session, rate) = buyer(edge, request);
    session.ok_or(Refusal::NotSignedIn)?;
    let kind = client::text_of(&request.headers, &CONTENT_TYPE);
    let fields = Fields::from_body(kind, body)?;
    let key = request.headers.get(IDEMPOTENCY_KEY);
    let purchase = Purchase::read(&fields, key.map(http::HeaderValue::as_bytes))?;
    let late_ms = edge.resubmit_for.ms();
    admission::may_order(&OrderFacts {
        session,
        rate,
        token: Access::verify(&purchase.token, &edge.keys, edge.now(), late_ms),
        promo: purchase.promo,
        item: purchase.item,
        amount: purchase.amount,
    })
}

/// Whether a request may go to an order server, where the edge looks at the sender only.
fn guarded(
    edge: &Edge,
    guard: Guard,
    request: &Parts,
    client: IpAddr,
) -> Result<Decision, Refusal> {
    match guard {
        Guard::Open => Ok(Decision::Forward),
        Guard::Accounts => {
            let key = Key::Accounts(Network::from(client));
            let rate = edge
                .limits
                .judge(key, edge.config.rates.accounts, edge.now());
            within(rate).map(|()| Decision::Forward)
        }
        Guard::SignedIn => client::session(&request.headers, &edge.keys, edge.now())
            .map(|_| Decision::Forward)
            .ok_or(Refusal::NotSignedIn),
        Guard::Operator => {
            operator(edge, request)?;
            Ok(Decision::Forward)
        }
    }
}

/// Whether the request bears the operator's token. Digests are compared, so that neither content nor
/// length shows in the time it takes.
fn operator(edge: &Edge, request: &Parts) -> Result<(), Refusal> {
    let borne = client::text_of(&request.headers, &AUTHORIZATION).and_then(token::bearer);
    let borne = Sha256::digest(borne.ok_or(Refusal::NotSignedIn)?);
    let expected = Sha256::digest(&edge.operator_token);
    if !edge.operator_token.is_empty() && bool::from(borne.ct_eq(&expected)) {
        Ok(())
    } else {
        Err(Refusal::NotAllowed)
    }
}

/// The buyer who asks, and whether he asks too often.
fn buyer(edge: &Edge, request: &Parts) -> (Option<SignedIn>, Verdict) {
    let session = client::session(&request.headers, &edge.keys, edge.now());
    let rate = session.map_or(Verdict::Pass(Arrival::default()), |session| {
        let key = Key::Buyer(session.buyer);
        edge.limits.judge(key, edge.config.rates.buyer, edge.now())
    });
    (session, rate)
}

fn address_rate(edge: &Edge, client: IpAddr) -> Result<(), Refusal> {
    let key = Key::Address(Network::from(client));
    within(
        edge.limits
            .judge(key, edge.config.rates.address, edge.now()),
    )
}

fn within(rate: Verdict) -> Result<(), Refusal> {
    match rate {
        Verdict::Pass(_) => Ok(()),
        Verdict::Wait { retry_after_s } => Err(Refusal::TooManyRequests { retry_after_s }),
    }
}

/// Whether another site made a browser send this POST. What bears its own credentials, or is signed by
/// a payment provider, cannot be forged that way.
fn is_forged(request: &Parts, route: &Route) -> bool {
    let headers = &request.headers;
    if request.method != Method::POST
        || route.kind == Kind::Proxied(Guard::Open)
        || client::text_of(headers, &AUTHORIZATION)
            .is_some_and(|field| token::bearer(field).is_some())
    {
        return false;
    }
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        return true;
    }
    let own = request.uri.authority().map(http::uri::Authority::as_str);
    let own = own.or_else(|| client::text_of(headers, &HOST));
    headers.get(ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
        match (origin, own) {
            (Some((_, authority)), Some(own)) => !authority.eq_ignore_ascii_case(own),
            _ => true,
        }
    })
}

fn is_oversized(edge: &Edge, session: &Session) -> bool {
    let request = session.req_header();
    let fields = &request.headers;
    let header_bytes: usize = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    request.raw_path().len() > URL_BYTES_MAX || header_bytes > edge.config.limits.headers_max.0
}
