//! The gate: gathers the facts of a request, asks the rules, and answers or lets it pass. It knows nothing
//! of connections: sessions of Pingora's and the fast path ask it alike.

use std::net::{IpAddr, Ipv4Addr};

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderName, Method};
use lua_free_rules::admission::{self, OrderFacts};
use lua_free_rules::fields::Fields;
use lua_free_rules::limit::{Arrival, Verdict};
use lua_free_rules::purchase::Purchase;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::{self, Access, Session as SignedIn};
use lua_free_rules::units::Timestamp;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::answer::{Answer, OwnOrKept};
use crate::call::Call;
use crate::edge::Edge;
use crate::limits::{Key, Network};
use crate::request::Request;
use crate::routes::{self, Guard, Kind, NoRoute, Route};
use crate::{challenges, client, item_cache, shop, tokens};

/// The longest path with its query.
const URL_BYTES_MAX: usize = 4_096;
/// The header that makes an order repeatable.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header in which browsers tell where a request was made.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Decision<'a> {
    /// The edge answers by itself.
    Answer(OwnOrKept<'a>),
    /// It does, once it has what it needs.
    Ask(Errand),
    /// An order server answers.
    Forward,
}

/// What has to be waited for: an order server, a puzzle, or the engine.
#[derive(Debug)]
pub(crate) enum Errand {
    Item(item_cache::Key),
    Challenge(challenges::Errand),
    Token(tokens::Errand),
}

impl Errand {
    /// Waits, and answers.
    pub async fn run(self, edge: &Edge) -> Answer {
        let answer = match self {
            Self::Item(key) => shop::fetch(edge, key).await,
            Self::Challenge(errand) => errand.run(edge).await,
            Self::Token(errand) => errand.run(edge).await,
        };
        answer.unwrap_or_else(|refusal| Answer::refusal(&refusal))
    }
}

impl Decision<'_> {
    /// The edge says no.
    pub fn refuse(refusal: &Refusal) -> Self {
        Answer::refusal(refusal).into()
    }
}

impl From<Answer> for Decision<'_> {
    fn from(answer: Answer) -> Self {
        Self::Answer(OwnOrKept::Own(answer))
    }
}

/// A request as the gate sees it before its body: where it goes, and who sends it.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub client: IpAddr,
    /// `None` with the answer that says why.
    pub route: Result<&'static Route, Answer>,
}

/// Looks at the header alone: sizes, address, rate, route. `peer` is the other end of the connection.
pub(crate) fn arrive(
    edge: &Edge,
    request: &Request<'_>,
    peer: Option<IpAddr>,
    now: Timestamp,
) -> Arrived {
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let client = client::address(peer, request.header, &edge.config.trusted_proxies);
    let refuse = |refusal: &Refusal| Err(Answer::refusal(refusal));
    let route = if let Err(refusal) = address_rate(edge, client, now) {
        refuse(&refusal)
    } else if is_oversized(edge, request) {
        refuse(&Refusal::TooLarge)
    } else {
        match routes::find(request.method, request.path) {
            Ok(route) if is_forged(request, route) => refuse(&Refusal::NotAllowed),
            Ok(route) => Ok(route),
            Err(NoRoute::Path) => refuse(&Refusal::NotFound),
            Err(NoRoute::Method(allow)) => Err(Answer::method_not_allowed(allow)),
        }
    };
    Arrived { client, route }
}

/// Decides on a request that has a route, from memory. Its body is `None` if it is too long to be looked at
/// here: such a one can only pass.
pub(crate) fn decide<'a>(
    edge: &'a Edge,
    call: &Call,
    request: &Request<'_>,
    body: Option<&[u8]>,
    route: &Route,
) -> Decision<'a> {
    let decision = match (route.kind, body) {
        (Kind::Proxied(guard), _) => {
            guarded(edge, call, guard, request).map(|()| Decision::Forward)
        }
        (_, None) => Err(Refusal::TooLarge),
        (Kind::Order, Some(body)) => order(edge, call, request, body).map(|_| Decision::Forward),
        (kind, Some(body)) => by_itself(edge, call, kind, request, body),
    };
    decision.unwrap_or_else(|refusal| Decision::refuse(&refusal))
}

/// What the edge answers by itself.
fn by_itself<'a>(
    edge: &'a Edge,
    call: &Call,
    kind: Kind,
    request: &Request<'_>,
    body: &[u8],
) -> Result<Decision<'a>, Refusal> {
    match kind {
        Kind::Page => {
            let page = edge.pages.answer(request.path, request.header);
            Ok(Decision::Answer(OwnOrKept::Kept(page)))
        }
        Kind::ItemGet => item(edge, call, shop::item(request.query)?),
        Kind::ItemList => item(edge, call, item_cache::Key::List),
        Kind::PromoState => shop::promo_state(edge, request.query, call.now).map(Decision::from),
        Kind::Challenge => {
            let (session, rate) = buyer(edge, call, request);
            let errand = challenges::consider(edge, request, body, session, rate)?;
            Ok(Decision::Ask(Errand::Challenge(errand)))
        }
        Kind::Token => {
            let (session, rate) = buyer(edge, call, request);
            let errand = tokens::consider(edge, request, body, session, rate)?;
            Ok(Decision::Ask(Errand::Token(errand)))
        }
        // `decide` sends these on.
        Kind::Order | Kind::Proxied(_) => Err(Refusal::NotFound),
    }
}

fn item<'a>(edge: &Edge, call: &Call, key: item_cache::Key) -> Result<Decision<'a>, Refusal> {
    match shop::at_hand(edge, call, key) {
        Some(answer) => answer.map(Decision::Answer),
        None => Ok(Decision::Ask(Errand::Item(key))),
    }
}

/// Whether a request to create an order may go to an order server.
fn order(edge: &Edge, call: &Call, request: &Request<'_>, body: &[u8]) -> Result<Access, Refusal> {
    let (session, rate) = buyer(edge, call, request);
    session.ok_or(Refusal::NotSignedIn)?;
    let fields = Fields::from_body(request.header.text(&CONTENT_TYPE), body)?;
    let purchase = Purchase::read(&fields, request.header.first(&IDEMPOTENCY_KEY))?;
    let late_ms = edge.resubmit_for.ms();
    admission::may_order(&OrderFacts {
        session,
        rate,
        token: Access::verify(&purchase.token, &edge.keys, call.now, late_ms),
        promo: purchase.promo,
        item: purchase.item,
        amount: purchase.amount,
    })
}

/// Whether a request may go to an order server, where the edge looks at the sender only.
fn guarded(edge: &Edge, call: &Call, guard: Guard, request: &Request<'_>) -> Result<(), Refusal> {
    match guard {
        Guard::Open => Ok(()),
        Guard::Accounts => {
            let key = Key::Accounts(Network::from(call.client));
            let rate = edge.config.rates.accounts;
            within(edge.limits.judge(key, rate, call.now))
        }
        Guard::SignedIn => client::session(request.header, &edge.keys, call.now)
            .map(|_| ())
            .ok_or(Refusal::NotSignedIn),
        Guard::Operator => operator(edge, request),
    }
}

/// Whether the request bears the operator's token. Digests are compared, so that neither content nor
/// length shows in the time it takes.
fn operator(edge: &Edge, request: &Request<'_>) -> Result<(), Refusal> {
    let borne = request.header.text(&AUTHORIZATION).and_then(token::bearer);
    let borne = Sha256::digest(borne.ok_or(Refusal::NotSignedIn)?);
    let expected = Sha256::digest(&edge.operator_token);
    if !edge.operator_token.is_empty() && bool::from(borne.ct_eq(&expected)) {
        Ok(())
    } else {
        Err(Refusal::NotAllowed)
    }
}

/// The buyer who asks, and whether he asks too often.
fn buyer(edge: &Edge, call: &Call, request: &Request<'_>) -> (Option<SignedIn>, Verdict) {
    let session = client::session(request.header, &edge.keys, call.now);
    let rate = session.map_or(Verdict::Pass(Arrival::default()), |session| {
        let key = Key::Buyer(session.buyer);
        edge.limits.judge(key, edge.config.rates.buyer, call.now)
    });
    (session, rate)
}

fn address_rate(edge: &Edge, client: IpAddr, now: Timestamp) -> Result<(), Refusal> {
    let key = Key::Address(Network::from(client));
    let rate = edge.config.rates.address;
    within(edge.limits.judge(key, rate, now))
}

fn within(rate: Verdict) -> Result<(), Refusal> {
    match rate {
        Verdict::Pass(_) => Ok(()),
        Verdict::Wait { retry_after_s } => Err(Refusal::TooManyRequests { retry_after_s }),
    }
}

/// Whether another site made a browser send this POST. What bears its own credentials, or is signed by
/// a payment provider, cannot be forged that way.
fn is_forged(request: &Request<'_>, route: &Route) -> bool {
    let header = request.header;
    let bears_credentials = || {
        let field = header.text(&AUTHORIZATION);
        field.is_some_and(|field| token::bearer(field).is_some())
    };
    if *request.method != Method::POST
        || route.kind == Kind::Proxied(Guard::Open)
        || bears_credentials()
    {
        return false;
    }
    let site = header.first(&SEC_FETCH_SITE);
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        return true;
    }
    let own = request.authority.or_else(|| header.text(&HOST));
    header.first(&ORIGIN).is_some_and(|_| {
        let origin = header.text(&ORIGIN).and_then(|text| text.split_once("://"));
        match (origin, own) {
            (Some((_, authority)), Some(own)) => !authority.eq_ignore_ascii_case(own),
            _ => true,
        }
    })
}

fn is_oversized(edge: &Edge, request: &Request<'_>) -> bool {
    let header_bytes = request.header.bytes();
    request.target_bytes > URL_BYTES_MAX || header_bytes > edge.config.limits.headers_max.0
}
