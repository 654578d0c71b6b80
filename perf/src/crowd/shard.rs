//! One thread of the crowd: brings its buyers on at their moments, or keeps so many of them busy, then
//! looks once more at every order that was not seen paid.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::buyer::Buyer;
use super::clock::Clock;
use super::error::CrowdError;
use super::history::History;
use super::http::Request;
use super::pool::{Dial, Pool, Stay};
use super::stage::{Answer, Call, OpenOrder, Person, Pulse, Scene, Stage};
use super::steps::Step;
use super::tally::Tally;
use crate::machine::{Effort, EffortWatch};

/// Who comes when, of one thread's buyers.
#[derive(Debug, Clone)]
pub enum Cast {
    /// Each at their moment after the start, in order.
    Open(Vec<(usize, Duration)>),
    /// One after the other, so many at a time.
    Closed(Vec<usize>, usize),
}

/// What a thread needs to play its part.
pub struct Part<D> {
    /// What is played.
    pub scene: Arc<Scene>,
    /// Everyone.
    pub people: Arc<[Person]>,
    /// Who of them, and when.
    pub cast: Cast,
    /// How it connects, to which host, over how many connections.
    pub dialer: D,
    /// The value of `Host`.
    pub host: String,
    /// Its share of the connections.
    pub connections: usize,
    /// The clock that all threads share.
    pub clock: Clock,
    /// The moment that arrivals are counted from.
    pub start: Instant,
    /// Its end of the history.
    pub history: History,
    /// Live counts.
    pub pulse: Arc<Pulse>,
    /// When buyers leave.
    pub stop: CancellationToken,
    /// When even the last look ends.
    pub abort: CancellationToken,
}

/// What a thread brings back.
#[derive(Debug)]
pub struct Played {
    /// What it counted.
    pub tally: Tally,
    /// Orders that were not seen paid, by the state they are in at the last look.
    pub standing: BTreeMap<String, u64>,
    /// When its last buyer was done.
    pub ended: Instant,
    /// How busy it was.
    pub effort: Option<Effort>,
}

impl<D: Dial + 'static> Part<D> {
    /// Plays it on this thread.
    ///
    /// # Errors
    /// If the history cannot be written, or a buyer's task fails.
    pub async fn play(self) -> Result<Played, CrowdError> {
        let local = LocalSet::new();
        local.run_until(self.play_here()).await
    }

    async fn play_here(self) -> Result<Played, CrowdError> {
        let pool = Pool::new(self.dialer, &self.host, self.connections);
        let stage = Rc::new(Stage::new(
            self.scene,
            self.clock,
            self.start,
            pool,
            self.history,
            self.pulse,
            self.stop,
        ));
        let mut watch = EffortWatch::start();
        let acted = {
            let acting = act(&stage, &self.people, self.cast, self.start);
            tokio::pin!(acting);
            let mut seconds = tokio::time::interval(Duration::from_secs(1));
            seconds.tick().await;
            loop {
                tokio::select! {
                    result = &mut acting => break result,
                    _ = seconds.tick() => {
                        watch.look();
                        stage.flush();
                    }
                }
            }
        };
        let (ended, effort) = (Instant::now(), watch.end());
        stage.stop_at(self.abort);
        let looked = last_look(&stage, &self.people).await;
        let (standing, ()) = (looked?, acted?);
        let stage = Rc::into_inner(stage).ok_or(CrowdError::Thread)?;
        let tally = stage
            .close()
            .map_err(|error| CrowdError::File("the history".into(), error))?;
        Ok(Played {
            tally,
            standing,
            ended,
            effort,
        })
    }
}

async fn act<D: Dial + 'static>(
    stage: &Rc<Stage<D>>,
    people: &Arc<[Person]>,
    cast: Cast,
    start: Instant,
) -> Result<(), CrowdError> {
    let mut players = JoinSet::new();
    match cast {
        Cast::Open(arrivals) => {
            for (index, after) in arrivals {
                // A timer that has passed already fires at once.
                let Some(arrives) = stage.rest_until(start + after).await else {
                    break;
                };
                let (stage, people) = (stage.clone(), people.clone());
                players.spawn_local(async move {
                    if let Some(person) = people.get(index) {
                        Buyer::new(&stage, person, arrives).play().await;
                    }
                });
                // Those who are done must not pile up.
                while let Some(done) = players.try_join_next() {
                    done.map_err(|_| CrowdError::Thread)?;
                }
            }
        }
        Cast::Closed(indexes, at_a_time) => {
            // Whether everyone is to leave already is looked at by each.
            let _ = stage.rest_until(start).await;
            let queue = Rc::new(std::cell::RefCell::new(indexes.into_iter()));
            for _ in 0..at_a_time {
                let (stage, people, queue) = (stage.clone(), people.clone(), queue.clone());
                players.spawn_local(async move {
                    loop {
                        let next = queue.borrow_mut().next();
                        let Some(person) = next.and_then(|index| people.get(index)) else {
                            break;
                        };
                        if stage.is_stopped() {
                            break;
                        }
                        Buyer::new(&stage, person, Instant::now()).play().await;
                    }
                });
            }
        }
    }
    while let Some(done) = players.join_next().await {
        done.map_err(|_| CrowdError::Thread)?;
    }
    Ok(())
}

/// Looks once at each order that was accepted and not seen paid, and counts the states they are in.
async fn last_look<D: Dial + 'static>(
    stage: &Rc<Stage<D>>,
    people: &Arc<[Person]>,
) -> Result<BTreeMap<String, u64>, CrowdError> {
    let open = stage.open.take();
    let mut looks = JoinSet::new();
    for order in open {
        let (stage, people) = (stage.clone(), people.clone());
        looks.spawn_local(async move { look(&stage, &people, order).await });
    }
    let mut standing = BTreeMap::new();
    while let Some(state) = looks.join_next().await {
        *standing
            .entry(state.map_err(|_| CrowdError::Thread)?)
            .or_default() += 1;
    }
    Ok(standing)
}

/// How often the last look is taken again when it has no answer.
const LAST_LOOKS: u32 = 5;

async fn look<D: Dial>(stage: &Stage<D>, people: &[Person], open: OpenOrder) -> String {
    let Some(person) = people.get(open.person) else {
        return "unknown".to_owned();
    };
    let request = Request::get(format!("/order/get?id={}", open.order)).bearer(&person.session);
    let mut call = Call::new(Step::Look, request);
    call.order = Some(open.order.clone());
    for _ in 0..LAST_LOOKS {
        let answer = stage
            .ask(person, Instant::now(), &call, Stay::ForAnswer)
            .await;
        let mut tally = stage.tally.borrow_mut();
        match answer {
            Answer::Granted(data) => {
                let state = data.state.unwrap_or_else(|| "unknown".to_owned());
                if state != "reserved" && !open.seen_written {
                    tally.funnel.written += 1;
                }
                tally.funnel.expired += u64::from(state == "expired");
                // Paid by a payment whose answer was lost.
                tally.funnel.paid += u64::from(state == "paid");
                return state;
            }
            Answer::Refused { code: 10003, .. } => {
                let order = &open.order;
                tally.broke(format!(
                    "order {order} was accepted and is gone (last look)"
                ));
                return "gone".to_owned();
            }
            Answer::Refused { .. } | Answer::Lost(_) => {}
        }
        drop(tally);
        let soon = Instant::now() + Duration::from_secs(1);
        if stage.rest_until(soon).await.is_none() {
            break;
        }
    }
    "unknown".to_owned()
}
