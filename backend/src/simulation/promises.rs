//! What was answered is a promise: orders under their keys and tokens, challenges that were spent, sessions
//! that were signed out. Every later answer is held against it.

use std::collections::{BTreeMap, HashSet};

use engine::{Reservation, Reserved};
use lua_free_rules::purchase::Purchase;
use lua_free_rules::token::Session;
use lua_free_rules::units::{BuyerId, Nonce, OrderId, PromoId};

use super::invariants::{Check, Invariant, demand};

/// Everything that was promised.
#[derive(Debug, Default)]
pub struct Promises {
    orders: BTreeMap<OrderId, Reservation>,
    by_key: BTreeMap<(BuyerId, PromoId, String), OrderId>,
    by_token: BTreeMap<String, OrderId>,
    /// Requests for an order that may have taken effect without an answer.
    unanswered: Vec<(BuyerId, Purchase)>,
    signed_out: HashSet<Nonce>,
    challenges: HashSet<Nonce>,
}

impl Promises {
    /// A session has a record, or may have one.
    pub fn signs_in(&mut self, session: Session) {
        self.signed_out.remove(&session.id);
    }

    /// A session has no record any more.
    pub fn signs_out(&mut self, session: Session) {
        self.signed_out.insert(session.id);
    }

    /// A new token was given for a challenge.
    pub fn spend(&mut self, challenge: Nonce) -> Check {
        let is_first = self.challenges.insert(challenge);
        demand(Invariant::ChallengeOnce, is_first, || {
            format!("challenge {challenge} gave a second token")
        })
    }

    /// A request for an order ended without an answer.
    pub fn is_unanswered(&mut self, buyer: BuyerId, purchase: &Purchase) {
        self.unanswered.push((buyer, purchase.clone()));
    }

    /// A 202. It is a promise even if it is lost on its way.
    pub fn order(&mut self, session: Session, purchase: &Purchase, answer: &Reserved) -> Check {
        let made = answer.reservation;
        let is_out = self.signed_out.contains(&session.id);
        demand(Invariant::SignedOut, !is_out, || {
            format!("order {} in a session that was signed out", made.order)
        })?;
        let is_own = made.buyer == session.buyer && made.order.promo == purchase.promo;
        demand(Invariant::Content, is_own, || {
            format!("{made:?} was answered to {session:?}")
        })?;
        if !answer.repeated {
            demand(Invariant::Content, made.amount == purchase.amount, || {
                format!("{made:?} was asked for as {purchase:?}")
            })?;
            return self.bind(made, purchase);
        }
        // The key comes first; a used token under another key returns its order.
        let by_key = self.by_key.get(&under(session.buyer, purchase));
        let expected = by_key.or_else(|| self.by_token.get(&purchase.token));
        let same = expected == Some(&made.order) && self.orders.get(&made.order) == Some(&made);
        demand(Invariant::NoOrderTwice, same, || {
            format!("{made:?} was answered to {purchase:?}, promised was {expected:?}")
        })
    }

    /// Orders whose events were seen first in this step: someone must have asked for each.
    pub fn meet(&mut self, made: Vec<Reservation>) -> Check {
        for made in made {
            if self.orders.contains_key(&made.order) {
                continue;
            }
            let asked = self.unanswered.iter().position(|(buyer, purchase)| {
                (*buyer, purchase.promo, purchase.amount)
                    == (made.buyer, made.order.promo, made.amount)
            });
            let Some(asked) = asked else {
                return demand(Invariant::NoOrderTwice, false, || {
                    format!("nobody asked for {made:?}")
                });
            };
            let (_, purchase) = self.unanswered.swap_remove(asked);
            self.bind(made, &purchase)?;
        }
        self.unanswered.clear();
        Ok(())
    }

    /// Whether each order is where `is_there` looks.
    pub fn are_kept(&self, is_there: impl Fn(OrderId) -> bool) -> Check {
        let lost = self.orders.keys().find(|order| !is_there(**order));
        demand(Invariant::NoOrderLost, lost.is_none(), || {
            format!("order {lost:?} was accepted and is nowhere")
        })
    }

    /// One order for each key, and for each token.
    fn bind(&mut self, made: Reservation, purchase: &Purchase) -> Check {
        let earlier = [
            self.orders.insert(made.order, made).map(|made| made.order),
            self.by_key.insert(under(made.buyer, purchase), made.order),
            self.by_token.insert(purchase.token.clone(), made.order),
        ];
        demand(Invariant::NoOrderTwice, earlier == [None; 3], || {
            format!("{made:?} is new; under its number, key and token there were {earlier:?}")
        })
    }
}

/// What an order is found under. Without a key, the token stands for it.
fn under(buyer: BuyerId, purchase: &Purchase) -> (BuyerId, PromoId, String) {
    let key = purchase.key.as_ref().unwrap_or(&purchase.token);
    (buyer, purchase.promo, key.clone())
}
