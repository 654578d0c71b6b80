//! One buyer, from arrival to payment, as the shop's own pages would have it: look, take the challenge,
//! ask for a token, order under a key, follow the order until it is written, pay. What goes wrong on
//! the way is asked again within bounds, with the same key.

use std::fmt;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::dice::Dice;
use super::http::Request;
use super::plan::{Attack, Leaves, Manner, Plan};
use super::pool::Dial;
use super::stage::{Call, Data, OpenOrder, Person, Stage};
use super::steps::{Step, Way, refusal_name};
use super::timeline::Mark;

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

/// What a step brings, or the buyer's end.
pub(super) type Go<T> = Result<T, End>;

/// A buyer at play.
pub struct Buyer<'a, D: Dial> {
    pub(super) stage: &'a Stage<D>,
    pub(super) person: &'a Person,
    pub(super) plan: Plan,
    /// When the next request is meant to go out.
    pub(super) due: Instant,
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
    pub(super) async fn token(&mut self) -> Go<String> {
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

    pub(super) fn accepted(&mut self, id: &str, begun: Instant) {
        let now = Instant::now();
        let mut tally = self.stage.tally.borrow_mut();
        tally.accepted(id, self.plan.amount);
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

    pub(super) fn broke(&self, words: String) {
        let words = format!("{words} (buyer {})", self.person.buyer);
        self.stage.tally.borrow_mut().broke(words);
    }

    fn get(&self, step: Step, path: String) -> Call {
        Call::new(step, Request::get(path).bearer(&self.person.session))
    }

    fn post(&self, step: Step, path: &str, body: &serde_json::Value) -> Call {
        Call::new(step, Request::post(path, body).bearer(&self.person.session))
    }

    /// Asks until there is an answer that asking again would not change.
    pub(super) async fn insist(&mut self, call: &Call) -> Go<Data> {
        let mut dice = Dice::new(self.plan.dice.draw(), 0);
        let answer = self.asked(self.due, call, &mut dice).await;
        self.due = Instant::now();
        answer
    }

    pub(super) async fn rest(&mut self, length: Duration) -> Go<()> {
        let rested = self.stage.rest_until(self.due + length).await;
        self.due = rested.ok_or(End::Stopped)?;
        Ok(())
    }
}
