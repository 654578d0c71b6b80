//! What buyers look at, from memory: items, the list of items, the state of a promo.

use std::sync::Arc;

use lua_free_rules::fields::Fields;
use lua_free_rules::item::{ItemAnswer, PromoState};
use lua_free_rules::promo::Snapshot;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{ItemId, PromoId, Timestamp};

use crate::answer::{Answer, Lasting};
use crate::edge::Edge;
use crate::item_cache::{Kept, Key};

/// `GET /item/get?id=`, if that needs no waiting.
pub(crate) fn item_at_hand(edge: &Edge, query: Option<&str>) -> Option<Result<Answer, Refusal>> {
    let id = match item_id(query) {
        Ok(id) => id,
        Err(refusal) => return Some(Err(refusal)),
    };
    let kept = edge.items.at_hand(Key::Item(id))?;
    Some(tell_item(edge, &kept))
}

/// `GET /item/get?id=`.
pub(crate) async fn item(edge: &Edge, query: Option<&str>) -> Result<Answer, Refusal> {
    let kept = edge.items.get(Key::Item(item_id(query)?)).await?;
    tell_item(edge, &kept)
}

/// `GET /item/list`, if that needs no waiting.
pub(crate) fn list_at_hand(edge: &Edge) -> Option<Answer> {
    let kept = edge.items.at_hand(Key::List)?;
    Some(tell_list(edge, &kept))
}

/// `GET /item/list`.
pub(crate) async fn list(edge: &Edge) -> Result<Answer, Refusal> {
    let kept = edge.items.get(Key::List).await?;
    Ok(tell_list(edge, &kept))
}

/// `GET /promo/state?id=`.
pub(crate) fn promo_state(edge: &Edge, query: Option<&str>) -> Result<Answer, Refusal> {
    let id = PromoId(Fields::id_in_query(query, "id")?);
    let heard = edge.promos.heard();
    let promo = heard.find(id).ok_or(Refusal::NotFound)?;
    Ok(Answer::success(&PromoState::at(promo, edge.now())))
}

fn item_id(query: Option<&str>) -> Result<ItemId, Refusal> {
    Ok(ItemId(Fields::id_in_query(query, "id")?))
}

fn tell_item(edge: &Edge, kept: &Kept) -> Result<Answer, Refusal> {
    let item = kept.items.first().ok_or(Refusal::NotFound)?;
    Ok(tell(edge, kept, |promos, now| {
        Answer::success(&item.answer(promos, now))
    }))
}

fn tell_list(edge: &Edge, kept: &Kept) -> Answer {
    tell(edge, kept, |promos, now| {
        let items = kept.items.iter().map(|item| item.answer(promos, now));
        Answer::success(&items.collect::<Vec<ItemAnswer<'_>>>())
    })
}

/// What was said of an entry before, if it is still right; else what `say` makes of the promos and now.
fn tell(edge: &Edge, kept: &Kept, say: impl FnOnce(&[Snapshot], Timestamp) -> Answer) -> Answer {
    let (heard, now) = (edge.promos.heard(), edge.now());
    if let Some(said) = &*kept.said.load()
        && said.of == heard.number
        && said.during.contains(&now)
    {
        return said.answer.clone();
    }
    let answer = say(&heard.promos, now);
    let said = Lasting {
        answer: answer.clone(),
        of: heard.number,
        during: now..next_change(&heard.promos, now),
    };
    kept.said.store(Some(Arc::new(said)));
    answer
}

/// When a promo starts or ends next.
fn next_change(promos: &[Snapshot], now: Timestamp) -> Timestamp {
    let moments = promos
        .iter()
        .flat_map(|promo| [promo.terms.starts_at, promo.terms.ends_at]);
    let next = moments.filter(|moment| *moment > now).min();
    next.unwrap_or(Timestamp(i64::MAX))
}
