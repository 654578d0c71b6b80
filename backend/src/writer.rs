//! The order writer: reads the stream in batches, writes each batch to the ledger in one
//! transaction, and acknowledges after the commit. The next batch is read meanwhile. What cannot be
//! written is set aside with its reason, and the rest goes on; a database that is away is waited for.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Clock, EntryId, Event, OrderStream, StreamEntry, SystemClock};
use tokio::sync::watch;

use crate::error::Result;
use crate::ledger::Ledger;
use crate::metrics::Metrics;

/// How long one read of an empty stream waits.
const READ_WAIT: Duration = Duration::from_millis(500);
/// Waiting for a database or an engine that is away: the first time, and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The order writer of a process.
#[derive(Clone)]
pub struct OrderWriter {
    stream: Arc<dyn OrderStream>,
    ledger: Ledger,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    batch_max: usize,
}

/// An entry whose event could be read.
type Readable = (EntryId, Event);

/// A read under way.
type Reading<'w> = Pin<Box<dyn Future<Output = engine::Result<Vec<StreamEntry>>> + Send + 'w>>;

/// What is read while a batch is written: at most one batch, in the order of the stream.
struct Ahead<'w> {
    entries: Vec<StreamEntry>,
    reading: Option<Reading<'w>>,
    has_begun: bool,
    backoff: Duration,
}

impl Default for Ahead<'_> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            reading: None,
            has_begun: false,
            backoff: BACKOFF_MIN,
        }
    }
}

impl OrderWriter {
    /// A writer of batches of at most `batch_max` events.
    pub fn new(
        stream: Arc<dyn OrderStream>,
        ledger: Ledger,
        metrics: Metrics,
        batch_max: usize,
    ) -> Self {
        Self {
            stream,
            ledger,
            metrics,
            clock: Arc::new(SystemClock),
            batch_max: batch_max.max(1),
        }
    }

    /// The same, under another clock.
    #[must_use]
    pub fn under(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Writes until `stop` says true, then what is still in the stream. Drop the future to give up
    /// on what is left: it stays in the stream.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut ahead = Ahead::default();
        while !*stop.borrow() {
            if ahead.entries.is_empty() {
                tokio::select! {
                    // Reading is given up at the signal, writing is not.
                    () = self.read_ahead(&mut ahead) => continue,
                    _ = stop.wait_for(|stop| *stop) => break,
                }
            }
            let batch = std::mem::take(&mut ahead.entries);
            let mut writing = pin!(self.write_entries(batch));
            loop {
                let has_room = ahead.entries.len() < self.batch_max;
                tokio::select! {
                    () = &mut writing => break,
                    () = self.read_ahead(&mut ahead), if has_room => {}
                }
            }
        }
        drop(ahead);
        // What was read and not written is still in the stream.
        if let Err(error) = self.drain().await {
            tracing::warn!(%error, "events stay in the stream for the next start");
        }
    }

    /// Reads on, as far as there is room in one batch. May be given up and called again: a read that is
    /// under way stays so.
    async fn read_ahead<'w>(&'w self, ahead: &mut Ahead<'w>) {
        let room = self.batch_max - ahead.entries.len();
        let has_begun = ahead.has_begun;
        let reading = ahead
            .reading
            .get_or_insert_with(|| Box::pin(self.next(has_begun, room)));
        let read = reading.await;
        ahead.reading = None;
        match read {
            Ok(entries) => {
                (ahead.has_begun, ahead.backoff) = (true, BACKOFF_MIN);
                ahead.entries.extend(entries);
            }
            Err(error) => {
                tracing::warn!(%error, "the stream cannot be read; trying again");
                self.metrics.writer_retry("engine");
                pause(&mut ahead.backoff).await;
            }
        }
    }

    /// The next entries; the first time, those that another run of this writer left behind.
    async fn next(&self, has_begun: bool, max: usize) -> engine::Result<Vec<StreamEntry>> {
        if !has_begun {
            self.stream.rewind().await?;
        }
        self.stream.read(max, READ_WAIT).await
    }

    /// Writes everything that is in the stream now, from the oldest entry that was not acknowledged.
    ///
    /// # Errors
    /// If the stream cannot be read.
    pub async fn drain(&self) -> Result<()> {
        self.stream.rewind().await?;
        loop {
            let entries = self.stream.read(self.batch_max, Duration::ZERO).await?;
            if entries.is_empty() {
                return Ok(());
            }
            self.write_entries(entries).await;
        }
    }

    pub(crate) async fn write_entries(&self, entries: Vec<StreamEntry>) {
        let mut readable = Vec::with_capacity(entries.len());
        for entry in entries {
            match serde_json::from_str::<Event>(&entry.payload) {
                Ok(event) => readable.push((entry.id, event)),
                Err(error) => {
                    self.set_aside(entry.id, &format!("not an event: {error}"))
                        .await
                }
            }
        }
        self.write_or_split(readable).await;
    }

    /// Writes a batch; one that fails is halved until the entry that spoils it is found. The order
    /// of the entries is kept.
    async fn write_or_split(&self, batch: Vec<Readable>) {
        let mut backoff = BACKOFF_MIN;
        let mut pending = vec![batch];
        while let Some(mut part) = pending.pop() {
            if part.is_empty() {
                continue;
            }
            match self.write(&part).await {
                Ok(()) => backoff = BACKOFF_MIN,
                Err(error) if !error.is_poison() => {
                    tracing::warn!(%error, "orders cannot be written now; trying again");
                    self.metrics.writer_retry("database");
                    pause(&mut backoff).await;
                    pending.push(part);
                }
                Err(error) if part.len() == 1 => {
                    self.set_aside(part[0].0, &error.to_string()).await
                }
                Err(_) => {
                    let second = part.split_off(part.len() / 2);
                    pending.push(second);
                    pending.push(part);
                }
            }
        }
    }

    async fn write(&self, batch: &[Readable]) -> Result<()> {
        let began = Instant::now();
        let events: Vec<Event> = batch.iter().map(|(_, event)| event.clone()).collect();
        let written = self.ledger.write_events(&events, self.clock.now()).await?;
        self.metrics.batch(began.elapsed());
        self.metrics.events("written", written.new);
        self.metrics.events("repeated", written.repeated);
        let ids: Vec<EntryId> = batch.iter().map(|(id, _)| *id).collect();
        let mut backoff = BACKOFF_MIN;
        while let Err(error) = self.stream.acknowledge(&ids).await {
            tracing::warn!(%error, "written orders cannot be acknowledged; trying again");
            self.metrics.writer_retry("engine");
            pause(&mut backoff).await;
        }
        Ok(())
    }

    async fn set_aside(&self, id: EntryId, reason: &str) {
        tracing::error!(entry = %id, reason, "a stream entry was set aside");
        self.metrics.events("set_aside", 1);
        let mut backoff = BACKOFF_MIN;
        while let Err(error) = self.stream.set_aside(id, reason).await {
            // Also where the engine's memory is full: nothing but this remembers it any more.
            tracing::warn!(entry = %id, %error, "it cannot be set aside yet; trying again");
            self.metrics.writer_retry("engine");
            pause(&mut backoff).await;
        }
    }
}

async fn pause(backoff: &mut Duration) {
    tokio::time::sleep(*backoff).await;
    *backoff = (*backoff * 2).min(BACKOFF_MAX);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use engine::{Backlog, DeadLetter, EngineError};

    use super::*;
    use crate::ledger::tests::{hold, open, published, reserved};

    /// A stream in memory that counts how often it could not be reached.
    #[derive(Default)]
    struct Stream(Mutex<Kept>);

    #[derive(Default)]
    struct Kept {
        entries: Vec<StreamEntry>,
        read: usize,
        dead: Vec<DeadLetter>,
        away: usize,
        acknowledged: Vec<EntryId>,
    }

    impl Stream {
        fn of(payloads: impl IntoIterator<Item = String>) -> Arc<Self> {
            let entries = payloads.into_iter().zip(1..);
            let entries = entries
                .map(|(payload, number)| StreamEntry {
                    id: EntryId { stream: 0, number },
                    payload,
                })
                .collect();
            Arc::new(Self(Mutex::new(Kept {
                entries,
                ..Kept::default()
            })))
        }

        fn next(&self, max: usize) -> Vec<StreamEntry> {
            let mut kept = self.0.lock().unwrap();
            let unread = kept.entries.iter().skip(kept.read);
            let batch: Vec<_> = unread.take(max).cloned().collect();
            kept.read += batch.len();
            batch
        }

        fn left(&self) -> usize {
            self.0.lock().unwrap().entries.len()
        }

        fn dead(&self) -> Vec<DeadLetter> {
            self.0.lock().unwrap().dead.clone()
        }
    }

    #[async_trait]
    impl OrderStream for Stream {
        async fn read(&self, max: usize, wait: Duration) -> engine::Result<Vec<StreamEntry>> {
            let batch = self.next(max);
            if batch.is_empty() && !wait.is_zero() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(batch)
        }

        async fn rewind(&self) -> engine::Result<()> {
            self.0.lock().unwrap().read = 0;
            Ok(())
        }

        async fn acknowledge(&self, ids: &[EntryId]) -> engine::Result<()> {
            let mut kept = self.0.lock().unwrap();
            if kept.away > 0 {
                kept.away -= 1;
                return Err(EngineError::Unavailable("away".to_owned()));
            }
            let before = kept.entries.len();
            kept.entries.retain(|entry| !ids.contains(&entry.id));
            kept.read = kept.read.saturating_sub(before - kept.entries.len());
            kept.acknowledged.extend(ids);
            Ok(())
        }

        async fn set_aside(&self, id: EntryId, reason: &str) -> engine::Result<()> {
            let entry = {
                let kept = self.0.lock().unwrap();
                kept.entries
                    .iter()
                    .find(|entry| entry.id == id)
                    .cloned()
                    .unwrap()
            };
            self.acknowledge(&[id]).await?;
            self.0.lock().unwrap().dead.push(DeadLetter {
                id,
                payload: entry.payload,
                reason: reason.to_owned(),
            });
            Ok(())
        }

        async fn backlog(&self) -> engine::Result<Backlog> {
            Ok(Backlog::default())
        }

        async fn dead_letters(&self, _: usize) -> engine::Result<Vec<DeadLetter>> {
            Ok(self.dead())
        }

        async fn replay(&self, _: EntryId) -> engine::Result<bool> {
            Ok(false)
        }
    }

    fn json(event: &Event) -> String {
        serde_json::to_string(event).unwrap()
    }

    fn writer(stream: &Arc<Stream>, ledger: &Ledger) -> OrderWriter {
        OrderWriter::new(stream.clone(), ledger.clone(), Metrics::new().unwrap(), 100)
    }

    #[tokio::test]
    async fn poison_is_set_aside_and_the_rest_goes_on() {
        let (_dir, ledger) = open().await;
        let mut wrong = reserved(3, 5, 1);
        wrong.sequence.0 = 2; // meets another event's key with other content
        let stream = Stream::of([
            json(&published(50)),
            json(&reserved(2, 5, 1)),
            "{\"promo\":".to_owned(),
            json(&wrong),
            json(&reserved(3, 6, 2)),
            json(&reserved(4, 7, 1)),
        ]);
        writer(&stream, &ledger).drain().await.unwrap();
        assert_eq!(stream.left(), 0);
        let dead = stream.dead();
        assert_eq!(
            dead.iter().map(|each| each.id.number).collect::<Vec<_>>(),
            [3, 4]
        );
        assert!(
            dead[0].reason.contains("not an event"),
            "{}",
            dead[0].reason
        );
        assert!(
            dead[1].reason.contains("other content"),
            "{}",
            dead[1].reason
        );
        for sequence in [2, 3, 4] {
            let id = format!("7-1-{sequence}").parse().unwrap();
            assert!(ledger.order(id).await.unwrap().is_some(), "{id}");
        }
    }

    #[tokio::test]
    async fn what_was_written_but_not_acknowledged_is_written_once() {
        let (_dir, ledger) = open().await;
        let events = [published(50), reserved(2, 5, 1)];
        ledger
            .write_events(&events, SystemClock.now())
            .await
            .unwrap();
        let stream = Stream::of(events.iter().map(json));
        stream.0.lock().unwrap().away = 2;
        writer(&stream, &ledger).drain().await.unwrap();
        assert_eq!((stream.left(), stream.dead().len()), (0, 0));
        assert_eq!(ledger.items().await.unwrap()[0].sales, 1);
    }

    #[tokio::test]
    async fn a_database_that_is_away_is_no_poison() {
        let (_dir, ledger) = open().await;
        let stream = Stream::of([json(&published(50))]);
        let writer = writer(&stream, &ledger);
        ledger.close().await;
        let writing = tokio::spawn({
            let writer = writer.clone();
            async move { writer.drain().await }
        });
        while writer.metrics.retries("database") < 2 {
            tokio::task::yield_now().await;
        }
        writing.abort();
        assert_eq!((stream.left(), stream.dead().len()), (1, 0));
    }

    const BATCH: usize = 4;

    async fn until(what: impl Fn() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        waited.await.unwrap();
    }

    #[tokio::test]
    async fn one_batch_is_read_ahead_and_no_more() {
        let (_dir, ledger) = open().await;
        let events = (2..42).map(|sequence| reserved(sequence, sequence, 1));
        let events = std::iter::once(published(50)).chain(events);
        let stream = Stream::of(events.map(|event| json(&event)));
        let other = hold(&ledger).await;
        let writer = OrderWriter {
            batch_max: BATCH,
            ..writer(&stream, &ledger)
        };
        let (stop, stopped) = watch::channel(false);
        let working = tokio::spawn(async move { writer.run(stopped).await });
        let read = || stream.0.lock().unwrap().read;
        until(|| read() == 2 * BATCH).await;
        for _ in 0..50 {
            tokio::task::yield_now().await;
            assert_eq!(read(), 2 * BATCH);
        }
        drop(other);
        until(|| stream.left() == 0).await;
        let acknowledged = stream.0.lock().unwrap().acknowledged.clone();
        assert_eq!(acknowledged.len(), 41);
        assert!(acknowledged.is_sorted(), "{acknowledged:?}");
        assert_eq!(ledger.items().await.unwrap()[0].sales, 40);
        stop.send_replace(true);
        working.await.unwrap();
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_written_when_it_is_stopped() {
        let (_dir, ledger) = open().await;
        let events = (2..12).map(|sequence| reserved(sequence, sequence, 1));
        let events = std::iter::once(published(50)).chain(events);
        let stream = Stream::of(events.map(|event| json(&event)));
        let other = hold(&ledger).await;
        let writer = OrderWriter {
            batch_max: BATCH,
            ..writer(&stream, &ledger)
        };
        let (stop, stopped) = watch::channel(false);
        let working = tokio::spawn(async move { writer.run(stopped).await });
        until(|| stream.0.lock().unwrap().read == 2 * BATCH).await;
        stop.send_replace(true);
        drop(other);
        working.await.unwrap();
        assert_eq!((stream.left(), stream.dead().len()), (0, 0));
        assert_eq!(ledger.items().await.unwrap()[0].sales, 10);
    }
}
