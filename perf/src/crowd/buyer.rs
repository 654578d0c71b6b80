//! One buyer, from arrival to payment, as the shop's own pages would have it: look, take the challenge,
//! ask for a token, order under a key, follow the order until it is written, pay. What goes wrong on
//! the way is asked again within bounds, with the same key.

use std::fmt;
use std::time::Duration;

use lua_free_rules::units::OrderId;
use serde_json::json;
use tokio::time::Instant;

use super::dice::Dice;
use super::forge::{self, Claims};
use super::http::Request;
use super::plan::{Attack, Leaves, Manner, Plan};
use super::pool::{Dial, Stay};
use super::stage::{Answer, Call, Data, OpenOrder, Person, Stage};
use super::tally::{Lost, Step, Way, refusal_name};
use super::timeline::Mark;

/// First wait before asking again without a `Retry-After`; it doubles.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest such wait.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// What waits are spread by, so that those who were refused together do not return together.
const SPREAD: Duration = Duration::from_millis(300);
/// A sale that opens this soon is waited for.
const OPENS_SOON: Duration = Duration::from_secs(2);

/// What became of a buyer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Bought and paid.
    Paid,
    /// Left on purpose.
    Left(Leaves),
    /// The shop said no, for good.
    Refused(Step, u32),
    /// The attack was fended off.
    AttackRefused(Attack),
    /// The attack was not fended off.
    AttackAccepted(Attack),
    /// No answer within the buyer's patience.
    Lost(Step),
    /// The order was accepted, but not written within the buyer's patience.
    NotWritten,
    /// The order came to another end.
    Ended(String),
    /// The run ended.
    Stopped,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paid => f.write_str("paid"),
            Self::Left(Leaves::AfterLooking) => f.write_str("left after looking"),
            Self::Left(Leaves::WithToken) => f.write_str("left with a token"),
            Self::Left(Leaves::WithOrder) => f.write_str("left with an unpaid order"),
            Self::Refused(step, code) => {
                write!(f, "refused at {}: {}", step.name(), refusal_name(*code))
            }
            Self::AttackRefused(attack) => write!(f, "attack refused ({attack:?} token)"),
            Self::AttackAccepted(attack) => write!(f, "attack ACCEPTED ({attack:?} token)"),
            Self::Lost(step) => write!(f, "no answer at {}", step.name()),
            Self::NotWritten => f.write_str("accepted, not seen written in time"),
            Self::Ended(state) => write!(f, "order {state}"),
            Self::Stopped => f.write_str("cut off by the end of the run"),
        }
    }
}

type Go<T> = Result<T, End>;

/// A buyer at play.
pub struct Buyer<'a, D: Dial> {
    stage: &'a Stage<D>,
    person: &'a Person,
    plan: Plan,
    /// When the next request is meant to go out.
    due: Instant,
    arrived: Instant,
    accepted: Option<Instant>,
    order: Option<OpenOrder>,
}

impl<'a, D: Dial> Buyer<'a, D> {
    /// A buyer who means to come at `arrives`.
    pub fn new(stage: &'a Stage<D>, person: &'a Person, arrives: Instant) -> Self {
        let plan = stage.scene.crowd.plan(person.index);
        Self {
            stage,
            person,
            plan,
            due: arrives,
            arrived: arrives,
            accepted: None,
            order: None,
        }
    }

    /// Plays to the end and leaves it in the tally.
    pub async fn play(mut self) -> End {
        self.stage.tally.borrow_mut().funnel.arrived += 1;
        self.stage.mark(Mark::Arrived, self.arrived);
        let end = self.buy().await.unwrap_or_else(|end| end);
        self.stage.finish(end.to_string());
        if end != End::Paid {
            self.stage.open.borrow_mut().extend(self.order);
        }
        end
    }

    async fn buy(&mut self) -> Go<End> {
        let scene = self.stage.scene.clone();
        self.insist(&self.get(Step::Item, format!("/item/get?id={}", scene.item)))
            .await?;
        self.insist(&self.get(Step::State, format!("/promo/state?id={}", scene.promo)))
            .await?;
        if self.plan.manner == Manner::GivesUp(Leaves::AfterLooking) {
            return Ok(End::Left(Leaves::AfterLooking));
        }
        self.rest(self.plan.looks).await?;
        if let Manner::Attacks(attack) = self.plan.manner {
            return self.attack(attack).await;
        }
        let token = self.token().await?;
        if self.plan.manner == Manner::GivesUp(Leaves::WithToken) {
            return Ok(End::Left(Leaves::WithToken));
        }
        self.rest(self.plan.decides).await?;
        let order = self.order(&token).await?;
        if self.plan.manner == Manner::GivesUp(Leaves::WithOrder) {
            return Ok(End::Left(Leaves::WithOrder));
        }
        self.follow(&order).await?;
        self.rest(self.plan.pays).await?;
        self.pay(&order).await
    }

    /// The challenge, then the token: a place behind the door.
    async fn token(&mut self) -> Go<String> {
        let scene = self.stage.scene.clone();
        let mut body = json!({ "promoId": scene.promo, "itemId": scene.item });
        if scene.proof_of_work {
            let (challenge, answer) = self.challenge().await?;
            body["challenge"] = challenge.into();
            body["answer"] = answer.into();
        }
        self.stage.tally.borrow_mut().funnel.asked += 1;
        let granted = self
            .insist(&self.post(Step::Token, "/order/generatetoken", &body))
            .await?;
        let token = granted.token.ok_or(End::Lost(Step::Token))?;
        self.stage.tally.borrow_mut().funnel.admitted += 1;
        self.stage.mark(Mark::Admitted, Instant::now());
        *self.stage.stray.borrow_mut() = Some((self.person.buyer, token.clone()));
        Ok(token)
    }

    /// Envelope and answer. The work is done off this thread, one at a time, and no clock that is
    /// reported runs meanwhile.
    async fn challenge(&mut self) -> Go<(String, String)> {
        let body = json!({ "promoId": self.stage.scene.promo, "kind": "altcha" });
        let call = self.post(Step::Challenge, "/order/generateverifycode", &body);
        let granted = self.insist(&call).await?;
        self.stage.tally.borrow_mut().funnel.challenged += 1;
        let puzzle = granted
            .altcha
            .and_then(|puzzle| serde_json::from_value(puzzle).ok());
        let lost = End::Lost(Step::Challenge);
        let (Some(envelope), Some(puzzle)) = (granted.challenge, puzzle) else {
            return Err(lost);
        };
        // The semaphore is never closed.
        let turn = self
            .stage
            .solvers
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| End::Stopped)?;
        let work = tokio::task::spawn_blocking(move || {
            let options = altcha::SolveChallengeOptions::new(&puzzle);
            let solution = altcha::solve_challenge(options).ok().flatten();
            drop(turn);
            solution.map(|solution| solution.derived_key)
        });
        let answer = work.await.ok().flatten().ok_or(lost)?;
        self.due = Instant::now();
        Ok((envelope, answer))
    }

    /// The order, in the buyer's own manner; its id once it is accepted.
    async fn order(&mut self, token: &str) -> Go<String> {
        let begun = self.due;
        let call = self.order_call(token, None);
        let id = match self.plan.manner {
            Manner::HangsUp => {
                self.stage
                    .ask(self.person, self.due, &call, Stay::HangUp)
                    .await;
                self.due = Instant::now();
                self.placed(&call).await?
            }
            Manner::Resends => {
                let id = self.placed(&call).await?;
                self.accepted(&id, begun);
                let again = self.placed(&call).await;
                if let Err(End::Refused(_, code)) = again
                    && !is_passing(code)
                {
                    let name = refusal_name(code);
                    self.broke(format!(
                        "order {id} was accepted, then its resend refused: {name}"
                    ));
                }
                self.same_order(&id, again)?;
                return Ok(id);
            }
            Manner::DoubleClicks => {
                let mut dice = [self.plan.dice.clone(), Dice::new(self.plan.dice.next(), 1)];
                let [one, two] = &mut dice;
                let due = self.due;
                let (one, two) =
                    tokio::join!(self.asked(due, &call, one), self.asked(due, &call, two));
                self.due = Instant::now();
                match (one.and_then(order_id), two.and_then(order_id)) {
                    (Ok(id), other) | (other, Ok(id)) => {
                        self.accepted(&id, begun);
                        self.same_order(&id, other)?;
                        return Ok(id);
                    }
                    (Err(end), Err(_)) => return Err(end),
                }
            }
            _ => self.placed(&call).await?,
        };
        self.accepted(&id, begun);
        Ok(id)
    }

    /// Orders with a token that must not be accepted.
    async fn attack(&mut self, attack: Attack) -> Go<End> {
        let claims = Claims {
            buyer: self.person.buyer,
            promo: self.stage.scene.promo,
            item: self.stage.scene.item,
            now_ms: self.stage.clock.wall_ms_floor(Instant::now()),
        };
        let stolen = self.stage.stray.borrow().clone();
        let (attack, token) = match (attack, stolen) {
            (Attack::Altered, _) => {
                let own = self.token().await?;
                (Attack::Altered, forge::altered(&own, &mut self.plan.dice))
            }
            (Attack::Foreign, Some((owner, token))) if owner != self.person.buyer => {
                (Attack::Foreign, token)
            }
            // Nobody has a token that could be stolen yet.
            _ => (Attack::Forged, forge::forged(claims, &mut self.plan.dice)),
        };
        self.rest(self.plan.decides).await?;
        let call = self.order_call(&token, Some(attack));
        let begun = self.due;
        match self.placed(&call).await {
            Ok(id) => {
                self.broke(format!(
                    "order {id} was accepted with a token that is {attack:?}"
                ));
                self.accepted(&id, begun);
                Ok(End::AttackAccepted(attack))
            }
            Err(End::Refused(..)) => Ok(End::AttackRefused(attack)),
            Err(end) => Err(end),
        }
    }

    /// Looks at the order until it is in the ledger.
    async fn follow(&mut self, order: &str) -> Go<()> {
        let accepted = self.accepted.unwrap_or(self.due);
        let deadline = self.due + self.stage.scene.patience;
        while self.due < deadline {
            let looked = self.look(order).await;
            match looked?.as_str() {
                "reserved" => self.rest(self.stage.scene.poll).await?,
                "written" | "paid" => {
                    let now = Instant::now();
                    self.stage.tally.borrow_mut().funnel.written += 1;
                    self.stage
                        .tally
                        .borrow_mut()
                        .way(Way::AcceptedToWritten, accepted, now);
                    self.stage.mark(Mark::Written, now);
                    if let Some(order) = &mut self.order {
                        order.seen_written = true;
                    }
                    return Ok(());
                }
                state => return Err(End::Ended(state.to_owned())),
            }
        }
        Err(End::NotWritten)
    }

    async fn pay(&mut self, order: &str) -> Go<End> {
        let body = json!({ "orderId": order });
        let mut call = self.post(Step::Pay, "/order/pay", &body);
        call.order = Some(order.to_owned());
        match self.insist(&call).await {
            Ok(_) => {}
            // The payment whose answer was lost may have gone through.
            Err(End::Refused(_, 30010)) => match self.look(order).await?.as_str() {
                "paid" => {}
                state => return Err(End::Ended(state.to_owned())),
            },
            Err(end) => return Err(end),
        }
        self.stage.tally.borrow_mut().funnel.paid += 1;
        self.stage.mark(Mark::Paid, Instant::now());
        Ok(End::Paid)
    }

    /// The order's state. An accepted order that cannot be found is a broken promise.
    async fn look(&mut self, order: &str) -> Go<String> {
        let mut call = self.get(Step::Look, format!("/order/get?id={order}"));
        call.order = Some(order.to_owned());
        match self.insist(&call).await {
            Ok(data) => data.state.ok_or(End::Lost(Step::Look)),
            Err(end) => {
                if let End::Refused(_, 10003) = end {
                    self.broke(format!("order {order} was accepted and is gone"));
                }
                Err(end)
            }
        }
    }

    fn accepted(&mut self, id: &str, begun: Instant) {
        let now = Instant::now();
        let mut tally = self.stage.tally.borrow_mut();
        tally.funnel.reserved += 1;
        tally.funnel.units += u64::from(self.plan.amount);
        tally.way(Way::OrderToAccepted, begun, now);
        tally.way(Way::ArrivalToAccepted, self.arrived, now);
        let limit = self.stage.scene.per_buyer_limit;
        if self.plan.amount > limit {
            let amount = self.plan.amount;
            tally.broke(format!(
                "order {id} has {amount} units, more than the {limit} of a buyer"
            ));
        }
        drop(tally);
        self.stage.mark(Mark::Accepted, now);
        self.accepted = Some(now);
        let (person, order) = (self.person.index, id.to_owned());
        self.order = Some(OpenOrder {
            person,
            order,
            seen_written: false,
        });
    }

    /// Two answers to one order must name one order.
    fn same_order(&self, id: &str, again: Go<String>) -> Go<()> {
        match again {
            Ok(other) if other != id => {
                self.broke(format!("one key made two orders: {id} and {other}"));
                Ok(())
            }
            Err(End::Stopped) => Err(End::Stopped),
            _ => Ok(()),
        }
    }

    fn broke(&self, words: String) {
        let words = format!("{words} (buyer {})", self.person.buyer);
        self.stage.tally.borrow_mut().broke(words);
    }

    fn get(&self, step: Step, path: String) -> Call {
        Call::new(step, Request::get(path).bearer(&self.person.session))
    }

    fn post(&self, step: Step, path: &str, body: &serde_json::Value) -> Call {
        Call::new(step, Request::post(path, body).bearer(&self.person.session))
    }

    fn order_call(&self, token: &str, attack: Option<Attack>) -> Call {
        let (scene, amount) = (&self.stage.scene, self.plan.amount);
        let body = json!({
            "itemId": scene.item, "promoId": scene.promo, "amount": amount, "token": token,
        });
        let request = Request::post("/order/create", &body).bearer(&self.person.session);
        Call {
            step: Step::Order,
            request: request.key(&self.plan.key),
            key: Some(self.plan.key.clone()),
            amount: Some(amount),
            attack,
            order: None,
        }
    }

    async fn placed(&mut self, call: &Call) -> Go<String> {
        self.insist(call).await.and_then(order_id)
    }

    /// Asks until there is an answer that asking again would not change.
    async fn insist(&mut self, call: &Call) -> Go<Data> {
        let mut dice = Dice::new(self.plan.dice.next(), 0);
        let answer = self.asked(self.due, call, &mut dice).await;
        self.due = Instant::now();
        answer
    }

    async fn asked(&self, first_due: Instant, call: &Call, dice: &mut Dice) -> Go<Data> {
        let give_up_at = first_due + self.stage.scene.patience;
        let mut due = first_due;
        for tried in 0.. {
            let answer = self
                .stage
                .ask(self.person, due, call, Stay::ForAnswer)
                .await;
            let wait = self.wait_after(&answer, tried);
            let end = match answer {
                Answer::Granted(data) => return Ok(data),
                Answer::Lost(Lost::Stopped) => return Err(End::Stopped),
                Answer::Refused { code, .. } => End::Refused(call.step, code),
                Answer::Lost(_) => End::Lost(call.step),
            };
            let Some(wait) = wait else { return Err(end) };
            due = Instant::now() + wait + dice.up_to(SPREAD.min(wait));
            if due > give_up_at {
                return Err(end);
            }
            if !self.stage.rest_until(due).await {
                return Err(End::Stopped);
            }
        }
        Err(End::Stopped)
    }

    /// How long to wait before asking the same again, where that may help.
    fn wait_after(&self, answer: &Answer, tried: u32) -> Option<Duration> {
        let backoff = (BACKOFF * 2_u32.pow(tried.min(8))).min(BACKOFF_MAX);
        let scene = &self.stage.scene;
        match *answer {
            Answer::Granted(_) => None,
            Answer::Lost(_) => Some(backoff),
            Answer::Refused {
                code,
                status,
                retry_after,
            } => {
                let wait = retry_after.unwrap_or(backoff);
                let helps = match code {
                    30002 | 30008 => tried < scene.tries,
                    30003 => wait <= OPENS_SOON && retry_after.is_some() && tried < scene.tries,
                    30007 => tried < scene.door_tries,
                    30010 => retry_after.is_some(),
                    10002 | 0 => status >= 500,
                    _ => false,
                };
                helps.then_some(wait)
            }
        }
    }

    async fn rest(&mut self, length: Duration) -> Go<()> {
        self.due += length;
        if self.stage.rest_until(self.due).await {
            Ok(())
        } else {
            Err(End::Stopped)
        }
    }
}

/// Whether a refusal says something of the moment rather than of the order: rate limits, overload, a
/// fault in between.
const fn is_passing(code: u32) -> bool {
    matches!(code, 0 | 10002 | 30002 | 30008)
}

/// The order in an answer. An id that is not one of the shop's is no answer.
fn order_id(data: Data) -> Go<String> {
    let id = data.order_id.and_then(|id| id.parse::<OrderId>().ok());
    id.map(|id| id.to_string()).ok_or(End::Lost(Step::Order))
}
