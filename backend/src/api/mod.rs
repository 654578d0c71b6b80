//! The routes as a table, and what every request meets before and after its handler: size, media
//! type, method, measurement, and the envelope of every answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use engine::{Clock as _, SharedEngine, SystemClock};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, header};
use lua_free_rules::config;
use lua_free_rules::fields::Fields;
use lua_free_rules::keys::KeyRing;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::{Session, session_text};
use lua_free_rules::units::Timestamp;

use crate::accounts::Accounts;
use crate::answer::{Reply, refuse, refuse_method};
use crate::catalogue::Catalogue;
use crate::error::{BackendError, Result};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::payment::Payments;
use crate::promos::Promos;
use crate::reserve::Reservations;
use crate::settings::Secret;

mod admin;
mod body;
mod dead_letters;
mod items;
mod orders;
mod payments;
mod test_accounts;
mod users;

/// How long a handler may take. Every step it takes can be repeated, so it may be given up anywhere.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What the handlers of one order server share.
pub struct Shop {
    pub engine: SharedEngine,
    pub ledger: Ledger,
    pub keys: KeyRing,
    pub accounts: Accounts,
    pub payments: Payments,
    pub promos: Promos,
    pub catalogue: Catalogue,
    pub reservations: Reservations,
    pub metrics: Metrics,
    pub operator_token: Secret,
    pub secure_cookies: bool,
    pub proposals: Arc<[config::Promo]>,
}

/// One request, read whole.
pub struct Call {
    pub shop: Arc<Shop>,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub now: Timestamp,
}

type Answer = Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

/// One row of the table.
#[derive(Clone, Copy)]
struct Route {
    method: &'static Method,
    path: &'static str,
    handler: fn(Call) -> Answer,
}

macro_rules! routes {
    ($($method:ident $path:literal => $handler:path,)*) => {
        &[$(Route {
            method: &Method::$method,
            path: $path,
            handler: |call| Box::pin($handler(call)),
        },)*]
    };
}

const ROUTES: &[Route] = routes! {
    POST "/user/getotp" => users::get_otp,
    POST "/user/register" => users::register,
    POST "/user/login" => users::login,
    POST "/user/logout" => users::logout,
    GET "/user/get" => users::get,
    GET "/item/list" => items::list,
    GET "/item/get" => items::get,
    POST "/item/create" => items::create,
    POST "/item/update" => items::update,
    POST "/item/publishpromo" => admin::publish,
    POST "/order/create" => orders::create,
    GET "/order/get" => orders::get,
    GET "/order/list" => orders::list,
    POST "/order/pay" => orders::pay,
    POST "/order/cancel" => orders::cancel,
    POST "/payment/webhook/{provider}" => payments::webhook,
    POST "/admin/promo/pause" => admin::pause,
    POST "/admin/promo/resume" => admin::resume,
    POST "/admin/promo/close" => admin::close,
    POST "/admin/promo/stock" => admin::add_stock,
    POST "/admin/testaccounts" => test_accounts::create,
    GET "/admin/deadletters" => dead_letters::list,
    POST "/admin/deadletters/replay" => dead_letters::replay,
    GET "/admin/promos" => admin::promos,
    GET "/admin/audit" => admin::audit,
    GET "/admin/log" => admin::log,
    GET "/admin/refunds" => payments::refunds,
    GET "/live" => live,
};

/// The router of an order server.
pub fn router(shop: &Arc<Shop>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let shop = Arc::clone(shop);
        let handler = move |request: Request| serve(shop, *route, request);
        router = router.route(route.path, any(handler));
    }
    let metrics = shop.metrics.clone();
    router.fallback(move |request: Request| async move {
        // To its end, so that the answer arrives; what it says does not matter.
        let _ = body::read(request.into_body()).await;
        metrics.request("none", Refusal::NotFound.name(), Duration::ZERO);
        refuse(&Refusal::NotFound)
    })
}

/// From request to response. Whatever goes wrong leaves as a refusal; its detail goes to the log.
async fn serve(shop: Arc<Shop>, route: Route, request: Request) -> Response {
    let began = Instant::now();
    let metrics = shop.metrics.clone();
    let get = *route.method == Method::GET;
    let (head, body) = request.into_parts();
    let body = body::read(body).await;
    if head.method != route.method && !(get && head.method == Method::HEAD) {
        metrics.request(route.path, Refusal::Method.name(), began.elapsed());
        return refuse_method(if get { "GET, HEAD" } else { "POST" });
    }
    let result = match body {
        Ok(body) => tokio::time::timeout(ANSWER_MAX, (route.handler)(Call::new(shop, head, body)))
            .await
            .unwrap_or_else(|_| Err(Refusal::Overloaded.into())),
        Err(refusal) => Err(refusal.into()),
    };
    let (outcome, response) = match result {
        Ok(reply) => ("ok", reply.into_response()),
        Err(error) => answer_error(route.path, &error),
    };
    metrics.request(route.path, outcome, began.elapsed());
    response
}

fn answer_error(route: &str, error: &BackendError) -> (&'static str, Response) {
    if let BackendError::SoldOut { signal } = error {
        let mut response = refuse(&Refusal::SoldOut);
        if let Some(signal) = signal.as_deref().and_then(|text| text.parse().ok()) {
            response.headers_mut().insert(SOLD_OUT, signal);
        }
        return (Refusal::SoldOut.name(), response);
    }
    let refusal = error.refusal();
    match (error, &refusal) {
        (BackendError::Refused(_), _) => {}
        (_, Refusal::Overloaded) => tracing::warn!(route, %error, "not available"),
        _ => tracing::error!(route, %error, "unexpected"),
    }
    (refusal.name(), refuse(&refusal))
}

/// Tells edges whether a promo is sold out.
const SOLD_OUT: HeaderName = HeaderName::from_static("floodgate-sold-out");

impl Call {
    fn new(shop: Arc<Shop>, head: Parts, body: Vec<u8>) -> Self {
        Self {
            shop,
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers,
            body,
            now: SystemClock.now(),
        }
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The fields of the body.
    fn fields(&self) -> Result<Fields> {
        let content_type = match self.headers.get(header::CONTENT_TYPE) {
            None => None,
            Some(value) => Some(value.to_str().map_err(|_| Refusal::MediaType)?),
        };
        Ok(Fields::from_body(content_type, &self.body)?)
    }

    /// The fields of the query.
    fn query(&self) -> Result<Fields> {
        Ok(Fields::from_query(self.query.as_deref())?)
    }

    /// The session in the request, its signature and end checked; not whether it was signed out.
    fn session(&self) -> Result<Session> {
        let text = session_text(
            self.header(header::AUTHORIZATION),
            self.header(header::COOKIE),
        )
        .ok_or(Refusal::NotSignedIn)?;
        Session::verify(text, &self.shop.keys, self.now).map_err(|_| Refusal::NotSignedIn.into())
    }

    /// The session in the request, alive.
    async fn live_session(&self) -> Result<Session> {
        let session = self.session()?;
        if self.shop.engine.is_signed_in(session).await? {
            Ok(session)
        } else {
            Err(Refusal::NotSignedIn.into())
        }
    }
}

async fn live(_: Call) -> Result<Reply> {
    Reply::done()
}
