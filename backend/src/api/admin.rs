//! What operators do: publish, steer and audit promos. Every call is in the operators' log, those
//! that were refused included; one that changes something is noted before it is done.

use std::future::Future;
use std::time::Duration;

use engine::{Backlog, Control, Published};
use http::header;
use lua_free_rules::fields::Fields;
use lua_free_rules::promo::{Phase, Snapshot, Status};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::bearer;
use lua_free_rules::units::{ItemId, Money, PromoId, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::Call;
use crate::answer::Reply;
use crate::error::Result;
use crate::publishing;

/// Longest digest of a promo that is looked at.
const DIGEST_BYTES_MAX: usize = 64;
/// How long an audit waits for the ledger unless the request says otherwise: less than an edge
/// waits for an answer.
const AUDIT_WAIT_MS: i64 = 3_000;
/// The longest that it waits: less than any handler may take.
const AUDIT_WAIT_MS_MAX: i64 = 25_000;
/// Calls that the log shows.
const LOG_MAX: u32 = 100;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PromoAnswer {
    promo_id: PromoId,
    generation: i64,
    item_id: ItemId,
    phase: Phase,
    status: Status,
    price: Money,
    stock: u32,
    available: u32,
    sold_out: bool,
    sold_epoch: i64,
    sequence: i64,
    starts_at: Timestamp,
    ends_at: Timestamp,
    per_buyer_limit: u32,
    places: u64,
    places_issued: u64,
    places_used: u64,
}

impl PromoAnswer {
    fn at(promo: &Snapshot, now: Timestamp) -> Self {
        Self {
            promo_id: promo.promo,
            generation: promo.generation.0,
            item_id: promo.terms.item,
            phase: promo.phase(now),
            status: promo.status,
            price: promo.terms.price,
            stock: promo.terms.stock,
            available: promo.available,
            sold_out: promo.sold_out,
            sold_epoch: promo.sold_epoch.0,
            sequence: promo.sequence.0,
            starts_at: promo.terms.starts_at,
            ends_at: promo.terms.ends_at,
            per_buyer_limit: promo.terms.per_buyer,
            places: promo.terms.places(),
            places_issued: promo.places_issued,
            places_used: promo.places_used,
        }
    }
}

/// Does `work` for an operator, and notes who asked for what and what came of it.
pub(super) async fn as_operator(
    call: &Call,
    what: &str,
    work: impl Future<Output = Result<Reply>> + Send,
) -> Result<Reply> {
    let who = operator(call)?;
    let what = match &call.query {
        // Operators' queries are ids; anything longer is not worth a place in the log.
        Some(query) if query.len() <= 64 => format!("{what}?{query}"),
        _ => what.to_owned(),
    };
    let noted = note(call, &who, &what).await?;
    let result = work.await;
    let outcome = result
        .as_ref()
        .map_or_else(|e| e.refusal().name(), |_| "ok");
    tracing::info!(who, what, outcome, "operator");
    if let Some(noted) = noted
        && let Err(error) = call.shop.ledger.note_outcome(noted, outcome).await
    {
        tracing::error!(who, what, outcome, %error, "an outcome could not be noted");
    }
    result
}

/// `what` with the id that the body gives, as far as it does: for the log.
pub fn named(call: &Call, what: &str, field: &str) -> String {
    let id = call.fields().and_then(|fields| Ok(fields.id(field)?));
    id.map_or_else(|_| what.to_owned(), |id| format!("{what} {id}"))
}

/// Notes the call. One that only looks on is done also if it cannot be noted: operators must see
/// what goes on while the database is away.
async fn note(call: &Call, who: &str, what: &str) -> Result<Option<i64>> {
    let noting = call.shop.ledger.note_call(who, what, call.now);
    if !READ_ONLY.contains(&call.path.as_str()) {
        return noting.await.map(Some);
    }
    match tokio::time::timeout(NOTE_MAX, noting).await {
        Ok(Ok(noted)) => Ok(Some(noted)),
        Ok(Err(error)) if !error.is_outage() => Err(error),
        _ => {
            tracing::warn!(who, what, "an operator's call could not be noted");
            Ok(None)
        }
    }
}

/// How long a call that only looks on waits to be noted.
const NOTE_MAX: Duration = Duration::from_millis(500);
/// What only looks on.
const READ_ONLY: [&str; 5] = [
    "/admin/promos",
    "/admin/audit",
    "/admin/log",
    "/admin/refunds",
    "/admin/deadletters",
];

/// The fingerprint of the operator's token.
fn operator(call: &Call) -> Result<String> {
    let shown = call
        .header(header::AUTHORIZATION)
        .and_then(bearer)
        .ok_or(Refusal::NotSignedIn)?;
    if call.shop.operator_token.is(shown.as_bytes()) {
        return Ok(call.shop.operator_token.fingerprint());
    }
    tracing::warn!(path = call.path, "a wrong operator token was shown");
    Err(Refusal::NotAllowed.into())
}

pub async fn publish(call: Call) -> Result<Reply> {
    as_operator(&call, "item/publishpromo", async {
        let id = PromoId(call.query()?.id("id")?);
        let proposal = call.shop.proposals.iter().find(|each| each.id == id);
        let proposal = proposal.ok_or(Refusal::NotFound)?;
        // Whoever read the file himself says which version he means to publish.
        let meant = call
            .fields()?
            .optional_text("digest", DIGEST_BYTES_MAX)?
            .map(str::to_owned);
        if meant.is_some_and(|digest| digest != proposal.digest()) {
            let words = format!("promo {id} was changed after this process started: restart it");
            return Err(Refusal::BadParameter(words).into());
        }
        let (engine, ledger) = (call.shop.engine.as_ref(), &call.shop.ledger);
        let (result, promo) = publishing::publish(engine, ledger, proposal, false).await?;
        let result = match result {
            Published::New => "new",
            Published::Unchanged => "unchanged",
        };
        Reply::ok(&json!({ "result": result, "promo": PromoAnswer::at(&promo, call.now) }))
    })
    .await
}

pub async fn pause(call: Call) -> Result<Reply> {
    control(&call, "admin/promo/pause", |_| Ok(Control::Pause)).await
}

pub async fn resume(call: Call) -> Result<Reply> {
    control(&call, "admin/promo/resume", |_| Ok(Control::Resume)).await
}

pub async fn close(call: Call) -> Result<Reply> {
    control(&call, "admin/promo/close", |_| Ok(Control::Close)).await
}

pub async fn add_stock(call: Call) -> Result<Reply> {
    control(&call, "admin/promo/stock", |fields| {
        let units = fields.integer("amount", 1..=i64::from(u32::MAX))?;
        Ok(Control::AddStock(u32::try_from(units).unwrap_or(u32::MAX)))
    })
    .await
}

async fn control(
    call: &Call,
    what: &str,
    read: impl Fn(&Fields) -> Result<Control> + Send + Sync,
) -> Result<Reply> {
    as_operator(call, &named(call, what, "promoId"), async {
        let fields = call.fields()?;
        let (promo, control) = (PromoId(fields.id("promoId")?), read(&fields)?);
        if let Control::AddStock(units) = control {
            let standing = call.shop.engine.promos().await?.1;
            let standing = standing.iter().find(|each| each.promo == promo);
            let standing = standing.ok_or(Refusal::NotFound)?;
            let wanted = i64::from(standing.available) + i64::from(units);
            let (engine, ledger) = (call.shop.engine.as_ref(), &call.shop.ledger);
            publishing::stock_suffices(engine, ledger, standing.terms.item, promo, wanted).await?;
        }
        let promo = call.shop.engine.control(promo, control).await?;
        Reply::ok(&PromoAnswer::at(&promo, call.now))
    })
    .await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BacklogAnswer {
    entries: u64,
    oldest: Option<Timestamp>,
    dead_letters: u64,
}

impl From<Backlog> for BacklogAnswer {
    fn from(backlog: Backlog) -> Self {
        Self {
            entries: backlog.entries,
            oldest: backlog.oldest,
            dead_letters: backlog.dead_letters,
        }
    }
}

pub async fn promos(call: Call) -> Result<Reply> {
    as_operator(&call, "admin/promos", async {
        let (now, promos) = call.shop.engine.promos().await?;
        let promos: Vec<PromoAnswer> = promos
            .iter()
            .map(|promo| PromoAnswer::at(promo, now))
            .collect();
        let backlog = BacklogAnswer::from(call.shop.engine.backlog().await?);
        Reply::ok(&json!({ "serverTime": now, "promos": promos, "backlog": backlog }))
    })
    .await
}

pub async fn audit(call: Call) -> Result<Reply> {
    as_operator(&call, "admin/audit", async {
        let fields = call.query()?;
        let promo = fields.optional_integer("promoId", 1..=lua_free_rules::fields::ID_MAX)?;
        let wait = fields
            .optional_integer("waitMs", 0..=AUDIT_WAIT_MS_MAX)?
            .unwrap_or(AUDIT_WAIT_MS);
        let wait = Duration::from_millis(wait.unsigned_abs());
        let (engine, ledger) = (call.shop.engine.as_ref(), &call.shop.ledger);
        Reply::ok(&crate::audit(engine, ledger, promo.map(PromoId), wait).await?)
    })
    .await
}

pub async fn log(call: Call) -> Result<Reply> {
    as_operator(&call, "admin/log", async {
        Reply::ok(&call.shop.ledger.calls(LOG_MAX).await?)
    })
    .await
}
