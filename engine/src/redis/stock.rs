//! Stock: reserving in batches; reserving again and releasing one by one.

use std::borrow::Cow;
use std::collections::HashMap;

use async_trait::async_trait;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::Access;
use lua_free_rules::units::{BuyerId, Generation, ItemId, OrderId, PromoId};
use redis::Value;

use super::batch::{Asked, Missed, split_by};
use super::keys::buyer_word;
use super::link::{Link, Repeat};
use super::packed::{Cause, Line, json};
use super::scripts::{self, Call};
use super::told::{self, Parts, Reservations, refused};
use super::{Redis, sessions};
use crate::bounds;
use crate::{
    Clock as _, EngineError, Release, Reservation, Reserve, Reserved, Result, Stock, SystemClock,
};

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

/// Answers a batch: sessions first, then a call for all whose tokens are for the same.
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
    let now = SystemClock.now();
    let mut asked_before: HashMap<BuyerId, usize> = HashMap::new();
    let batch = batch.into_iter().map(|(request, reply)| {
        let selling = Selling::of(&request.access);
        let before = asked_before.entry(request.access.buyer).or_default();
        *before += 1;
        // The script looks once whether all tokens of a call are still good.
        let is_late = request.access.expires_at < now;
        (((selling, is_late, *before), request), reply)
    });
    // Who asks twice in a batch does so in two calls: the script knows each of its buyers once.
    let calls =
        split_by(batch.collect(), |(key, _)| *key)
            .into_iter()
            .map(|((selling, ..), batch)| {
                let batch = batch.into_iter();
                let batch = batch.map(|((_, request), reply)| (request, reply));
                reserve_of(link, stream_max, selling, batch.collect())
            });
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
    let requests: Vec<&Reserve> = batch.iter().map(|(request, _)| request).collect();
    let answers: Result<Vec<Value>> = match words(stream_max, selling, &requests) {
        Ok(words) => {
            let call = Call::new(&scripts::RESERVE, link.keys.meta(selling.promo), words);
            link.call(&call, Repeat::Safe).await
        }
        Err(error) => Err(error),
    };
    match answers.and_then(Reservations::read) {
        Ok((common, answers)) => super::door::answer_all(batch, Ok(answers), |request, answer| {
            common.reserved(request, &answer)
        }),
        Err(error) => super::door::answer_all(batch, Err::<Vec<Value>, _>(error), |_, answer| {
            Err(told::odd(&format!("{answer:?}")))
        }),
    }
}

/// The words of a call for requests whose tokens are all for the same, no two of them by one buyer.
///
/// The requests travel as one word in MessagePack: Redis unpacks it in a fraction of the time that it takes to
/// read as many words of a command.
pub(super) fn words(
    stream_max: u64,
    selling: Selling,
    requests: &[&Reserve],
) -> Result<[Vec<u8>; 5]> {
    let expires_at = requests.iter().map(|request| request.access.expires_at.0);
    let expires_at = expires_at.min().unwrap_or_default();
    let buyers = requests
        .iter()
        .map(|request| buyer_word(request.access.buyer));
    let standings = requests.iter().map(|request| standing(&request.access));
    let amounts = requests.iter().map(|request| request.amount);
    let lines = requests.iter().map(|request| {
        let access = &request.access;
        let (key, body) = (Cow::Borrowed(&*request.key), Cow::Borrowed(&*request.body));
        let cause = Cause::Request(access.jti, key, body);
        Line {
            buyer: access.buyer,
            amount: request.amount,
            cause,
        }
        .to_string()
    });
    let packed = rmp_serde::to_vec(&(
        buyers.collect::<Vec<_>>(),
        standings.collect::<Vec<_>>(),
        amounts.collect::<Vec<_>>(),
        lines.collect::<Vec<_>>(),
    ))
    .map_err(|error| told::odd(&error.to_string()))?;
    Ok([
        stream_max.to_string().into_bytes(),
        selling.generation.0.to_string().into_bytes(),
        selling.item.to_string().into_bytes(),
        expires_at.to_string().into_bytes(),
        packed,
    ])
}

/// What the scripts keep of a buyer whose only step was to fetch this token.
pub(super) fn standing(access: &Access) -> String {
    let (jti, issued_at) = (access.jti, access.issued_at.0);
    let (expires_at, amount_max) = (access.expires_at.0, access.amount_max);
    format!("0|1|{jti}|{issued_at}|{expires_at}|{amount_max}")
}
