//! How buyers send their order: once, twice, at once, hanging up, or with a token that is not theirs.

use lua_free_rules::units::OrderId;
use serde_json::json;
use tokio::time::Instant;

use super::buyer::{Buyer, End, Go};
use super::dice::Dice;
use super::forge::{self, Claims};
use super::http::Request;
use super::plan::{Attack, Manner};
use super::pool::{Dial, Stay};
use super::stage::{Call, Data};
use super::steps::{Step, refusal_name};

impl<D: Dial> Buyer<'_, D> {
    /// The order, in the buyer's own manner; its id once it is accepted.
    pub(super) async fn order(&mut self, token: &str) -> Go<String> {
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
                let mut dice = [self.plan.dice.clone(), Dice::new(self.plan.dice.draw(), 1)];
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
    pub(super) async fn attack(&mut self, attack: Attack) -> Go<End> {
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

    async fn placed(&mut self, call: &Call) -> Go<String> {
        self.insist(call).await.and_then(order_id)
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
