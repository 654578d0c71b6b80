//! Stock: reserving in batches; reserving again and releasing one by one.

use async_trait::async_trait;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{OrderId, PromoId};
use redis::cmd;

use super::batch::{Asked, Missed};
use super::link::{Link, Repeat};
use super::scripts::{self, Call};
use super::told::{self, Parts, refused};
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
        let mut get = cmd("HGET");
        get.arg(self.link.keys.reservations(order.promo, order.generation))
            .arg(order.number.0);
        let Some(record): Option<String> = self.link.ask(&get, Repeat::Safe).await? else {
            return Ok(None);
        };
        let answer = format!("R|{}|{}|{record}", order.generation.0, order.number.0);
        let found = told::reservation(&mut Parts::of(&answer, "R")?, order.promo)?;
        // Its number may be that of a late payment's reservation for another order.
        Ok((found.order == order).then_some(found))
    }
}

/// Answers a batch: sessions first, then one call for each promo.
pub(super) async fn reserve_all(
    link: &Link,
    stream_max: u64,
    batch: Vec<Asked<Reserve, Result<Reserved>>>,
) {
    let batch = sessions::alive(link, batch, |request| request.session).await;
    let mut batch: Vec<_> = batch
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
    batch.sort_by_key(|(request, _)| request.access.promo);
    let mut calls = Vec::new();
    while let Some((first, _)) = batch.first() {
        let promo = first.access.promo;
        let end = batch.partition_point(|(request, _)| request.access.promo <= promo);
        let rest = batch.split_off(end);
        calls.push(reserve_of(
            link,
            stream_max,
            promo,
            std::mem::replace(&mut batch, rest),
        ));
    }
    futures_util::future::join_all(calls).await;
}

async fn reserve_of(
    link: &Link,
    stream_max: u64,
    promo: PromoId,
    batch: Vec<Asked<Reserve, Result<Reserved>>>,
) {
    let mut call = Call::new(
        &scripts::RESERVE,
        link.keys.meta(promo),
        [stream_max.to_string()],
    );
    for (request, _) in &batch {
        call.words.extend(words(request).map(String::into_bytes));
    }
    let answers: Result<Vec<String>> = link.call(&call, Repeat::Safe).await;
    super::door::answer_all(batch, answers, |answer| told::reserved(answer, promo));
}

/// The words of a request in the script.
pub(super) fn words(request: &Reserve) -> [String; 8] {
    let access = &request.access;
    [
        access.buyer.to_string(),
        access.generation.0.to_string(),
        access.item.to_string(),
        access.jti.to_string(),
        access.expires_at.0.to_string(),
        request.amount.to_string(),
        json(&request.key),
        json(&request.body),
    ]
}

/// A text in JSON: without a raw line break, and as it stands in an event.
pub(super) fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
