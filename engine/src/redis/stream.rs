//! The order stream: one Redis stream for each promo, read by all order writers as one consumer group.
//! An entry holds the events of one step, so many reservations at once; here they are handed out and
//! acknowledged one by one, and an entry is taken off once all of its events are.
//!
//! What was read stays here as it was read until it is acknowledged: a Redis that lost it meanwhile does not
//! make it lost. Who else reads, and whose entries are taken over, is in `readers`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lua_free_rules::units::{PromoId, Timestamp};
use redis::{Value, cmd, pipe};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::link::{Link, Memory, Repeat};
use super::packed::Packed;
use super::scripts::{self, Call};
use super::{Options, Redis};
use crate::{Backlog, DeadLetter, EngineError, EntryId, OrderStream, Result, StreamEntry};

/// The group of all order writers.
pub(super) const GROUP: &str = "writers";
/// How often a stream is looked at when nobody tells that it has grown.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Most entries of a promo that one look takes: each may hold a whole batch of events.
pub(super) const LOOK_MAX: usize = 64;
/// Most events one read returns.
const READ_MAX: usize = 10_000;
/// Longest reason kept with an entry that was set aside, in characters.
const REASON_CHARS_MAX: usize = 1_000;

/// Where this process is in the streams.
pub(super) struct Reader {
    pub(super) link: Arc<Link>,
    pub(super) node: String,
    pub(super) claim_after: Duration,
    place: Mutex<Place>,
    /// Held by the look that is under way.
    looking: tokio::sync::Mutex<()>,
    /// Whether it says by itself that it is alive.
    pub(super) is_beating: AtomicBool,
    /// Woken when a stream has grown, or was set back.
    pub(super) added: Notify,
}

/// What was read and not acknowledged.
#[derive(Default)]
pub(super) struct Place {
    ready: VecDeque<StreamEntry>,
    /// Entries by stream and number of their last event.
    held: BTreeMap<(i64, i64), Held>,
    /// Where a stream's own pending entries are read from; none: only new ones.
    pending: HashMap<i64, String>,
    /// Streams that were looked at since the last rewind.
    begun: BTreeSet<i64>,
    /// How often it was set back: a look that began before does not count.
    rewinds: u64,
    /// When it was last looked for readers that hang, that are gone, and that can be forgotten.
    pub(super) looked_for: [Option<Instant>; 3],
}

/// An entry that is not taken off yet.
struct Held {
    id: String,
    first: i64,
    /// The events that are not acknowledged.
    left: BTreeSet<i64>,
    /// All of its events, as packed as they came.
    fields: Value,
}

/// What a read of a group returns: streams, entries, fields.
type Found = Option<Vec<(String, Vec<(String, Value)>)>>;

impl Reader {
    pub(super) fn new(link: Arc<Link>, options: &Options) -> Self {
        Self {
            link,
            node: options.node.clone(),
            claim_after: options.claim_after,
            place: Mutex::default(),
            looking: tokio::sync::Mutex::new(()),
            is_beating: AtomicBool::new(false),
            added: Notify::new(),
        }
    }

    pub(super) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at every stream once. Runs to its end even if nobody waits for it any more: what Redis
    /// handed out is not lost on the way.
    async fn look(self: &Arc<Self>) -> Result<()> {
        let reader = Arc::clone(self);
        let looked = tokio::spawn(async move {
            let _alone = reader.looking.lock().await;
            if !reader.place().ready.is_empty() {
                return Ok(());
            }
            reader.keep_beating();
            reader.look_after_others().await?;
            let mut outcome = Ok(());
            for promo in reader.link.promos_on(Memory::Any).await? {
                // One promo's trouble does not keep the others from being read.
                outcome = outcome.and(reader.look_at(promo).await);
            }
            if reader.place().ready.is_empty() {
                return outcome;
            }
            Ok(())
        });
        looked
            .await
            .unwrap_or_else(|error| Err(EngineError::Unavailable(error.to_string())))
    }

    /// This process' own pending entries first, then new ones.
    async fn look_at(&self, promo: PromoId) -> Result<()> {
        loop {
            let (rewinds, from) = {
                let mut place = self.place();
                if place.begun.insert(promo.0) {
                    place.pending.insert(promo.0, "0".to_owned());
                }
                (place.rewinds, place.pending.get(&promo.0).cloned())
            };
            let mut read = cmd("XREADGROUP");
            read.arg("GROUP").arg(GROUP).arg(&self.node);
            read.arg("COUNT").arg(LOOK_MAX).arg("STREAMS");
            read.arg(self.link.keys.stream(promo));
            read.arg(from.as_deref().unwrap_or(">"));
            let found: Found = match self.link.ask_on(&read, Repeat::Safe, Memory::Any).await {
                Ok(found) => found,
                Err(EngineError::Unavailable(detail)) if detail.contains("NOGROUP") => {
                    self.make_group(promo).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let entries = found
                .unwrap_or_default()
                .into_iter()
                .flat_map(|(_, all)| all);
            let entries: Vec<(String, Value)> = entries.collect();
            let mut place = self.place();
            if place.rewinds != rewinds {
                // They are among the pending ones, which are read again from the beginning.
                continue;
            }
            let last = entries.last().map(|(id, _)| id.clone());
            for (id, fields) in entries {
                place.take(promo, id, fields);
            }
            match (from, last) {
                // The pending ones have all been seen.
                (Some(_), None) => {
                    place.pending.remove(&promo.0);
                }
                (Some(_), Some(last)) => {
                    place.pending.insert(promo.0, last);
                    // A page of what is held already says nothing of what comes after it.
                    if !place.ready.is_empty() {
                        return Ok(());
                    }
                }
                (None, _) => return Ok(()),
            }
        }
    }

    async fn make_group(&self, promo: PromoId) -> Result<()> {
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(self.link.keys.stream(promo));
        create.arg(GROUP).arg("0").arg("MKSTREAM");
        match self
            .link
            .ask_on::<Value>(&create, Repeat::Safe, Memory::Any)
            .await
        {
            Err(EngineError::Unavailable(detail)) if detail.contains("BUSYGROUP") => Ok(()),
            created => created.map(drop),
        }
    }

    /// Takes entries off whose events are all acknowledged.
    async fn take_off(&self) -> Result<()> {
        let done: Vec<((i64, i64), String)> = self
            .place()
            .held
            .iter()
            .filter(|(_, held)| held.left.is_empty())
            .map(|(key, held)| (*key, held.id.clone()))
            .collect();
        for of_stream in done.chunk_by(|((left, _), _), ((right, _), _)| left == right) {
            let Some(((stream, _), _)) = of_stream.first() else {
                continue;
            };
            let key = self.link.keys.meta(PromoId(*stream));
            let ids = of_stream.iter().map(|(_, id)| id.clone());
            let call = Call::new(&scripts::ACKNOWLEDGE, key, ids);
            let _: i64 = self.link.call_on(&call, Repeat::Safe, Memory::Any).await?;
            let mut place = self.place();
            for (key, _) in of_stream {
                place.held.remove(key);
            }
        }
        Ok(())
    }
}

impl Place {
    /// Makes an entry's events ready. Of one that is held they are ready, or on their way, already.
    pub(super) fn take(&mut self, promo: PromoId, id: String, fields: Value) {
        let entry = Packed::read(&id, &fields);
        let numbers = entry.numbers();
        let Some((&first, &last)) = numbers.first().zip(numbers.last()) else {
            return;
        };
        if self.held.contains_key(&(promo.0, last)) {
            return;
        }
        let held = Held {
            id,
            first,
            left: numbers.into_iter().collect(),
            fields,
        };
        self.ready.extend(held.left(promo.0));
        self.held.insert((promo.0, last), held);
    }

    /// Makes everything ready again that is not acknowledged.
    fn rewind(&mut self) {
        let held = self.held.iter();
        self.ready = held
            .flat_map(|((stream, _), held)| held.left(*stream))
            .collect();
        self.begun.clear();
        self.rewinds += 1;
    }

    /// The streams that were looked at.
    pub(super) fn begun(&self) -> impl Iterator<Item = PromoId> {
        self.begun.iter().copied().map(PromoId)
    }

    /// The entry that an event lies in.
    fn entry_of(&mut self, id: EntryId) -> Option<&mut Held> {
        let from = (id.stream, id.number);
        let (key, held) = self.held.range_mut(from..).next()?;
        (key.0 == id.stream && held.first <= id.number).then_some(held)
    }
}

impl Held {
    /// The events that are not acknowledged.
    fn left(&self, stream: i64) -> impl Iterator<Item = StreamEntry> {
        let entry = Packed::read(&self.id, &self.fields);
        let events = entry.numbers().into_iter().zip(entry.events);
        let left = events.filter(|(number, _)| self.left.contains(number));
        left.map(move |(number, payload)| StreamEntry {
            id: EntryId { stream, number },
            payload,
        })
    }
}

#[async_trait]
impl OrderStream for Redis {
    async fn read(&self, max: usize, wait: Duration) -> Result<Vec<StreamEntry>> {
        // None: so long that nobody will see its end.
        let until = Instant::now().checked_add(wait);
        let max = max.min(READ_MAX);
        loop {
            // Listens before it looks, so that no entry falls between.
            let added = self.reader.added.notified();
            tokio::pin!(added);
            added.as_mut().enable();
            let taken = self.reader.take_ready(max);
            if max == 0 || !taken.is_empty() {
                return Ok(taken);
            }
            self.reader.look().await?;
            let taken = self.reader.take_ready(max);
            if !taken.is_empty() {
                return Ok(taken);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(taken);
            }
            let pause = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
            // Elapsed or told: either way it is looked again.
            let _ = tokio::time::timeout(pause, added).await;
        }
    }

    async fn rewind(&self) -> Result<()> {
        self.reader.place().rewind();
        self.reader.added.notify_waiters();
        Ok(())
    }

    async fn acknowledge(&self, ids: &[EntryId]) -> Result<()> {
        {
            let mut place = self.reader.place();
            for id in ids {
                if let Some(held) = place.entry_of(*id) {
                    held.left.remove(&id.number);
                }
            }
        }
        self.reader.take_off().await
    }

    async fn set_aside(&self, id: EntryId, reason: &str) -> Result<()> {
        let entry = {
            let mut place = self.reader.place();
            let held = place.entry_of(id);
            held.and_then(|held| held.left(id.stream).find(|entry| entry.id == id))
        };
        // One that is not held was moved or taken before.
        let Some(entry) = entry else { return Ok(()) };
        // Whether Redis still has the entry does not matter: what it lost is kept all the more.
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        let letter = serde_json::json!({ "payload": entry.payload, "reason": reason });
        let key = self.link.keys.meta(PromoId(id.stream));
        let words = [id.number.to_string(), letter.to_string()];
        let call = Call::new(&scripts::SET_ASIDE, key, words);
        let _: i64 = self.link.call_on(&call, Repeat::Safe, Memory::Any).await?;
        self.acknowledge(&[id]).await
    }

    async fn backlog(&self) -> Result<Backlog> {
        let mut backlog = Backlog::default();
        for promo in self.link.promos_on(Memory::Any).await? {
            let mut all = pipe();
            all.cmd("HGET").arg(self.link.keys.meta(promo)).arg("w");
            all.cmd("HLEN").arg(self.link.keys.dead_letters(promo));
            let stream = self.link.keys.stream(promo);
            all.cmd("XRANGE")
                .arg(stream)
                .arg("-")
                .arg("+")
                .arg("COUNT")
                .arg(1);
            let answers = self
                .link
                .ask_all_on(&all, Repeat::Safe, Memory::Any)
                .await?;
            let mut answers = answers.into_iter();
            let waiting: Option<i64> = self.link.read(answers.next())?;
            let dead: u64 = self.link.read(answers.next())?;
            let first: Vec<(String, Value)> = self.link.read(answers.next())?;
            backlog.entries += waiting.unwrap_or_default().unsigned_abs();
            backlog.dead_letters += dead;
            let oldest = first
                .first()
                .and_then(|(id, fields)| Packed::read(id, fields).made_at());
            backlog.oldest = match (backlog.oldest, oldest) {
                (Some(one), Some(other)) => Some(Timestamp(one.0.min(other.0))),
                (one, other) => one.or(other),
            };
        }
        Ok(backlog)
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        for promo in self.link.promos_on(Memory::Any).await? {
            let mut all = cmd("HGETALL");
            all.arg(self.link.keys.dead_letters(promo));
            let kept: HashMap<i64, String> =
                self.link.ask_on(&all, Repeat::Safe, Memory::Any).await?;
            letters.extend(kept.into_iter().map(|(number, letter)| {
                let stream = promo.0;
                letter_of(EntryId { stream, number }, &letter)
            }));
        }
        letters.sort_unstable_by_key(|letter| (letter.id.number, letter.id.stream));
        letters.truncate(max);
        Ok(letters)
    }

    async fn replay(&self, id: EntryId) -> Result<bool> {
        let key = self.link.keys.meta(PromoId(id.stream));
        let call = Call::new(&scripts::REPLAY, key, [id.number.to_string()]);
        // Also where a rebuild waits for it.
        let replayed: i64 = self.link.call_on(&call, Repeat::Once, Memory::Any).await?;
        Ok(replayed == 1)
    }
}

impl Reader {
    fn take_ready(&self, max: usize) -> Vec<StreamEntry> {
        let mut place = self.place();
        let count = place.ready.len().min(max);
        place.ready.drain(..count).collect()
    }
}

fn letter_of(id: EntryId, letter: &str) -> DeadLetter {
    let read: serde_json::Value = serde_json::from_str(letter).unwrap_or_default();
    let text = |name: &str| read[name].as_str().unwrap_or_default().to_owned();
    DeadLetter {
        id,
        payload: text("payload"),
        reason: text("reason"),
    }
}
