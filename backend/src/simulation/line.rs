//! The line between one piece of work and the engine, and between it and the ledger: where it is held
//! up, cut off, or killed. Every call is counted, so a plan can name the call at which it strikes.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use engine::{
    Backlog, Cache, Control, DeadLetter, Door, EngineError, Entry, EntryId, Fence, Leases,
    OrderStream, Past, Promos, Publish, Published, Recovery, Release, Reservation, Reserve,
    Reserved, Result, Sessions, SharedEngine, Signal, Signals, Stock, StreamEntry,
};
use lua_free_rules::challenge::Attempt;
use lua_free_rules::promo::Snapshot;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::{Access, Session};
use lua_free_rules::units::{Generation, OrderId, PromoId, Timestamp};
use tokio::sync::Notify;

use super::sabotage::Sabotage;

/// What the errors say that the simulation makes itself.
const ON_PURPOSE: &str = "on purpose";

/// What befalls a piece of work, and at which of its calls, counted from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Through,
    /// It is held up before a call of the engine, while others go on.
    Pause(u32),
    /// It dies before a call of the engine.
    DieBefore(u32),
    /// It dies after a call of the engine took effect, before it hears of it.
    DieAfter(u32),
    /// It dies before a statement or transaction of the ledger.
    DieAtLedger(u32),
    /// It dies while the ledger commits: the transaction is rolled back.
    DieInCommit(u32),
    /// The engine is away for one call.
    Away(u32),
    /// A call takes effect, its answer is lost.
    LoseAnswer(u32),
}

/// One piece of work's line.
pub struct Line {
    engine: SharedEngine,
    who: &'static str,
    state: Mutex<State>,
    /// Calls go one by one: those of a piece of work that is held up or dead would else still be under way
    /// in the engine's threads, and no two sales of a seed would be the same.
    in_turn: tokio::sync::Mutex<()>,
    stopped: Notify,
    resumed: Notify,
}

struct State {
    plan: Plan,
    calls: u32,
    ledger_calls: u32,
    commit_is_armed: bool,
    dead: Option<String>,
    /// What befell it, for the count.
    faults: Vec<String>,
    /// An answer of the engine that must not be.
    broken: Option<String>,
    reads_left: u32,
    again: Vec<StreamEntry>,
    broken_rule: Option<Sabotage>,
}

enum Turn {
    Go,
    Away,
    LoseAnswer,
    Pause,
    Die,
    DieAfter,
}

impl Line {
    /// The line of `who` to the engine.
    pub fn new(engine: SharedEngine, who: &'static str, plan: Plan) -> Self {
        Self {
            engine,
            who,
            state: Mutex::new(State {
                plan,
                calls: 0,
                ledger_calls: 0,
                commit_is_armed: false,
                dead: None,
                faults: Vec::new(),
                broken: None,
                reads_left: u32::MAX,
                again: Vec::new(),
                broken_rule: None,
            }),
            in_turn: tokio::sync::Mutex::default(),
            stopped: Notify::new(),
            resumed: Notify::new(),
        }
    }

    /// Lets `reads` reads of the stream through, after one that delivers `again` once more.
    pub fn deliver(self, reads: u32, again: Vec<StreamEntry>) -> Self {
        {
            let mut state = self.state();
            (state.reads_left, state.again) = (reads, again);
        }
        self
    }

    /// Breaks a rule on purpose.
    pub fn breaking(self, rule: Option<Sabotage>) -> Self {
        self.state().broken_rule = rule;
        self
    }

    /// Waits until it is held up or dead.
    pub async fn stopped(&self) {
        self.stopped.notified().await;
    }

    /// Where it died, if it did.
    pub fn dead(&self) -> Option<String> {
        self.state().dead.clone()
    }

    /// Lets it go on after it was held up, without further harm.
    pub fn resume(&self) {
        self.state().plan = Plan::Through;
        self.resumed.notify_one();
    }

    /// What befell it, and what the engine should never have answered.
    pub fn take_notes(&self) -> (Vec<String>, Option<String>) {
        let mut state = self.state();
        (std::mem::take(&mut state.faults), state.broken.take())
    }

    /// Called before the ledger is asked for anything. Returns whether its commit is to fail.
    pub async fn before_ledger(&self) -> bool {
        let (dies, arms) = {
            let mut state = self.state();
            let call = state.ledger_calls;
            state.ledger_calls += 1;
            let arms = state.plan == Plan::DieInCommit(call);
            state.commit_is_armed |= arms;
            let dies = state.plan == Plan::DieAtLedger(call) || state.dead.is_some();
            (dies, arms)
        };
        if dies {
            self.die("before ledger").await;
        }
        arms
    }

    /// Called when the ledger commits: whether it may.
    pub fn may_commit(&self) -> bool {
        let dies = std::mem::take(&mut self.state().commit_is_armed);
        if dies {
            self.mark_dead("inside commit");
        }
        !dies
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn mark_dead(&self, at: &str) {
        let mut state = self.state();
        if state.dead.is_none() {
            state.dead = Some(format!("{} {at}", self.who));
        }
        drop(state);
        self.stopped.notify_one();
    }

    async fn die(&self, at: &str) -> ! {
        self.mark_dead(at);
        loop {
            std::future::pending::<()>().await;
        }
    }

    fn turn(&self, name: &'static str) -> Turn {
        let mut state = self.state();
        let call = state.calls;
        state.calls += 1;
        if state.dead.is_some() {
            return Turn::Die;
        }
        // The writer waits in real time when it cannot acknowledge: there it dies instead.
        let waits = matches!(name, "acknowledge" | "set_aside");
        let turn = match state.plan {
            Plan::Pause(at) if at == call => Turn::Pause,
            Plan::DieBefore(at) if at == call => Turn::Die,
            Plan::DieAfter(at) if at == call => Turn::DieAfter,
            Plan::Away(at) if at == call && waits => Turn::Die,
            Plan::Away(at) if at == call => Turn::Away,
            Plan::LoseAnswer(at) if at == call && waits => Turn::DieAfter,
            Plan::LoseAnswer(at) if at == call => Turn::LoseAnswer,
            _ => return Turn::Go,
        };
        let fault = match turn {
            Turn::Away => "engine away",
            Turn::LoseAnswer => "engine's answer lost",
            Turn::Pause => "held up",
            _ => return turn,
        };
        state.faults.push(format!("{fault}: {} {name}", self.who));
        turn
    }

    async fn call<T>(
        &self,
        name: &'static str,
        step: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let unavailable = || Err(EngineError::Unavailable(ON_PURPOSE.to_owned()));
        let _in_turn = self.in_turn.lock().await;
        let turn = self.turn(name);
        match turn {
            Turn::Die => self.die(&format!("before {name}")).await,
            Turn::Away => return unavailable(),
            Turn::Pause => {
                self.stopped.notify_one();
                self.resumed.notified().await;
            }
            Turn::Go | Turn::LoseAnswer | Turn::DieAfter => {}
        }
        let answer = step.await;
        if let Err(EngineError::Unavailable(detail)) = &answer {
            self.state().broken = Some(format!("{name}: {detail}"));
        }
        match turn {
            Turn::DieAfter => self.die(&format!("after {name}")).await,
            Turn::LoseAnswer => unavailable(),
            _ => answer,
        }
    }
}

/// Whether an error is of the simulation's own making.
pub fn is_on_purpose(detail: &str) -> bool {
    detail == ON_PURPOSE
}

#[async_trait]
impl Promos for Line {
    async fn publish(&self, request: Publish) -> Result<(Published, Snapshot)> {
        self.call("publish", self.engine.publish(request)).await
    }

    async fn control(&self, promo: PromoId, control: Control) -> Result<Snapshot> {
        self.call("control", self.engine.control(promo, control))
            .await
    }

    async fn promos(&self) -> Result<(Timestamp, Vec<Snapshot>)> {
        self.call("promos", self.engine.promos()).await
    }

    async fn snapshot(&self, promo: PromoId, generation: Generation) -> Result<Snapshot> {
        self.call("snapshot", self.engine.snapshot(promo, generation))
            .await
    }

    async fn tend(&self) -> Result<()> {
        self.call("tend", self.engine.tend()).await
    }
}

#[async_trait]
impl Door for Line {
    async fn enter(&self, entry: Entry) -> Result<Access> {
        self.call("enter", self.engine.enter(entry)).await
    }

    async fn spend(&self, promo: PromoId, attempt: Attempt) -> Result<bool> {
        self.call("spend", self.engine.spend(promo, attempt)).await
    }
}

#[async_trait]
impl Stock for Line {
    async fn reserve(&self, request: Reserve) -> Result<Reserved> {
        if self.state().broken_rule == Some(Sabotage::SoldOutTooEarly) {
            return Err(Refusal::SoldOut.into());
        }
        self.call("reserve", self.engine.reserve(request)).await
    }

    async fn reserve_again(&self, order: OrderId, payment: &str) -> Result<Reservation> {
        self.call("reserve_again", self.engine.reserve_again(order, payment))
            .await
    }

    async fn release(&self, release: Release) -> Result<bool> {
        self.call("release", self.engine.release(release)).await
    }

    async fn reservation(&self, order: OrderId) -> Result<Option<Reservation>> {
        self.call("reservation", self.engine.reservation(order))
            .await
    }
}

#[async_trait]
impl OrderStream for Line {
    async fn read(&self, max: usize, wait: Duration) -> Result<Vec<StreamEntry>> {
        let again = std::mem::take(&mut self.state().again);
        if !again.is_empty() {
            self.state().faults.push("delivered again".to_owned());
            return Ok(again);
        }
        if self.state().reads_left == 0 {
            return Ok(Vec::new());
        }
        self.state().reads_left -= 1;
        let mut entries = self.call("read", self.engine.read(max, wait)).await?;
        let ids = entries.iter().map(|entry| entry.id);
        let rule = self.state().broken_rule;
        let gone: Vec<EntryId> = match rule {
            Some(Sabotage::AcknowledgeBeforeWrite) => ids.collect(),
            Some(Sabotage::EntryIsSkipped) => ids.filter(|id| id.number % 7 == 0).collect(),
            _ => return Ok(entries),
        };
        self.engine.acknowledge(&gone).await?;
        if rule == Some(Sabotage::EntryIsSkipped) {
            entries.retain(|entry| !gone.contains(&entry.id));
        }
        Ok(entries)
    }

    async fn rewind(&self) -> Result<()> {
        self.call("rewind", self.engine.rewind()).await
    }

    async fn acknowledge(&self, ids: &[EntryId]) -> Result<()> {
        self.call("acknowledge", self.engine.acknowledge(ids)).await
    }

    async fn set_aside(&self, id: EntryId, reason: &str) -> Result<()> {
        self.call("set_aside", self.engine.set_aside(id, reason))
            .await
    }

    async fn backlog(&self) -> Result<Backlog> {
        self.call("backlog", self.engine.backlog()).await
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>> {
        self.call("dead_letters", self.engine.dead_letters(max))
            .await
    }

    async fn replay(&self, id: EntryId) -> Result<bool> {
        self.call("replay", self.engine.replay(id)).await
    }
}

#[async_trait]
impl Sessions for Line {
    async fn sign_in(&self, session: Session) -> Result<()> {
        self.call("sign_in", self.engine.sign_in(session)).await
    }

    async fn is_signed_in(&self, session: Session) -> Result<bool> {
        self.call("is_signed_in", self.engine.is_signed_in(session))
            .await
    }

    async fn sign_out(&self, session: Session) -> Result<()> {
        self.call("sign_out", self.engine.sign_out(session)).await
    }
}

#[async_trait]
impl Signals for Line {
    fn listen(&self) -> tokio::sync::broadcast::Receiver<Signal> {
        self.engine.listen()
    }

    async fn tell(&self, signal: Signal) -> Result<()> {
        self.call("tell", self.engine.tell(signal)).await
    }
}

#[async_trait]
impl Leases for Line {
    async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Fence>> {
        self.call("lease", self.engine.lease(name, holder, ttl))
            .await
    }

    async fn give_back(&self, name: &str, holder: &str) -> Result<()> {
        self.call("give_back", self.engine.give_back(name, holder))
            .await
    }
}

#[async_trait]
impl Cache for Line {
    async fn recall(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.call("recall", self.engine.recall(key)).await
    }

    async fn remember(&self, key: &str, value: &[u8], ttl: Duration) -> Result<()> {
        self.call("remember", self.engine.remember(key, value, ttl))
            .await
    }

    async fn forget(&self, key: &str) -> Result<()> {
        self.call("forget", self.engine.forget(key)).await
    }
}

/// The engine behind the line keeps its memory.
#[async_trait]
impl Recovery for Line {
    async fn is_lost(&self) -> Result<bool> {
        self.call("is_lost", self.engine.is_lost()).await
    }

    async fn begin_rebuild(&self, holder: &str) -> Result<bool> {
        self.call("begin_rebuild", self.engine.begin_rebuild(holder))
            .await
    }

    async fn rebuild(&self, holder: &str, past: Vec<Past>) -> Result<()> {
        self.call("rebuild", self.engine.rebuild(holder, past))
            .await
    }
}

/// Which line asks the ledger now: the pool of connections is told before each call.
#[derive(Default, Clone)]
pub struct AtLedger(Arc<Mutex<Option<Arc<Line>>>>);

impl AtLedger {
    /// From now on this line asks.
    pub fn set(&self, line: Option<Arc<Line>>) {
        *self.0.lock().unwrap() = line;
    }

    /// The line that asks.
    pub fn line(&self) -> Option<Arc<Line>> {
        self.0.lock().unwrap().clone()
    }
}
