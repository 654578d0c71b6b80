//! The door: entering in batches; spending a challenge.

use async_trait::async_trait;
use lua_free_rules::challenge::Attempt;
use lua_free_rules::token::Access;
use lua_free_rules::units::{BuyerId, Generation, ItemId, PromoId, Timestamp};

use super::batch::{Asked, Missed, split_by};
use super::keys::buyer_word;
use super::link::{Link, Repeat};
use super::scripts::{self, Call};
use super::told::{self, Parts, refused};
use super::{Redis, sessions};
use crate::{Door, EngineError, Entry, Result};

#[async_trait]
impl Door for Redis {
    async fn enter(&self, entry: Entry) -> Result<Access> {
        match self.entering.ask(entry).await {
            Ok(answer) => answer,
            Err(missed) => Err(EngineError::Unavailable(
                match missed {
                    Missed::Full => "too many requests wait",
                    Missed::Late => "no answer in time",
                }
                .to_owned(),
            )),
        }
    }

    async fn spend(&self, promo: PromoId, attempt: Attempt) -> Result<bool> {
        let words = [attempt.id.to_string(), attempt.expires_at.0.to_string()];
        let call = Call::new(&scripts::SPEND, self.link.keys.meta(promo), words);
        // A repeated call would say that it was not the first: whoever asks learns nothing wrong by
        // that, since a wrong answer is refused either way.
        let first: i64 = self.link.call(&call, Repeat::Safe).await?;
        Ok(first == 1)
    }
}

/// Answers a batch: sessions first, then one call for each promo.
pub(super) async fn enter_all(link: &Link, batch: Vec<Asked<Entry, Result<Access>>>) {
    let batch = sessions::alive(link, batch, |entry| entry.session).await;
    let calls = split_by(batch, |entry| entry.promo)
        .into_iter()
        .map(|(promo, batch)| enter_of(link, promo, batch));
    futures_util::future::join_all(calls).await;
}

async fn enter_of(link: &Link, promo: PromoId, batch: Vec<Asked<Entry, Result<Access>>>) {
    let mut call = Call::new::<String>(&scripts::ENTER, link.keys.meta(promo), []);
    for (entry, _) in &batch {
        let (challenge, ends) = entry.attempt.map_or_else(
            || (String::new(), "0".to_owned()),
            |attempt| (attempt.id.to_string(), attempt.expires_at.0.to_string()),
        );
        let words = [
            buyer_word(entry.session.buyer),
            entry.jti.to_string(),
            challenge,
            ends,
        ];
        call.words.extend(words.map(String::into_bytes));
    }
    let answers: Result<Vec<String>> = link.call(&call, Repeat::Safe).await;
    answer_all(batch, answers, |entry, answer| {
        access(&answer, promo, entry.session.buyer)
    });
}

fn access(answer: &str, promo: PromoId, buyer: BuyerId) -> Result<Access> {
    let mut parts = Parts::of(refused(answer)?, "A")?;
    Ok(Access {
        buyer,
        promo,
        generation: Generation(parts.read()?),
        item: ItemId(parts.read()?),
        jti: parts.read()?,
        issued_at: Timestamp(parts.read()?),
        expires_at: Timestamp(parts.read()?),
        amount_max: parts.read()?,
    })
}

/// Tells each caller his answer; all of them, if the call failed.
pub(super) fn answer_all<Q, T: Clone, A>(
    batch: Vec<Asked<Q, Result<T>>>,
    answers: Result<Vec<A>>,
    mut read: impl FnMut(&Q, A) -> Result<T>,
) {
    let answers = answers.and_then(|answers| {
        if answers.len() == batch.len() {
            return Ok(answers);
        }
        Err(told::odd(&format!(
            "{} answers to {} requests",
            answers.len(),
            batch.len()
        )))
    });
    match answers {
        Ok(answers) => {
            for ((request, reply), answer) in batch.into_iter().zip(answers) {
                let _ = reply.send(read(&request, answer));
            }
        }
        Err(error) => {
            for (_, reply) in batch {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}
