//! Stock: reserving in batches; reserving again and releasing one by one.

use std::borrow::Cow;

use async_trait::async_trait;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::Access;
use lua_free_rules::units::{Generation, ItemId, OrderId, PromoId};
use redis::Value;

use super::batch::{Asked, Missed, split_by};
use super::keys::buyer_word;
use super::link::{Link, Repeat};
use super::packed::{Cause, Line, json};
use super::scripts::{self, Call};
use super::told::{self, Parts, Reservations, refused};
use super::{Redis, sessions};
use crate::bounds;
use crate::{EngineError, Release, Reservation, Reserve, Reserved, Result, Stock};

#[async_trait]
impl Stock for Redis {
    async fn reserve(&self, request: Reserve) -> Result<Reserved> {
        bounds::check_request(&request)?;
        match self.reserving.ask(request).await {
            Ok(answer) => answer,
            Err(Missed::Full) => Err(Refusal::Overloaded.into()),
            Err(Missed::Late) => Err(EngineError::Unavailable("no answer in time".to_owned())),
        }
    }

    async fn reserve_again(&self, order: OrderId, payment: &str) -> Result<Reservation> {
        bounds::check_payment(payment)?;
        let words = [
            order.generation.0.to_string(),
            order.number.0.to_string(),
            json(payment),
        ];
        let key = self.link.keys.meta(order.promo);
        let call = Call::new(&scripts::RESERVE_AGAIN, key, words);
        let answer: String = self.link.call(&call, Repeat::Safe).await?;
        let mut parts = Parts::of(refused(&answer)?, "R")?;
        told::reservation(&mut parts, order.promo)
    }

    async fn release(&self, release: Release) -> Result<bool> {
        let words = [
            release.order.generation.0,
            release.order.number.0,
            release.number.0,
        ];
        let key = self.link.keys.meta(release.order.promo);
        let call = Call::new(&scripts::RELEASE, key, words.map(|word| word.to_string()));
        let answer: String = self.link.call(&call, Repeat::Safe).await?;
        match refused(&answer)? {
            "1" => Ok(true),
            "0" => Ok(false),
            _ => Err(told::odd(&answer)),
        }
    }

    async fn reservation(&self, order: OrderId) -> Result<Option<Reservation>> {
        let words = [order.generation.0, order.number.0].map(|word| word.to_string());
        let call = Call::new(
            &scripts::RESERVATION,
            self.link.keys.meta(order.promo),
            words,
        );
        let answer: String = self.link.call(&call, Repeat::Safe).await?;
        match refused(&answer) {
            Ok(found) => told::reservation(&mut Parts::of(found, "R")?, order.promo).map(Some),
            Err(EngineError::Refused(Refusal::NotFound)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Answers a batch: sessions first, then one call for each promo.
pub(super) async fn reserve_all(
    link: &Link,
    stream_max: u64,
    batch: Vec<Asked<Reserve, Result<Reserved>>>,
) {
    let batch = sessions::alive(link, batch, |request| request.session).await;
    let batch: Vec<_> = batch
        .into_iter()
        .filter_map(|(request, reply)| {
            if request.session.buyer == request.access.buyer {
                return Some((request, reply));
            }
            // The caller may have gone away, here and below.
            let _ = reply.send(Err(Refusal::TokenInvalid.into()));
            None
        })
        .collect();
    let calls = split_by(batch, |request| Selling::of(&request.access))
        .into_iter()
        .map(|(selling, batch)| reserve_of(link, stream_max, selling, batch));
    futures_util::future::join_all(calls).await;
}

/// What the tokens of one call are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Selling {
    /// Which promo.
    pub(super) promo: PromoId,
    generation: Generation,
    item: ItemId,
}

impl Selling {
    /// What a token is for.
    pub(super) const fn of(access: &Access) -> Self {
        Self {
            promo: access.promo,
            generation: access.generation,
            item: access.item,
        }
    }
}

async fn reserve_of(
    link: &Link,
    stream_max: u64,
    selling: Selling,
    batch: Vec<Asked<Reserve, Result<Reserved>>>,
) {
    let words = words(
        stream_max,
        selling,
        batch.iter().map(|(request, _)| request),
    );
    let call = Call::new(&scripts::RESERVE, link.keys.meta(selling.promo), words);
    let answers: Result<Vec<Value>> = link.call(&call, Repeat::Safe).await;
    match answers.and_then(Reservations::read) {
        Ok((common, answers)) => super::door::answer_all(batch, Ok(answers), |request, answer| {
            common.reserved(request, &answer)
        }),
        Err(error) => super::door::answer_all(batch, Err::<Vec<Value>, _>(error), |_, answer| {
            Err(told::odd(&format!("{answer:?}")))
        }),
    }
}

/// The words of a call for requests whose tokens are all for the same.
pub(super) fn words<'a>(
    stream_max: u64,
    selling: Selling,
    requests: impl Iterator<Item = &'a Reserve> + Clone,
) -> Vec<String> {
    let expires_at = requests.clone().map(|request| request.access.expires_at.0);
    let mut words = vec![
        stream_max.to_string(),
        selling.generation.0.to_string(),
        selling.item.to_string(),
        expires_at.min().unwrap_or_default().to_string(),
    ];
    for request in requests {
        let access = &request.access;
        let line = Line {
            buyer: access.buyer,
            amount: request.amount,
            cause: Cause::Request(
                access.jti,
                Cow::Borrowed(&request.key),
                Cow::Borrowed(&request.body),
            ),
        };
        words.extend([
            buyer_word(access.buyer),
            // What the scripts keep of a buyer whose only step was to fetch this token.
            format!(
                "0|1|{}|{}|{}|{}",
                access.jti, access.issued_at.0, access.expires_at.0, access.amount_max
            ),
            request.amount.to_string(),
            line.to_string(),
        ]);
    }
    words
}
