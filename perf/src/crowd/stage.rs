//! The stage on which buyers play: one thread's connections, clock, counts and history. Every request
//! of the crowd passes through [`Stage::ask`], which sees to it that it is bounded in time, measured
//! from the moment it was meant to be sent, counted once and written down.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::history::{History, Line};
use super::http::{HttpFault, Request, Response};
use super::plan::{Attack, Crowd};
use super::pool::{Dial, Pool, Stay};
use super::steps::{Lost, Moments, Step, Verdict};
use super::tally::Tally;
use super::timeline::Mark;

/// Timers fire up to so late on an idle machine. That much is taken for a plan to come a little later;
/// whatever is later than that was somebody's fault, and is counted as latency.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// What is played: the sale, and how patient its buyers are.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Which promo.
    pub promo: i64,
    /// Which item.
    pub item: i64,
    /// Units one buyer may have.
    pub per_buyer_limit: u32,
    /// Whether a proof of work is asked for; else there is no challenge.
    pub proof_of_work: bool,
    /// The buyers.
    pub crowd: Crowd,
    /// Longest that one answer is waited for.
    pub timeout: Duration,
    /// Longest that a buyer goes on asking the same thing.
    pub patience: Duration,
    /// How often a buyer asks again when told to wait.
    pub tries: u32,
    /// How often a buyer asks again when the door is full.
    pub door_tries: u32,
    /// How often an order is looked at until it is written.
    pub poll: Duration,
}

/// One member of the crowd.
#[derive(Debug, Clone)]
pub struct Person {
    /// Their number in the crowd.
    pub index: usize,
    /// The `sub` of their session.
    pub buyer: i64,
    /// Their session, as a bearer token.
    pub session: Arc<str>,
}

/// Live counts, for the progress bar.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Buyers who came.
    pub arrived: AtomicU64,
    /// Buyers who are done.
    pub done: AtomicU64,
    /// Answers.
    pub answers: AtomicU64,
    /// Orders accepted.
    pub accepted: AtomicU64,
    /// Orders paid.
    pub paid: AtomicU64,
    /// Requests refused.
    pub refused: AtomicU64,
    /// Requests without an answer.
    pub lost: AtomicU64,
}

/// A request and what the history says of it.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked.
    pub step: Step,
    /// The request.
    pub request: Request,
    /// Its idempotency key.
    pub key: Option<String>,
    /// Units asked for.
    pub amount: Option<u32>,
    /// What is wrong with its token.
    pub attack: Option<Attack>,
    /// The order it is about.
    pub order: Option<String>,
}

impl Call {
    /// A call about nothing but its step.
    pub const fn new(step: Step, request: Request) -> Self {
        Self {
            step,
            request,
            key: None,
            amount: None,
            attack: None,
            order: None,
        }
    }
}

/// What the shop says.
#[derive(Debug)]
pub enum Answer {
    /// Yes.
    Granted(Data),
    /// No.
    Refused {
        /// The error code; 0 where the body names none.
        code: u32,
        /// The HTTP status.
        status: u16,
        /// How long to wait before asking again.
        retry_after: Option<Duration>,
    },
    /// Nothing that can be understood.
    Lost(Lost),
}

/// The `data` of an answer, as far as buyers look at it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Data {
    err_code: Option<u32>,
    /// The access token.
    pub token: Option<String>,
    /// The order.
    pub order_id: Option<String>,
    /// Its state.
    pub state: Option<String>,
    /// The challenge's envelope.
    pub challenge: Option<String>,
    /// The proof of work to do.
    pub altcha: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(default)]
    data: Option<Data>,
}

/// An order that was accepted and not seen paid.
#[derive(Debug, Clone)]
pub struct OpenOrder {
    /// Whose.
    pub person: usize,
    /// Its id.
    pub order: String,
    /// Whether it was seen in the ledger.
    pub seen_written: bool,
}

/// One thread's stage.
pub struct Stage<D: Dial> {
    /// What is played.
    pub scene: Arc<Scene>,
    /// Steady and wall-clock time.
    pub clock: Clock,
    /// What is counted.
    pub tally: RefCell<Tally>,
    /// Orders to look at once more at the end.
    pub open: RefCell<Vec<OpenOrder>>,
    /// The token that was granted last, and to whom: what a thief would have.
    pub stray: RefCell<Option<(i64, String)>>,
    /// Proofs of work done at a time.
    pub solvers: Arc<Semaphore>,
    history: RefCell<History>,
    pool: Pool<D>,
    pulse: Arc<Pulse>,
    stop: RefCell<CancellationToken>,
}

impl<D: Dial> Stage<D> {
    /// A stage whose timeline starts at `start` and whose buyers leave at `stop`.
    pub fn new(
        scene: Arc<Scene>,
        clock: Clock,
        start: Instant,
        pool: Pool<D>,
        history: History,
        pulse: Arc<Pulse>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            scene,
            clock,
            tally: RefCell::new(Tally::new(start)),
            open: RefCell::default(),
            stray: RefCell::default(),
            solvers: Arc::new(Semaphore::new(1)),
            history: RefCell::new(history),
            pool,
            pulse,
            stop: RefCell::new(stop),
        }
    }

    /// From now on another signal ends everything.
    pub fn stop_at(&self, stop: CancellationToken) {
        *self.stop.borrow_mut() = stop;
    }

    /// Whether everyone is to leave.
    pub fn is_stopped(&self) -> bool {
        self.stop.borrow().is_cancelled()
    }

    /// Waits until `at`, and returns the moment to count from: `at`, or the moment of waking if that
    /// is no later than a timer's grain. Nothing if everyone is to leave before.
    pub async fn rest_until(&self, at: Instant) -> Option<Instant> {
        let stop = self.stop.borrow().clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            () = tokio::time::sleep_until(at) => {
                let woken = Instant::now();
                Some(if woken.saturating_duration_since(at) <= TIMER_GRAIN { woken } else { at })
            }
        }
    }

    /// Counts something for the timeline and the progress bar.
    pub fn mark(&self, mark: Mark, at: Instant) {
        self.tally.borrow_mut().timeline.mark(mark, at);
        let live = match mark {
            Mark::Arrived => &self.pulse.arrived,
            Mark::Accepted => &self.pulse.accepted,
            Mark::Paid => &self.pulse.paid,
            _ => return,
        };
        live.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes what became of a buyer.
    pub fn finish(&self, outcome: String) {
        self.tally.borrow_mut().outcome(outcome);
        self.pulse.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends a request that was meant to go out at `due`, once, and returns what is said to it.
    pub async fn ask(&self, person: &Person, due: Instant, call: &Call, stay: Stay) -> Answer {
        let sent = Cell::new(None);
        let stop = self.stop.borrow().clone();
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Lost::Stopped),
            result = tokio::time::timeout(
                self.scene.timeout,
                self.pool.exchange(&call.request, stay, &sent),
            ) => match result {
                Ok(Ok(Some(response))) => Ok(response),
                Ok(Ok(None)) => Err(Lost::HungUp),
                Ok(Err(HttpFault::Connect(_))) => Err(Lost::Connect),
                Ok(Err(HttpFault::Io(_) | HttpFault::Closed)) => Err(Lost::Connection),
                Ok(Err(HttpFault::Malformed(_) | HttpFault::TooLarge)) => Err(Lost::Unreadable),
                Err(_) => Err(Lost::Timeout),
            },
        };
        let moments = Moments {
            due,
            sent: sent.get(),
            ended: Instant::now(),
        };
        let status = answer.as_ref().map_or(0, |response| response.status);
        let answer = match answer {
            Ok(response) => understand(call.step, &response),
            Err(lost) => Answer::Lost(lost),
        };
        self.note(person, call, moments, status, &answer);
        answer
    }

    /// Writes out the history so far.
    pub fn flush(&self) {
        self.history.borrow_mut().flush();
    }

    /// What was counted, once nobody plays any more.
    ///
    /// # Errors
    /// If the history could not be written in full.
    pub fn close(self) -> std::io::Result<Tally> {
        self.history.into_inner().close()?;
        Ok(self.tally.into_inner())
    }

    fn note(&self, person: &Person, call: &Call, moments: Moments, status: u16, answer: &Answer) {
        let verdict = match *answer {
            Answer::Granted(_) => Verdict::Granted,
            Answer::Refused { code, status, .. } => Verdict::Refused(code, status),
            Answer::Lost(why) => Verdict::Lost(why),
        };
        let live = match verdict {
            Verdict::Granted => None,
            Verdict::Refused(..) => Some(&self.pulse.refused),
            Verdict::Lost(Lost::HungUp | Lost::Stopped) => None,
            Verdict::Lost(_) => Some(&self.pulse.lost),
        };
        if let Some(live) = live {
            live.fetch_add(1, Ordering::Relaxed);
        }
        self.pulse
            .answers
            .fetch_add(u64::from(status != 0), Ordering::Relaxed);
        self.tally
            .borrow_mut()
            .exchange(call.step, moments, verdict);
        let mut history = self.history.borrow_mut();
        if !history.is_kept() {
            return;
        }
        let (answered, state) = match answer {
            Answer::Granted(data) => (data.order_id.as_deref(), data.state.as_deref()),
            _ => (None, None),
        };
        history.push(&Line {
            buyer: person.buyer,
            promo: self.scene.promo,
            step: call.step,
            key: call.key.as_deref().map(Cow::Borrowed),
            amount: call.amount,
            attack: call.attack,
            sent_at: moments.sent.map(|at| self.clock.wall_ms_floor(at)),
            received_at: self.clock.wall_ms_ceil(moments.ended),
            status,
            err_code: match verdict {
                Verdict::Refused(code, _) => Some(code),
                _ => None,
            },
            lost: match verdict {
                Verdict::Lost(why) => Some(why),
                _ => None,
            },
            order_id: answered.or(call.order.as_deref()).map(Cow::Borrowed),
            state: state.map(Cow::Borrowed),
        });
    }
}

/// Reads an answer as the contract has it. What is not in its shape counts as no answer, except
/// that a status of refusal stands by itself: something in between may have made it.
fn understand(step: Step, response: &Response) -> Answer {
    let granted = (200..300).contains(&response.status);
    if granted && matches!(step, Step::Item | Step::State) {
        // Buyers look at these; the crowd does not need to read them.
        return Answer::Granted(Data::default());
    }
    let envelope = serde_json::from_slice::<Envelope<'_>>(&response.body).ok();
    match envelope {
        Some(Envelope { status, data }) if granted && status == "success" => {
            Answer::Granted(data.unwrap_or_default())
        }
        _ if granted || response.status < 400 => Answer::Lost(Lost::Unreadable),
        envelope => Answer::Refused {
            code: envelope
                .and_then(|e| e.data)
                .and_then(|data| data.err_code)
                .unwrap_or(0),
            status: response.status,
            retry_after: response.retry_after,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(step: Step, status: u16, body: &str) -> Answer {
        let retry_after = Some(Duration::from_secs(1));
        understand(
            step,
            &Response {
                status,
                retry_after,
                body: body.as_bytes().to_vec(),
            },
        )
    }

    #[test]
    fn answers_are_read_as_the_contract_has_them() {
        let order = r#"{"status":"success","data":{"orderId":"1-1-7","state":"reserved","x":[]}}"#;
        let Answer::Granted(data) = read(Step::Order, 202, order) else {
            panic!("granted")
        };
        assert_eq!(data.order_id.as_deref(), Some("1-1-7"));
        let no = r#"{"status":"fail","data":{"errCode":30001,"errMsg":"sold out"}}"#;
        assert!(matches!(
            read(Step::Order, 409, no),
            Answer::Refused {
                code: 30001,
                status: 409,
                retry_after: Some(_)
            }
        ));
        assert!(matches!(
            read(Step::Order, 502, "<html>"),
            Answer::Refused {
                code: 0,
                status: 502,
                ..
            }
        ));
        assert!(matches!(
            read(Step::Pay, 200, r#"{"status":"success","data":null}"#),
            Answer::Granted(_)
        ));
    }

    #[test]
    fn a_yes_that_cannot_be_read_is_no_answer() {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"status":"fail","data":{}}"#,
            r#"{"status":"success","#,
        ] {
            let answer = read(Step::Order, 200, body);
            assert!(matches!(answer, Answer::Lost(Lost::Unreadable)), "{body}");
        }
        assert!(matches!(
            read(Step::Order, 302, ""),
            Answer::Lost(Lost::Unreadable)
        ));
    }
}
