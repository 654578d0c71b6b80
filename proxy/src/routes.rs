//! The route table: which paths and methods there are, and who answers.
//!
//! | who | routes |
//! |---|---|
//! | edge, from memory | `/`, `/resources/…`, `/item/get`, `/item/list`, `/promo/state` |
//! | edge, with the engine | `/order/generateverifycode`, `/order/generatetoken` |
//! | order server, after the edge has checked the token | `/order/create` |
//! | order server | everything else |

use http::Method;

/// What is to be done for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Page,
    ItemGet,
    ItemList,
    PromoState,
    Challenge,
    Token,
    Order,
    /// Goes to an order server, if the guard lets it.
    Proxied(Guard),
}

/// What the edge asks for before a request goes to an order server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Nothing.
    Open,
    /// Being within the address's rate for accounts.
    Accounts,
    /// A validly signed session.
    SignedIn,
    /// The operator's token.
    Operator,
}

/// One route.
#[derive(Debug)]
pub(crate) struct Route {
    /// The label in metrics and log.
    pub name: &'static str,
    path: Path,
    methods: Methods,
    pub kind: Kind,
}

#[derive(Debug)]
enum Path {
    Exact(&'static str),
    /// Everything below, at any depth.
    Below(&'static str),
    /// One segment below.
    OneBelow(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Methods {
    Get,
    Post,
    Both,
}

/// The name, in metrics and log, for requests without a route.
pub(crate) const NO_ROUTE: &str = "none";

/// There is no such route.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    Path,
    /// With the methods that the path takes.
    Method(&'static str),
}

const fn route(name: &'static str, path: Path, methods: Methods, kind: Kind) -> Route {
    Route {
        name,
        path,
        methods,
        kind,
    }
}

use Guard::{Accounts, Open, Operator, SignedIn};
use Kind::Proxied;
use Path::{Below, Exact, OneBelow};

/// The busiest first.
static ROUTES: &[Route] = &[
    route("item_get", Exact("/item/get"), Methods::Get, Kind::ItemGet),
    route(
        "item_list",
        Exact("/item/list"),
        Methods::Get,
        Kind::ItemList,
    ),
    route(
        "promo_state",
        Exact("/promo/state"),
        Methods::Get,
        Kind::PromoState,
    ),
    route("page", Below("/resources/"), Methods::Get, Kind::Page),
    route("page", Exact("/"), Methods::Get, Kind::Page),
    route(
        "challenge",
        Exact("/order/generateverifycode"),
        Methods::Both,
        Kind::Challenge,
    ),
    route(
        "token",
        Exact("/order/generatetoken"),
        Methods::Post,
        Kind::Token,
    ),
    route(
        "order_create",
        Exact("/order/create"),
        Methods::Post,
        Kind::Order,
    ),
    route(
        "order_get",
        Exact("/order/get"),
        Methods::Get,
        Proxied(SignedIn),
    ),
    route(
        "order_list",
        Exact("/order/list"),
        Methods::Get,
        Proxied(SignedIn),
    ),
    route(
        "order_pay",
        Exact("/order/pay"),
        Methods::Post,
        Proxied(SignedIn),
    ),
    route(
        "order_cancel",
        Exact("/order/cancel"),
        Methods::Post,
        Proxied(SignedIn),
    ),
    route(
        "user_getotp",
        Exact("/user/getotp"),
        Methods::Post,
        Proxied(Accounts),
    ),
    route(
        "user_register",
        Exact("/user/register"),
        Methods::Post,
        Proxied(Accounts),
    ),
    route(
        "user_login",
        Exact("/user/login"),
        Methods::Post,
        Proxied(Accounts),
    ),
    route(
        "user_logout",
        Exact("/user/logout"),
        Methods::Post,
        Proxied(SignedIn),
    ),
    route(
        "user_get",
        Exact("/user/get"),
        Methods::Get,
        Proxied(SignedIn),
    ),
    route(
        "payment_webhook",
        OneBelow("/payment/webhook/"),
        Methods::Post,
        Proxied(Open),
    ),
    route(
        "item_create",
        Exact("/item/create"),
        Methods::Post,
        Proxied(Operator),
    ),
    route(
        "item_update",
        Exact("/item/update"),
        Methods::Post,
        Proxied(Operator),
    ),
    route(
        "promo_publish",
        Exact("/item/publishpromo"),
        Methods::Post,
        Proxied(Operator),
    ),
    route("admin", Below("/admin/"), Methods::Both, Proxied(Operator)),
];

/// The route of a request.
pub(crate) fn find(method: &Method, path: &str) -> Result<&'static Route, NoRoute> {
    let route = ROUTES
        .iter()
        .find(|route| route.path.covers(path))
        .ok_or(NoRoute::Path)?;
    if route.methods.take(method) {
        Ok(route)
    } else {
        Err(NoRoute::Method(route.methods.allow()))
    }
}

impl Path {
    fn covers(&self, path: &str) -> bool {
        match self {
            Exact(exact) => path == *exact,
            Below(prefix) => path.len() > prefix.len() && path.starts_with(prefix),
            OneBelow(prefix) => path
                .strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty() && !rest.contains('/')),
        }
    }
}

impl Methods {
    fn take(self, method: &Method) -> bool {
        match *method {
            Method::GET | Method::HEAD => matches!(self, Self::Get | Self::Both),
            Method::POST => matches!(self, Self::Post | Self::Both),
            _ => false,
        }
    }

    const fn allow(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::Both => "GET, HEAD, POST",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_are_told_apart() {
        let name = |method, path| find(&method, path).map(|route| route.name);
        assert_eq!(name(Method::GET, "/"), Ok("page"));
        assert_eq!(name(Method::HEAD, "/resources/js/a.js"), Ok("page"));
        assert_eq!(name(Method::GET, "/resources/"), Err(NoRoute::Path));
        assert_eq!(name(Method::GET, "/item/get/"), Err(NoRoute::Path));
        assert_eq!(
            name(Method::GET, "/order/create"),
            Err(NoRoute::Method("POST"))
        );
        assert_eq!(
            name(Method::DELETE, "/item/get"),
            Err(NoRoute::Method("GET, HEAD"))
        );
        assert_eq!(
            name(Method::POST, "/payment/webhook/demo"),
            Ok("payment_webhook")
        );
        assert_eq!(
            name(Method::POST, "/payment/webhook/a/b"),
            Err(NoRoute::Path)
        );
    }

    #[test]
    fn no_changing_route_is_open_but_those_meant_to_be() {
        for route in ROUTES {
            if let Proxied(Open) = route.kind {
                assert_eq!(route.name, "payment_webhook");
            }
        }
    }
}
