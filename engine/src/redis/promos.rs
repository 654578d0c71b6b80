//! Publishing and steering promos, and what every node knows of them.

use async_trait::async_trait;
use lua_free_rules::promo::{Snapshot, Status, Terms};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{Generation, PromoId, Sequence, SoldEpoch, Timestamp};
use redis::cmd;

use super::Redis;
use super::link::Repeat;
use super::scripts::{self, Call};
use super::told::{odd, refused};
use crate::{Control, Promos, Publish, Published, Result};

/// Most places that one call of the upkeep takes back, and most calls for one promo in a row.
const TEND_PLACES_MAX: u32 = 500;
const TEND_CALLS_MAX: usize = 64;

#[async_trait]
impl Promos for Redis {
    async fn publish(&self, request: Publish) -> Result<(Published, Snapshot)> {
        let terms = &request.terms;
        // Known before it is published: a promo that then is not has no generation, and is not told.
        let mut add = cmd("SADD");
        add.arg(self.link.keys.promos()).arg(request.promo.0);
        let _: i64 = self.link.ask(&add, Repeat::Safe).await?;
        let words = [
            u8::from(request.only_first).to_string(),
            request.digest.clone(),
            serde_json::to_string(terms).map_err(|error| odd(&error.to_string()))?,
            terms.fault().unwrap_or_default().to_owned(),
            terms.item.to_string(),
            terms.starts_at.0.to_string(),
            terms.ends_at.0.to_string(),
            terms.price.minor().to_string(),
            terms.stock.to_string(),
            terms.door.to_string(),
            terms.per_buyer.to_string(),
            terms.pay_within.ms().to_string(),
            terms.token_ttl.ms().to_string(),
            terms.forget_at().0.to_string(),
        ];
        let call = Call::new(&scripts::PUBLISH, self.link.keys.meta(request.promo), words);
        let answer: String = self.link.call(&call, Repeat::Once).await?;
        let published = match refused(&answer)? {
            "new" => Published::New,
            "unchanged" => Published::Unchanged,
            _ => return Err(odd(&answer)),
        };
        Ok((published, self.current(request.promo).await?))
    }

    async fn control(&self, promo: PromoId, control: Control) -> Result<Snapshot> {
        let (what, units) = match control {
            Control::Pause => ("pause", 0),
            Control::Resume => ("resume", 0),
            Control::Close => ("close", 0),
            Control::AddStock(units) => ("add", units),
        };
        let repeat = match control {
            Control::AddStock(_) => Repeat::Once,
            _ => Repeat::Safe,
        };
        let words = [what.to_owned(), units.to_string()];
        let call = Call::new(&scripts::CONTROL, self.link.keys.meta(promo), words);
        let answer: String = self.link.call(&call, repeat).await?;
        refused(&answer)?;
        self.current(promo).await
    }

    async fn promos(&self) -> Result<(Timestamp, Vec<Snapshot>)> {
        let mut all = redis::pipe();
        all.cmd("TIME");
        all.cmd("SMEMBERS").arg(self.link.keys.promos());
        let mut answers = self.link.ask_all(&all, Repeat::Safe).await?.into_iter();
        let (seconds, micros): (i64, i64) = self.link.read(answers.next())?;
        let mut ids: Vec<i64> = self.link.read(answers.next())?;
        ids.sort_unstable();
        let mut snapshots = Vec::with_capacity(ids.len());
        for id in ids {
            snapshots.extend(self.look(PromoId(id), None).await?);
        }
        Ok((Timestamp(seconds * 1_000 + micros / 1_000), snapshots))
    }

    async fn snapshot(&self, promo: PromoId, generation: Generation) -> Result<Snapshot> {
        let found = self.look(promo, Some(generation)).await?;
        found.ok_or_else(|| Refusal::NotFound.into())
    }

    async fn tend(&self) -> Result<()> {
        for promo in self.link.promos().await? {
            for _ in 0..TEND_CALLS_MAX {
                let words = [TEND_PLACES_MAX.to_string()];
                let call = Call::new(&scripts::TEND, self.link.keys.meta(promo), words);
                let more: i64 = self.link.call(&call, Repeat::Safe).await?;
                if more == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Redis {
    async fn current(&self, promo: PromoId) -> Result<Snapshot> {
        let found = self.look(promo, None).await?;
        found.ok_or_else(|| Refusal::NotFound.into())
    }

    async fn look(
        &self,
        promo: PromoId,
        generation: Option<Generation>,
    ) -> Result<Option<Snapshot>> {
        let word = generation.map_or_else(String::new, |generation| generation.0.to_string());
        let call = Call::new(&scripts::PROMO, self.link.keys.meta(promo), [word]);
        let fields: Vec<String> = self.link.call(&call, Repeat::Safe).await?;
        if fields.is_empty() {
            return Ok(None);
        }
        snapshot(promo, &fields).map(Some)
    }
}

/// time, generation, terms, stock, status, available, sold out, epoch, sequence, issued, used
fn snapshot(promo: PromoId, fields: &[String]) -> Result<Snapshot> {
    let unreadable = || odd(&fields.join(" "));
    let [_, generation, terms, stock, status, counts @ ..] = fields else {
        return Err(unreadable());
    };
    let [available, sold_out, epoch, sequence, issued, used] = counts else {
        return Err(unreadable());
    };
    let mut terms: Terms = serde_json::from_str(terms).map_err(|_| unreadable())?;
    terms.stock = stock.parse().map_err(|_| unreadable())?;
    let number = |text: &String| text.parse::<i64>().map_err(|_| unreadable());
    Ok(Snapshot {
        promo,
        generation: Generation(number(generation)?),
        terms,
        status: match status.as_str() {
            "open" => Status::Open,
            "paused" => Status::Paused,
            "closed" => Status::Closed,
            "rebuilding" => Status::Rebuilding,
            _ => return Err(unreadable()),
        },
        available: available.parse().map_err(|_| unreadable())?,
        sold_out: sold_out == "1",
        sold_epoch: SoldEpoch(number(epoch)?),
        sequence: Sequence(number(sequence)?),
        places_issued: number(issued)?.unsigned_abs(),
        places_used: number(used)?.unsigned_abs(),
    })
}
