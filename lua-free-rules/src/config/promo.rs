//! A file of `promos/`: one sale. Fields, defaults and bounds.

use toml::de::DeValue;

use super::catalog::{self, STOCK_MAX, required_number};
use super::node::none_of;
use super::reader::{Found, Table};
use super::value::Leaf;
use super::{End, Promo, Start};
use crate::challenge::Kind;
use crate::promo::DEFAULT_DOOR;
use crate::units::{ItemId, Millis, Money, PromoId, Timestamp};

/// The longest that a promo may wait or last: a year.
const SPAN_MAX: Millis = Millis::seconds(365 * 24 * 3_600);
const PAY_WITHIN: Millis = Millis::seconds(15 * 60);
const TOKEN_TTL: Millis = Millis::seconds(2 * 60);

/// A promo as far as it could be read.
pub(super) struct Draft {
    pub(super) id: Option<Found<PromoId>>,
    pub(super) item: Option<Found<ItemId>>,
    pub(super) start: Option<Found<Start>>,
    pub(super) end: Option<Found<End>>,
    pub(super) price: Option<Found<Money>>,
    pub(super) stock: Option<Found<u32>>,
    door: u32,
    per_buyer: u32,
    pay_within: Millis,
    token_ttl: Millis,
    challenges: Vec<Kind>,
}

impl Draft {
    /// The promo, if all of it could be read.
    pub(super) fn promo(self) -> Option<Promo> {
        Some(Promo {
            id: self.id?.value,
            item: self.item?.value,
            start: self.start?.value,
            end: self.end?.value,
            price: self.price?.value,
            stock: self.stock?.value,
            door: self.door,
            per_buyer: self.per_buyer,
            pay_within: self.pay_within,
            token_ttl: self.token_ttl,
            challenges: self.challenges,
        })
    }

    /// Start and end, where both are moments whenever it is published.
    pub(super) fn window(&self) -> Option<(Timestamp, Timestamp)> {
        let Start::At(start) = self.start?.value else {
            return None;
        };
        let end = match self.end?.value {
            End::At(end) => end,
            End::After(span) => start.plus_ms(span.ms()),
        };
        Some((start, end))
    }
}

pub(super) fn read(table: &mut Table<'_>) -> Draft {
    let draft = Draft {
        id: catalog::id(table, "id").map(|found| found.map(PromoId)),
        item: catalog::id(table, "item").map(|found| found.map(ItemId)),
        start: start(table),
        end: end(table),
        price: catalog::price(table),
        stock: required_number(table, "stock", "100", 1..=STOCK_MAX),
        door: table.number("door", DEFAULT_DOOR, 1..=1_000),
        per_buyer: table.number("per_buyer", 1, 1..=1_000),
        pay_within: table.quantity(
            "pay_within",
            PAY_WITHIN,
            Millis::seconds(10)..=Millis::seconds(7 * 24 * 3_600),
        ),
        token_ttl: table.section("token", |table| {
            table.quantity(
                "ttl",
                TOKEN_TTL,
                Millis::seconds(5)..=Millis::seconds(3_600),
            )
        }),
        challenges: challenges(table),
    };
    if let (Some((start, end)), Some(written)) = (draft.window(), draft.end)
        && end <= start
    {
        table.error(
            written.at,
            format!(
                "`ends_at` = {} is not after the start, {}: write a later moment",
                end.to_rfc3339(),
                start.to_rfc3339()
            ),
        );
    }
    draft
}

fn start(table: &mut Table<'_>) -> Option<Found<Start>> {
    let at = table.get::<Timestamp>("starts_at");
    let wait = table.within("starts_in", Millis::new(0)..=SPAN_MAX);
    one_of(
        table,
        ["starts_at", "starts_in"],
        "the promo has no start: write `starts_at = 2026-12-01T10:00:00Z`, or \
         `starts_in = \"60s\"` to count from its publishing",
    );
    let at = at.map(|found| found.map(Start::At));
    at.or_else(|| wait.map(|found| found.map(Start::In)))
}

fn end(table: &mut Table<'_>) -> Option<Found<End>> {
    let at = table.get::<Timestamp>("ends_at");
    let span = table.within("lasts", Millis::seconds(1)..=SPAN_MAX);
    one_of(
        table,
        ["ends_at", "lasts"],
        "the promo has no end: write `ends_at = 2026-12-01T12:00:00Z`, or `lasts = \"2h\"` to \
         count from its start",
    );
    let at = at.map(|found| found.map(End::At));
    at.or_else(|| span.map(|found| found.map(End::After)))
}

/// Notes it unless exactly one of two keys is written.
fn one_of(table: &mut Table<'_>, [moment, span]: [&'static str; 2], neither: &str) {
    match (table.key_at(moment), table.key_at(span)) {
        (None, None) => table.absent(&[moment, span], neither),
        (Some(first), Some(second)) => table.error(
            first.max(second),
            format!("`{moment}` and `{span}` say the same thing twice: keep one of them"),
        ),
        _ => {}
    }
}

impl Leaf for Kind {
    const EXPECTED: &'static str =
        "\"altcha\", \"image\", \"none\", or a list like [\"altcha\", \"image\"]";

    fn from_toml(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let text = value.as_str()?;
        let parsed = text.parse::<Self>();
        Some(parsed.map_err(|_| none_of(text, "a challenge", &["altcha", "image", "none"])))
    }
}

/// The kinds of challenge, the preferred one first; empty for none.
fn challenges(table: &mut Table<'_>) -> Vec<Kind> {
    let Some(at) = table.key_at("challenge") else {
        table.list::<Kind>("challenge");
        return vec![Kind::Altcha, Kind::Image];
    };
    let found = if table.is_list("challenge") {
        table.list::<Kind>("challenge").unwrap_or_default()
    } else {
        table.get::<Kind>("challenge").into_iter().collect()
    };
    if table.is_empty_list("challenge") {
        table.error(
            at,
            "`challenge` is an empty list: write \"none\" to ask for nothing",
        );
    }
    let mut kinds = Vec::new();
    for Found { value, at } in found {
        if kinds.contains(&value) {
            table.error(
                at,
                format!("\"{value}\" is listed twice: write each challenge once"),
            );
        } else {
            kinds.push(value);
        }
    }
    if kinds.contains(&Kind::None) {
        if kinds.len() > 1 {
            table.error(
                at,
                "`challenge` mixes \"none\" with others: keep \"none\" alone, or leave it out",
            );
        }
        table.warn(
            at,
            "`challenge` is \"none\": nothing keeps scripts out; for tests and load",
        );
        kinds.clear();
    }
    kinds
}
