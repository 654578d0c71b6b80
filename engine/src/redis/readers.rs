//! Who reads the stream beside this process. Each reader says every second that it is alive, whatever it is
//! doing; what one that is gone had in hand is taken over within seconds, and what one that hangs has in
//! hand after [`Options::claim_after`](super::Options::claim_after). Taking over too early does no harm:
//! both write the same, and the ledger has it once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lua_free_rules::units::PromoId;
use redis::{Cmd, FromRedisValue, Value, cmd};
use tokio::time::Instant;

use super::link::{Memory, Repeat};
use super::scripts::{self, Call};
use super::stream::{GROUP, LOOK_MAX, Reader};
use crate::{EngineError, Result};

/// How often a reader says that it is alive, and how long it counts as such: a few of them may fail.
const BEAT_EVERY: Duration = Duration::from_secs(1);
const ALIVE_FOR: Duration = Duration::from_secs(4);
/// How often it is looked for readers that are gone.
const LOOK_FOR_GONE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked for readers to forget, and for how long they must not have been heard of.
const FORGET_EVERY: Duration = Duration::from_secs(600);
const FORGET_AFTER: Duration = Duration::from_secs(3_600);

/// What others are looked at for.
#[derive(Clone, Copy)]
enum Look {
    Hanging,
    Gone,
    Forgotten,
}

/// Entries with their fields.
type Entries = Vec<(String, Value)>;

impl Reader {
    /// From now on says that it is alive, until it is dropped: also while nothing is read, since the ledger
    /// may be away for long.
    pub(super) fn keep_beating(self: &Arc<Self>) {
        if self.is_beating.swap(true, Ordering::SeqCst) {
            return;
        }
        let reader = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                let Some(reader) = reader.upgrade() else {
                    return;
                };
                if let Err(error) = reader.beat().await {
                    tracing::debug!(%error, "other readers may take this one for gone");
                }
                drop(reader);
                tokio::time::sleep(BEAT_EVERY).await;
            }
        });
    }

    async fn beat(&self) -> Result<()> {
        let mut set = cmd("SET");
        set.arg(self.life_of(&self.node)).arg(1);
        set.arg("PX").arg(ALIVE_FOR.as_millis() as u64);
        self.link.ask_on(&set, Repeat::Safe, Memory::Any).await
    }

    /// The key that is there while a reader is alive.
    fn life_of(&self, reader: &str) -> String {
        let [key, _] = self.link.keys.lease(&format!("reader:{reader}"));
        key
    }

    /// Takes over from readers that are gone or hang, and forgets those that have been gone for long.
    pub(super) async fn look_after_others(&self) -> Result<()> {
        if self.is_time(Look::Hanging, self.claim_after / 2) {
            self.claim(self.claim_after).await?;
        }
        if self.is_time(Look::Gone, LOOK_FOR_GONE_EVERY) {
            self.claim_from_gone().await?;
        }
        if self.is_time(Look::Forgotten, FORGET_EVERY) {
            self.forget_gone(FORGET_AFTER).await?;
        }
        Ok(())
    }

    fn is_time(&self, look: Look, every: Duration) -> bool {
        let last = &mut self.place().looked_for[look as usize];
        let is_time = last.is_none_or(|at| at.elapsed() >= every);
        if is_time {
            *last = Some(Instant::now());
        }
        is_time
    }

    /// Takes over what any other reader has kept for longer than `idle`.
    pub(super) async fn claim(&self, idle: Duration) -> Result<()> {
        for promo in self.link.promos_on(Memory::Any).await? {
            let mut from = "0".to_owned();
            loop {
                let mut claim = cmd("XAUTOCLAIM");
                claim.arg(self.link.keys.stream(promo));
                claim.arg(GROUP).arg(&self.node);
                claim.arg(idle.as_millis() as u64).arg(&from);
                claim.arg("COUNT").arg(LOOK_MAX);
                let claimed = self.of_group(&claim).await?;
                let Some((next, entries, _)): Option<(String, Entries, Vec<String>)> = claimed
                else {
                    break;
                };
                self.take(promo, entries);
                if next == "0-0" {
                    break;
                }
                from = next;
            }
        }
        Ok(())
    }

    /// Takes over what readers that are gone have left behind.
    async fn claim_from_gone(&self) -> Result<()> {
        let mut alive = HashMap::from([(self.node.clone(), true)]);
        for promo in self.link.promos_on(Memory::Any).await? {
            let mut pending = cmd("XPENDING");
            pending.arg(self.link.keys.stream(promo)).arg(GROUP);
            let summary = self.of_group(&pending).await?;
            let Some((_, _, _, Some(readers))): Option<Summary> = summary else {
                continue;
            };
            for (reader, _) in readers {
                if !self.is_alive(&reader, &mut alive).await? {
                    self.claim_from(promo, &reader).await?;
                }
            }
        }
        Ok(())
    }

    async fn is_alive(&self, reader: &str, known: &mut HashMap<String, bool>) -> Result<bool> {
        if let Some(is_alive) = known.get(reader) {
            return Ok(*is_alive);
        }
        let mut exists = cmd("EXISTS");
        exists.arg(self.life_of(reader));
        let is_alive: bool = self.link.ask_on(&exists, Repeat::Safe, Memory::Any).await?;
        known.insert(reader.to_owned(), is_alive);
        Ok(is_alive)
    }

    async fn claim_from(&self, promo: PromoId, reader: &str) -> Result<()> {
        // Of two who claim the same at once, the second finds it no longer idle.
        let idle = ALIVE_FOR.as_millis() as u64;
        loop {
            let mut pending = cmd("XPENDING");
            pending.arg(self.link.keys.stream(promo)).arg(GROUP);
            pending.arg("IDLE").arg(idle);
            pending.arg("-").arg("+").arg(LOOK_MAX).arg(reader);
            let left: Option<Vec<(String, String, u64, u64)>> = self.of_group(&pending).await?;
            let left = left.unwrap_or_default();
            if left.is_empty() {
                return Ok(());
            }
            let mut claim = cmd("XCLAIM");
            claim.arg(self.link.keys.stream(promo));
            claim.arg(GROUP).arg(&self.node).arg(idle);
            for (id, ..) in &left {
                claim.arg(id);
            }
            let entries: Option<Entries> = self.of_group(&claim).await?;
            let entries = entries.unwrap_or_default();
            if entries.is_empty() {
                return Ok(());
            }
            let count = entries.len();
            tracing::info!(%promo, reader, count, "a reader is gone: its entries are taken over");
            self.take(promo, entries);
        }
    }

    fn take(&self, promo: PromoId, entries: Entries) {
        let mut place = self.place();
        for (id, fields) in entries {
            place.take(promo, id, fields);
        }
    }

    /// Forgets readers that nobody has heard of for longer than `idle` and that have nothing in hand: each
    /// command that reads has a name of its own.
    pub(super) async fn forget_gone(&self, idle: Duration) -> Result<()> {
        let begun: BTreeSet<PromoId> = self.place().begun().collect();
        let mut alive = HashMap::from([(self.node.clone(), true)]);
        for promo in begun {
            let mut info = cmd("XINFO");
            info.arg("CONSUMERS");
            info.arg(self.link.keys.stream(promo)).arg(GROUP);
            let readers: Option<Vec<HashMap<String, Value>>> = self.of_group(&info).await?;
            for mut reader in readers.unwrap_or_default() {
                let mut field = |name: &str| reader.remove(name);
                let name: String = self.link.read(field("name"))?;
                let idle_ms: u64 = self.link.read(field("idle"))?;
                let is_long_gone = Duration::from_millis(idle_ms) >= idle
                    && !self.is_alive(&name, &mut alive).await?;
                if is_long_gone {
                    let stream = self.link.keys.stream(promo);
                    let call = Call::new(&scripts::FORGET_READER, stream, [GROUP, &name]);
                    let _: i64 = self.link.call_on(&call, Repeat::Safe, Memory::Any).await?;
                }
            }
        }
        Ok(())
    }

    /// Asks about the group; none where nobody has read the stream yet.
    async fn of_group<T: FromRedisValue>(&self, command: &Cmd) -> Result<Option<T>> {
        match self.link.ask_on(command, Repeat::Safe, Memory::Any).await {
            Ok(answer) => Ok(Some(answer)),
            Err(EngineError::Unavailable(detail)) if detail.contains("NOGROUP") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What is said of a group's pending entries: how many, the first, the last, and how many each reader has.
type Summary = (
    u64,
    Option<String>,
    Option<String>,
    Option<Vec<(String, String)>>,
);
