//! The traits of the embedded home: each method is a step on the writer or a read on the reader.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lua_free_rules::challenge::Attempt;
use lua_free_rules::promo::Snapshot;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::{Access, Session};
use lua_free_rules::units::{Generation, OrderId, PromoId, Timestamp};
use rusqlite::Connection;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::commit;
use super::copies::Copies;
use super::leases::{self, Lease};
use super::queue::Missed;
use super::step::{Step, StepResult};
use super::{Cursor, Embedded, door, promos, sessions, stock, stream, tend};
use crate::{
    Backlog, Cache, Control, DeadLetter, Door, EngineError, Entry, EntryId, Fence, Leases,
    OrderStream, Past, Promos, Publish, Published, Recovery, Release, Reservation, Reserve,
    Reserved, Result, Sessions, Signal, Signals, Stock, StreamEntry,
};

/// Most passes one call of the upkeep makes; the next call goes on.
const TEND_PASSES_MAX: usize = 64;

impl Embedded {
    /// Takes a step. It is answered after it was committed.
    async fn step<T: Send + 'static>(
        &self,
        step: impl FnMut(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    ) -> std::result::Result<Result<T>, Missed> {
        self.writes.ask(|reply| commit::work(step, reply)).await
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        step: impl FnMut(&mut Step<'_>) -> StepResult<T> + Send + 'static,
    ) -> Result<T> {
        self.step(step).await.map_err(unavailable)?
    }

    /// Reads what was committed.
    async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> StepResult<T> + Send + 'static,
    ) -> Result<T> {
        let answer = self.reads.ask(|reply| {
            Box::new(move |db: &Connection| {
                // The caller may have gone away.
                let _ = reply.send(read(db));
            })
        });
        Ok(answer.await.map_err(unavailable)??)
    }

    fn cursor(&self) -> MutexGuard<'_, Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(missed: Missed) -> EngineError {
    EngineError::Unavailable(missed.to_string())
}

#[async_trait]
impl Promos for Embedded {
    async fn publish(&self, request: Publish) -> Result<(Published, Snapshot)> {
        self.write(move |step| promos::publish(step, &request))
            .await
    }

    async fn control(&self, promo: PromoId, control: Control) -> Result<Snapshot> {
        self.write(move |step| promos::control(step, promo, control))
            .await
    }

    async fn promos(&self) -> Result<(Timestamp, Vec<Snapshot>)> {
        let rows = self.query(promos::all).await?;
        let snapshots = rows.into_iter().map(|row| row.snapshot).collect();
        Ok((self.clock.now(), snapshots))
    }

    async fn snapshot(&self, promo: PromoId, generation: Generation) -> Result<Snapshot> {
        let row = self
            .query(move |db| promos::generation(db, promo, generation))
            .await?;
        Ok(row.ok_or(Refusal::NotFound)?.snapshot)
    }

    async fn tend(&self) -> Result<()> {
        for _ in 0..TEND_PASSES_MAX {
            if !self.write(tend::pass).await? {
                break;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Door for Embedded {
    async fn enter(&self, entry: Entry) -> Result<Access> {
        self.write(move |step| door::enter(step, &entry)).await
    }

    async fn spend(&self, _: PromoId, attempt: Attempt) -> Result<bool> {
        self.write(move |step| door::spend(step, attempt)).await
    }
}

#[async_trait]
impl Stock for Embedded {
    async fn reserve(&self, request: Reserve) -> Result<Reserved> {
        match self.step(move |step| stock::reserve(step, &request)).await {
            Ok(answer) => answer,
            Err(Missed::Full) => Err(Refusal::Overloaded.into()),
            Err(missed) => Err(unavailable(missed)),
        }
    }

    async fn reserve_again(&self, order: OrderId, payment: &str) -> Result<Reservation> {
        let payment = payment.to_owned();
        self.write(move |step| stock::reserve_again(step, order, &payment))
            .await
    }

    async fn release(&self, release: Release) -> Result<bool> {
        self.write(move |step| stock::release(step, release)).await
    }

    async fn reservation(&self, order: OrderId) -> Result<Option<Reservation>> {
        self.query(move |db| stock::reservation(db, order)).await
    }
}

#[async_trait]
impl OrderStream for Embedded {
    async fn read(&self, max: usize, wait: Duration) -> Result<Vec<StreamEntry>> {
        // None: so long that nobody will see its end.
        let until = Instant::now().checked_add(wait);
        loop {
            // Listens before it looks, so that no entry falls between.
            let added = self.committed.added.notified();
            tokio::pin!(added);
            added.as_mut().enable();
            let from = *self.cursor();
            let entries = self
                .query(move |db| stream::read(db, from.after, max))
                .await?;
            if max == 0 {
                return Ok(entries);
            }
            if let Some(last) = entries.last() {
                let mut cursor = self.cursor();
                if *cursor == from {
                    cursor.after = last.id.number;
                    return Ok(entries);
                }
                // Another read was faster, or the cursor was set back: look again.
                continue;
            }
            match until {
                Some(until) => {
                    if tokio::time::timeout_at(until, added).await.is_err() {
                        return Ok(Vec::new());
                    }
                }
                None => added.await,
            }
        }
    }

    async fn rewind(&self) -> Result<()> {
        let mut cursor = self.cursor();
        cursor.after = 0;
        cursor.rewinds += 1;
        drop(cursor);
        // A read that waits at the end has something to read now.
        self.committed.added.notify_waiters();
        Ok(())
    }

    async fn acknowledge(&self, ids: &[EntryId]) -> Result<()> {
        let ids = ids.to_vec();
        self.write(move |step| stream::acknowledge(step, &ids))
            .await
    }

    async fn set_aside(&self, id: EntryId, reason: &str) -> Result<()> {
        let reason = reason.to_owned();
        self.write(move |step| stream::set_aside(step, id, &reason))
            .await
    }

    async fn backlog(&self) -> Result<Backlog> {
        let entries = self.committed.entries.load(Ordering::Acquire);
        self.query(move |db| stream::backlog(db, entries)).await
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>> {
        self.query(move |db| stream::dead_letters(db, max)).await
    }

    async fn replay(&self, id: EntryId) -> Result<bool> {
        self.write(move |step| stream::replay(step, id)).await
    }
}

#[async_trait]
impl Sessions for Embedded {
    async fn sign_in(&self, session: Session) -> Result<()> {
        self.write(move |step| sessions::sign_in(step, session))
            .await
    }

    async fn is_signed_in(&self, session: Session) -> Result<bool> {
        let now = self.clock.now();
        self.query(move |db| sessions::is_alive(db, now, session))
            .await
    }

    async fn sign_out(&self, session: Session) -> Result<()> {
        self.write(move |step| sessions::sign_out(step, session))
            .await
    }
}

#[async_trait]
impl Signals for Embedded {
    fn listen(&self) -> broadcast::Receiver<Signal> {
        self.committed.signals.subscribe()
    }

    async fn tell(&self, signal: Signal) -> Result<()> {
        self.committed.tell(signal);
        Ok(())
    }
}

#[async_trait]
impl Leases for Embedded {
    async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Fence>> {
        // Held while the fence is written: of two who ask at once, one waits.
        let mut leases = self.leases.lock().await;
        let now = self.clock.now();
        let fence = match leases.get(name) {
            Some(lease) if lease.holder == holder => lease.fence,
            Some(lease) if lease.is_live(now) => return Ok(None),
            _ => {
                let name = name.to_owned();
                self.write(move |step| leases::next_fence(step, &name))
                    .await?
            }
        };
        leases.insert(name.to_owned(), Lease::new(holder, fence, now, ttl));
        Ok(Some(fence))
    }

    async fn give_back(&self, name: &str, holder: &str) -> Result<()> {
        let mut leases = self.leases.lock().await;
        if leases.get(name).is_some_and(|lease| lease.holder == holder) {
            leases.remove(name);
        }
        Ok(())
    }
}

#[async_trait]
impl Cache for Embedded {
    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.copies().recall(key, self.clock.now()))
    }

    async fn remember(&self, key: &str, value: &[u8], ttl: Duration) -> Result<()> {
        self.copies().remember(key, value, self.clock.now(), ttl);
        Ok(())
    }

    async fn forget(&self, key: &str) -> Result<()> {
        self.copies().forget(key, self.clock.now());
        Ok(())
    }
}

/// The file holds what was answered: there is nothing to rebuild.
#[async_trait]
impl Recovery for Embedded {
    async fn is_lost(&self) -> Result<bool> {
        Ok(false)
    }

    async fn begin_rebuild(&self, _: &str) -> Result<bool> {
        Ok(false)
    }

    async fn rebuild(&self, _: &str, _: Vec<Past>) -> Result<()> {
        Err(Refusal::NotAllowed.into())
    }
}
