//! After Redis was started anew: every promo is rebuilt from its past, then what Redis remembers is
//! recorded as good and is asked again.
//!
//! Everything is written while the promo is marked with the name of who rebuilds it, and each part is
//! written only if that mark still stands: one who was held up and replaced writes nothing more. The
//! last step of a promo takes the mark away, and only after all of them is the run recorded.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use lua_free_rules::promo::{Status, Terms};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::{BuyerId, Generation, PromoId, Timestamp};
use redis::cmd;

use super::Redis;
use super::keys::{BUYER_BYTES, buyer_word};
use super::link::{self, Memory, Repeat};
use super::packed::{Cause, Line};
use super::scripts::{self, Call};
use crate::past::{Past, PastGeneration, PastReservation};
use crate::{Leases as _, Recovery, Result, Signal, Signals as _};

/// The lease of who rebuilds.
const REBUILD: &str = "rebuild";
/// How long one process rebuilds alone before another one may take over.
const REBUILD_TTL: Duration = Duration::from_secs(60);
/// Most words in one call.
const WORDS_MAX: usize = 2_000;

#[async_trait]
impl Recovery for Redis {
    async fn is_lost(&self) -> Result<bool> {
        let mut get = cmd("GET");
        get.arg(self.link.keys.run());
        let recorded: Option<String> = self.link.ask_on(&get, Repeat::Safe, Memory::Any).await?;
        Ok(recorded.as_deref() != Some(self.run().await?.as_str()))
    }

    async fn begin_rebuild(&self, holder: &str) -> Result<bool> {
        let Some(fence) = self.hold(holder).await? else {
            return Ok(false);
        };
        self.rebuild_fence.store(fence, Ordering::SeqCst);
        for promo in self.link.promos_on(Memory::Any).await? {
            self.mark(promo, holder).await?;
        }
        self.reader.claim(Duration::ZERO).await?;
        Ok(true)
    }

    async fn rebuild(&self, holder: &str, past: Vec<Past>) -> Result<()> {
        // The run that is rebuilt: one that begins meanwhile must be rebuilt itself.
        let run = self.run().await?;
        if !self.is_lost().await? {
            return Err(Refusal::NotAllowed.into());
        }
        let known: BTreeSet<PromoId> = past.iter().map(|past| past.promo).collect();
        for past in past {
            let mut add = cmd("SADD");
            add.arg(self.link.keys.promos()).arg(past.promo.0);
            let _: i64 = self.link.ask_on(&add, Repeat::Safe, Memory::Any).await?;
            self.mark(past.promo, holder).await?;
            Rebuild::of(self, holder, &past).await?.run().await?;
        }
        // Proposed once and never published: nothing is known of them anywhere.
        for promo in self.link.promos_on(Memory::Any).await? {
            if !known.contains(&promo) {
                let call = Call::new(
                    &scripts::REBUILD,
                    self.link.keys.meta(promo),
                    [
                        holder.to_owned(),
                        "2".to_owned(),
                        "DEL".to_owned(),
                        self.link.keys.meta(promo),
                    ],
                );
                self.alone(&call).await?;
            }
        }
        // One who was held up until another one began may not say that all is done.
        self.still_holds(holder).await?;
        self.record(&run).await?;
        self.give_back(REBUILD, holder).await?;
        self.tell(Signal::Missed).await
    }
}

impl Redis {
    /// Records that what the Redis that runs now remembers is good: from now on it is asked.
    #[cfg(any(test, feature = "measure"))]
    pub(super) async fn vouch(&self) -> Result<()> {
        self.record(&self.run().await?).await
    }

    /// Records the run whose memory is good.
    async fn record(&self, run: &str) -> Result<()> {
        let mut set = cmd("SET");
        set.arg(self.link.keys.run()).arg(run);
        self.link.ask_on(&set, Repeat::Safe, Memory::Any).await
    }

    /// Takes or renews the right to rebuild; none while another one has it.
    async fn hold(&self, holder: &str) -> Result<Option<i64>> {
        let [key, fence] = self.link.keys.lease(REBUILD);
        let ttl = REBUILD_TTL.as_millis().to_string();
        let mut call = Call::new(&scripts::LEASE, key, [holder.to_owned(), ttl]);
        call.keys.push(fence);
        self.link.call_on(&call, Repeat::Safe, Memory::Any).await
    }

    /// Renews the right to rebuild; one that was taken over by another is not to be had again.
    async fn still_holds(&self, holder: &str) -> Result<()> {
        if self.hold(holder).await? == Some(self.rebuild_fence.load(Ordering::SeqCst)) {
            return Ok(());
        }
        Err(Refusal::NotAllowed.into())
    }

    async fn run(&self) -> Result<String> {
        let mut info = cmd("INFO");
        info.arg("server");
        let info: String = self.link.ask_on(&info, Repeat::Safe, Memory::Any).await?;
        Ok(link::field(&info, "run_id").unwrap_or_default())
    }

    pub(super) async fn mark(&self, promo: PromoId, holder: &str) -> Result<()> {
        let fence = self.rebuild_fence.load(Ordering::SeqCst).to_string();
        let key = self.link.keys.meta(promo);
        self.alone(&Call::new(&scripts::MARK, key, [holder.to_owned(), fence]))
            .await
    }

    /// Calls a script that answers 0 if another process rebuilds by now.
    pub(super) async fn alone(&self, call: &Call) -> Result<()> {
        let done: i64 = self.link.call_on(call, Repeat::Safe, Memory::Any).await?;
        if done == 0 {
            return Err(Refusal::NotAllowed.into());
        }
        Ok(())
    }
}

/// The rebuild of one promo.
struct Rebuild<'a> {
    redis: &'a Redis,
    holder: &'a str,
    past: &'a Past,
    now: Timestamp,
    /// The last epoch that anyone may have heard of.
    epoch: i64,
    /// What an operator made of the last generation.
    status: String,
    /// The highest generation that is known anywhere.
    highest: i64,
    words: Vec<String>,
}

impl<'a> Rebuild<'a> {
    /// Looks at what Redis still has.
    async fn of(redis: &'a Redis, holder: &'a str, past: &'a Past) -> Result<Self> {
        let link = &redis.link;
        let (seconds, micros): (i64, i64) =
            link.ask_on(&cmd("TIME"), Repeat::Safe, Memory::Any).await?;
        let mut current = cmd("HGET");
        current.arg(link.keys.meta(past.promo)).arg("cur");
        let current: Option<i64> = link.ask_on(&current, Repeat::Safe, Memory::Any).await?;
        let last = past.last().map_or(0, |(generation, _)| generation.0);
        let mut fields = cmd("HMGET");
        fields.arg(link.keys.generation(past.promo, Generation(last)));
        fields.arg("status").arg("sold_epoch");
        let (status, epoch): (Option<String>, Option<i64>) =
            link.ask_on(&fields, Repeat::Safe, Memory::Any).await?;
        Ok(Self {
            redis,
            holder,
            past,
            now: Timestamp(seconds * 1_000 + micros / 1_000),
            // Where it was lost, the clock is ahead of any count of changes.
            epoch: epoch.unwrap_or(seconds),
            status: status.unwrap_or_else(|| status_name(past.status).to_owned()),
            highest: current.unwrap_or(0).max(last).max(past.numbered.0),
            words: Vec::new(),
        })
    }

    async fn run(mut self) -> Result<()> {
        let Some((last, generation)) = self.past.last() else {
            return Ok(());
        };
        for (number, generation) in &self.past.generations {
            self.write(*number, generation).await?;
        }
        let is_over = self.status == "closed" || self.now >= generation.terms.ends_at;
        let kept = self
            .past
            .generations
            .iter()
            .filter(|(_, generation)| self.now < generation.terms.forget_at());
        let mut kept: Vec<String> = kept.map(|(number, _)| number.0.to_string()).collect();
        let (mut heir, mut more) = (String::new(), Vec::new());
        if !is_over {
            heir = (self.highest + 1).to_string();
            kept.push(heir.clone());
            let terms = self
                .write_heir(Generation(self.highest + 1), generation)
                .await?;
            let line = self.past.line();
            let line: Vec<String> = line.iter().map(|number| number.0.to_string()).collect();
            more = vec![generation.rebuilt(), written(&terms)?, line.join(",")];
        }
        self.flush().await?;
        let mut words = vec![
            self.holder.to_owned(),
            last.0.to_string(),
            heir,
            kept.join(","),
        ];
        words.append(&mut more);
        let key = self.redis.link.keys.meta(self.past.promo);
        self.redis
            .alone(&Call::new(&scripts::REOPEN, key, words))
            .await
    }

    /// Writes a generation as its events say.
    async fn write(&mut self, number: Generation, generation: &PastGeneration) -> Result<()> {
        let promo = self.past.promo;
        let keys = self.redis.link.keys.clone();
        for key in [
            keys.holdings(promo, number),
            keys.buyers(promo, number),
            keys.expiring(promo, number),
        ] {
            self.add(vec!["UNLINK".to_owned(), key]).await?;
        }
        let held = generation.held();
        let used = held.len();
        let mut lines: BTreeMap<BuyerId, String> = BTreeMap::new();
        for (reserved, made) in &generation.reservations {
            let buyer = made.reservation.buyer;
            lines.entry(buyer).or_default().push_str(&line_of(made));
            let at = (reserved.0 - 1) * BUYER_BYTES;
            let set = ["SETRANGE", &keys.buyers(promo, number), &at.to_string()];
            let mut set: Vec<String> = set.map(str::to_owned).to_vec();
            set.push(buyer_word(buyer));
            self.add(set).await?;
        }
        for (buyer, lines) in lines {
            let units = held.get(&buyer).copied().unwrap_or_default();
            let place = if units == 0 { "0" } else { "2" };
            let known = format!("{units}|{place}||||{lines}");
            self.add_holding(&keys.holdings(promo, number), buyer, known)
                .await?;
        }
        let mut set = vec!["HSET".to_owned(), keys.generation(promo, number)];
        set.extend(pairs(&generation.terms, generation.proposal())?);
        let available = generation.available.max(0);
        let is_last = self.past.last().is_some_and(|(last, _)| last == number);
        let counts = [
            ("available", available.to_string()),
            ("sold_out", u8::from(available == 0).to_string()),
            ("sold_epoch", self.epoch.to_string()),
            ("sequence", generation.sequence.0.to_string()),
            ("issued", "0".to_owned()),
            ("used", used.to_string()),
            ("last_number", generation.last_number.0.to_string()),
            (
                "status",
                if is_last {
                    self.status.clone()
                } else {
                    "closed".to_owned()
                },
            ),
        ];
        set.extend(
            counts
                .into_iter()
                .flat_map(|(name, value)| [name.to_owned(), value]),
        );
        self.add(set).await
    }

    /// Writes the generation that goes on with `before`; returns its terms.
    async fn write_heir(&mut self, number: Generation, before: &PastGeneration) -> Result<Terms> {
        let promo = self.past.promo;
        let keys = self.redis.link.keys.clone();
        let mut left = 0_i64;
        let mut held: BTreeMap<BuyerId, u32> = BTreeMap::new();
        for generation in self.past.line() {
            let Some(generation) = self.past.generations.get(&generation) else {
                continue;
            };
            for (buyer, units) in generation.held() {
                let all = held.entry(buyer).or_default();
                *all = all.saturating_add(units);
            }
        }
        left += before.available.max(0);
        let terms = Terms {
            stock: u32::try_from(left).unwrap_or(u32::MAX),
            ..before.terms.clone()
        };
        for key in [
            keys.holdings(promo, number),
            keys.buyers(promo, number),
            keys.expiring(promo, number),
            keys.generation(promo, number),
        ] {
            self.add(vec!["UNLINK".to_owned(), key]).await?;
        }
        for (buyer, units) in held {
            let known = format!("{units}|0||||");
            self.add_holding(&keys.holdings(promo, number), buyer, known)
                .await?;
        }
        let mut set = vec!["HSET".to_owned(), keys.generation(promo, number)];
        set.extend(pairs(&terms, before.proposal())?);
        let epoch = (self.epoch + 1).to_string();
        for (name, value) in [
            ("available", "0"),
            ("sold_out", "0"),
            ("sold_epoch", epoch.as_str()),
            ("sequence", "0"),
            ("issued", "0"),
            ("used", "0"),
            ("last_number", "0"),
            ("status", self.status.clone().as_str()),
        ] {
            set.extend([name.to_owned(), value.to_owned()]);
        }
        self.add(set).await?;
        Ok(terms)
    }

    async fn add_holding(&mut self, key: &str, buyer: BuyerId, known: String) -> Result<()> {
        let set = vec!["HSET".to_owned(), key.to_owned(), buyer_word(buyer), known];
        self.add(set).await
    }

    async fn add(&mut self, command: Vec<String>) -> Result<()> {
        if self.words.len() + command.len() >= WORDS_MAX {
            self.flush().await?;
        }
        self.words.push(command.len().to_string());
        self.words.extend(command);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.redis.still_holds(self.holder).await?;
        let mut words = vec![self.holder.to_owned()];
        words.append(&mut self.words);
        let key = self.redis.link.keys.meta(self.past.promo);
        self.redis
            .alone(&Call::new(&scripts::REBUILD, key, words))
            .await
    }
}

/// The terms as the fields of a generation.
fn pairs(terms: &Terms, digest: &str) -> Result<Vec<String>> {
    let fields = [
        ("digest", digest.to_owned()),
        ("terms", written(terms)?),
        ("item", terms.item.to_string()),
        ("starts_at", terms.starts_at.0.to_string()),
        ("ends_at", terms.ends_at.0.to_string()),
        ("price", terms.price.minor().to_string()),
        ("stock", terms.stock.to_string()),
        ("door", terms.door.to_string()),
        ("per_buyer", terms.per_buyer.to_string()),
        ("pay_within", terms.pay_within.ms().to_string()),
        ("token_ttl", terms.token_ttl.ms().to_string()),
        ("forget_at", terms.forget_at().0.to_string()),
    ];
    Ok(fields
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect())
}

fn written(terms: &Terms) -> Result<String> {
    serde_json::to_string(terms).map_err(|error| super::told::odd(&error.to_string()))
}

/// A reservation as the scripts keep it with its buyer.
fn line_of(made: &PastReservation) -> String {
    let reservation = &made.reservation;
    let cause = match (&made.request, &made.payment) {
        (Some((key, body, jti)), _) => {
            Cause::Request(*jti, Cow::Borrowed(key), Cow::Borrowed(body))
        }
        (None, payment) => Cause::Payment(
            Cow::Borrowed(payment.as_deref().unwrap_or_default()),
            reservation.order.number,
        ),
    };
    let line = Line {
        buyer: reservation.buyer,
        amount: reservation.amount,
        cause,
    };
    format!(
        "\n{}{}|{}|{}|{line}",
        if made.is_released { '-' } else { '+' },
        reservation.number.0,
        reservation.sequence.0 - reservation.number.0,
        reservation.made_at.0,
    )
}

const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Open | Status::Rebuilding => "open",
        Status::Paused => "paused",
        Status::Closed => "closed",
    }
}
