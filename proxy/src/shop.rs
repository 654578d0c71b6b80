//! What buyers look at, from memory: items, the list of items, the state of a promo.

use lua_free_rules::fields::Fields;
use lua_free_rules::item::{ItemAnswer, PromoState};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{ItemId, PromoId};

use crate::answer::Answer;
use crate::edge::Edge;
use crate::item_cache::Key;

/// `GET /item/get?id=`.
pub(crate) async fn item(edge: &Edge, query: Option<&str>) -> Result<Answer, Refusal> {
    let id = ItemId(Fields::from_query(query)?.id("id")?);
    let kept = edge.items.get(Key::Item(id)).await?;
    let item = kept.items.first().ok_or(Refusal::NotFound)?;
    let heard = edge.promos.heard();
    Ok(Answer::success(&item.answer(&heard.promos, edge.now())))
}

/// `GET /item/list`.
pub(crate) async fn list(edge: &Edge) -> Result<Answer, Refusal> {
    let kept = edge.items.get(Key::List).await?;
    let (heard, now) = (edge.promos.heard(), edge.now());
    let items: Vec<ItemAnswer<'_>> = kept
        .items
        .iter()
        .map(|item| item.answer(&heard.promos, now))
        .collect();
    Ok(Answer::success(&items))
}

/// `GET /promo/state?id=`.
pub(crate) fn promo_state(edge: &Edge, query: Option<&str>) -> Result<Answer, Refusal> {
    let id = PromoId(Fields::from_query(query)?.id("id")?);
    let heard = edge.promos.heard();
    let promo = heard.find(id).ok_or(Refusal::NotFound)?;
    Ok(Answer::success(&PromoState::at(promo, edge.now())))
}
