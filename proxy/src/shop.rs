//! What buyers look at, from memory: items, the list of items, the state of a promo.

use std::sync::Arc;

use lua_free_rules::fields::Fields;
use lua_free_rules::item::{ItemAnswer, PromoState};
use lua_free_rules::promo::Snapshot;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{ItemId, PromoId, Timestamp};

use crate::answer::{Answer, Lasting, OwnOrKept};
use crate::call::Call;
use crate::edge::Edge;
use crate::item_cache::{Kept, Key};

/// What `GET /item/get?id=` asks for.
pub(crate) fn item(query: Option<&str>) -> Result<Key, Refusal> {
    Ok(Key::Item(ItemId(Fields::id_in_query(query, "id")?)))
}

/// The item, or the list of items, if that needs no waiting.
pub(crate) fn at_hand(
    edge: &Edge,
    call: &Call,
    key: Key,
) -> Option<Result<OwnOrKept<'static>, Refusal>> {
    let tell = |kept: &Arc<Kept>| tell(edge, key, kept, call.now);
    edge.items.at_hand(key, call.started, tell)
}

/// The item, or the list of items.
pub(crate) async fn fetch(edge: &Edge, key: Key) -> Result<Answer, Refusal> {
    let kept = edge.items.get(key).await?;
    let told = tell(edge, key, &kept, edge.now())?;
    Ok(told.clone())
}

/// `GET /promo/state?id=`.
pub(crate) fn promo_state(
    edge: &Edge,
    query: Option<&str>,
    now: Timestamp,
) -> Result<Answer, Refusal> {
    let id = PromoId(Fields::id_in_query(query, "id")?);
    let heard = edge.promos.heard();
    let promo = heard.find(id).ok_or(Refusal::NotFound)?;
    Ok(Answer::success(&PromoState::at(promo, now)))
}

/// What was said of an entry before, if it is still right; else what there is to say now.
fn tell(edge: &Edge, key: Key, kept: &Kept, now: Timestamp) -> Result<OwnOrKept<'static>, Refusal> {
    let heard = edge.promos.heard();
    let said = kept.said.load();
    if said.of == heard.number && said.during.contains(&now) {
        return Ok(OwnOrKept::Lasting(said));
    }
    let mut items = kept
        .items
        .iter()
        .map(|item| item.answer(&heard.promos, now));
    let answer = match key {
        Key::Item(_) => Answer::success(&items.next().ok_or(Refusal::NotFound)?),
        Key::List => Answer::success(&items.collect::<Vec<ItemAnswer<'_>>>()),
    };
    let said = Lasting {
        answer: answer.clone(),
        of: heard.number,
        during: now..next_change(&heard.promos, now),
    };
    kept.said.store(Arc::new(said));
    Ok(OwnOrKept::Own(answer))
}

/// When a promo starts or ends next.
fn next_change(promos: &[Snapshot], now: Timestamp) -> Timestamp {
    let moments = promos
        .iter()
        .flat_map(|promo| [promo.terms.starts_at, promo.terms.ends_at]);
    let next = moments.filter(|moment| *moment > now).min();
    next.unwrap_or(Timestamp(i64::MAX))
}
