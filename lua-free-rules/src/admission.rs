//! Admission: may this request go on? Pure functions of facts and `now`, in the order the contract
//! names, the cheapest refusal first.

use crate::challenge::{Attempt, Verdict};
use crate::limit;
use crate::promo::{Phase, Snapshot};
use crate::refusal::Refusal;
use crate::token::{Access, Session, TokenFault};
use crate::units::{ItemId, PromoId, Timestamp};

/// An edge that has not heard of a promo for longer than this issues no tokens for it.
pub const PROMO_STALE_MS: i64 = 5_000;

/// What the edge knows of a request for an access token.
#[derive(Debug)]
pub struct TokenFacts<'a> {
    /// The moment of the decision.
    pub now: Timestamp,
    /// The session in the request, its signature checked.
    pub session: Option<Session>,
    /// What the rate limits say.
    pub rate: limit::Verdict,
    /// The promo as the engine last told it.
    pub promo: Option<&'a Snapshot>,
    /// How long ago the engine told it, by a clock that is never set; `None` if it never did.
    pub heard_ms_ago: Option<i64>,
    /// The item that was asked for.
    pub item: ItemId,
}

/// What becomes of a request for a challenge or an access token before its answer is looked at.
///
/// # Errors
/// The first refusal that applies: session, rate, staleness, promo, phase, sold out.
pub fn may_ask(facts: &TokenFacts<'_>) -> Result<Session, Refusal> {
    let session = facts.session.ok_or(Refusal::NotSignedIn)?;
    if let limit::Verdict::Wait { retry_after_s } = facts.rate {
        return Err(Refusal::TooManyRequests { retry_after_s });
    }
    // An edge that has heard nothing does not know what there is not.
    if facts
        .heard_ms_ago
        .is_none_or(|age_ms| age_ms > PROMO_STALE_MS)
    {
        return Err(Refusal::Overloaded);
    }
    let promo = facts.promo.ok_or(Refusal::NotFound)?;
    if promo.terms.item != facts.item {
        return Err(Refusal::BadParameter(
            "the promo does not sell this item".to_owned(),
        ));
    }
    in_window(promo, facts.now)?;
    if promo.sold_out {
        return Err(Refusal::SoldOut);
    }
    Ok(session)
}

/// Whether a promo sells at `now`.
///
/// # Errors
/// Not open (with the seconds until it is), or paused.
pub fn in_window(promo: &Snapshot, now: Timestamp) -> Result<(), Refusal> {
    match promo.phase(now) {
        Phase::Live => Ok(()),
        Phase::Paused => Err(Refusal::Paused),
        Phase::Ended | Phase::Closed => Err(Refusal::NotOpen { opens_in_s: None }),
        Phase::Upcoming => {
            let wait_s = promo.terms.starts_at.ms_since(now).saturating_add(999) / 1_000;
            Err(Refusal::NotOpen {
                opens_in_s: u32::try_from(wait_s).ok(),
            })
        }
    }
}

/// What the edge does with an answered challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenDecision {
    /// Ask the engine for a place; the attempt is spent when the place is charged.
    AskDoor(Option<Attempt>),
    /// Spend the attempt, then refuse.
    SpendAndRefuse(Attempt, Refusal),
    /// Refuse; there is nothing to spend.
    Refuse(Refusal),
}

/// Decides on the answer. `verdict` is `None` where the promo asks for no challenge.
pub fn on_answer(verdict: Option<Verdict>) -> TokenDecision {
    match verdict {
        None => TokenDecision::AskDoor(None),
        Some(Verdict::Right(attempt)) => TokenDecision::AskDoor(Some(attempt)),
        Some(Verdict::Wrong(attempt)) => {
            TokenDecision::SpendAndRefuse(attempt, Refusal::ChallengeFailed)
        }
        Some(Verdict::Void) => TokenDecision::Refuse(Refusal::ChallengeFailed),
    }
}

/// What is known of a request to create an order, at the edge and again at the order server.
#[derive(Debug)]
pub struct OrderFacts {
    /// The session in the request, its signature checked.
    pub session: Option<Session>,
    /// What the rate limits say.
    pub rate: limit::Verdict,
    /// The token in the request: signature and times checked, `resubmit_for` granted on expiry.
    pub token: Result<Access, TokenFault>,
    /// The promo that the request names.
    pub promo: PromoId,
    /// The item that the request names.
    pub item: ItemId,
    /// How many units it asks for.
    pub amount: u32,
}

/// Whether a request to create an order may go on. It is never refused here for sold-out, phase or
/// a recent expiry: the engine first looks whether the order exists already.
///
/// # Errors
/// The first refusal that applies: session, rate, token, amount.
pub fn may_order(facts: &OrderFacts) -> Result<Access, Refusal> {
    let session = facts.session.ok_or(Refusal::NotSignedIn)?;
    if let limit::Verdict::Wait { retry_after_s } = facts.rate {
        return Err(Refusal::TooManyRequests { retry_after_s });
    }
    let token = facts.token.map_err(|_| Refusal::TokenInvalid)?;
    if token.buyer != session.buyer || token.promo != facts.promo || token.item != facts.item {
        return Err(Refusal::TokenInvalid);
    }
    if facts.amount == 0 {
        return Err(Refusal::BadParameter(
            "amount must be at least 1".to_owned(),
        ));
    }
    if facts.amount > token.amount_max {
        return Err(Refusal::PerBuyerLimit);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Arrival;
    use crate::promo::tests::snapshot;
    use crate::units::{BuyerId, Generation, Nonce};

    const PASS: limit::Verdict = limit::Verdict::Pass(Arrival(0));

    fn session() -> Session {
        Session {
            buyer: BuyerId(5),
            id: Nonce([1; 16]),
            expires_at: Timestamp(1_000_000),
        }
    }

    fn token_facts(promo: &Snapshot) -> TokenFacts<'_> {
        TokenFacts {
            now: Timestamp(2_000),
            session: Some(session()),
            rate: PASS,
            promo: Some(promo),
            heard_ms_ago: Some(0),
            item: ItemId(3),
        }
    }

    #[test]
    fn the_cheapest_refusal_comes_first() {
        let mut promo = snapshot();
        promo.sold_out = true;
        let mut facts = token_facts(&promo);
        facts.session = None;
        facts.rate = limit::Verdict::Wait { retry_after_s: 3 };
        assert_eq!(may_ask(&facts), Err(Refusal::NotSignedIn));
        facts.session = Some(session());
        assert_eq!(
            may_ask(&facts),
            Err(Refusal::TooManyRequests { retry_after_s: 3 })
        );
        facts.rate = PASS;
        facts.now = Timestamp(0);
        assert_eq!(
            may_ask(&facts),
            Err(Refusal::NotOpen {
                opens_in_s: Some(1)
            })
        );
        facts.now = Timestamp(1_000);
        assert_eq!(may_ask(&facts), Err(Refusal::SoldOut));
        facts.promo = None;
        assert_eq!(may_ask(&facts), Err(Refusal::NotFound));
    }

    #[test]
    fn an_edge_that_has_not_heard_of_a_promo_issues_nothing() {
        let promo = snapshot();
        let mut facts = token_facts(&promo);
        facts.heard_ms_ago = Some(PROMO_STALE_MS);
        assert!(may_ask(&facts).is_ok());
        for stale in [Some(PROMO_STALE_MS + 1), None] {
            facts.heard_ms_ago = stale;
            assert_eq!(may_ask(&facts), Err(Refusal::Overloaded));
        }
        facts.promo = None;
        assert_eq!(may_ask(&facts), Err(Refusal::Overloaded));
        facts.heard_ms_ago = Some(0);
        assert_eq!(may_ask(&facts), Err(Refusal::NotFound));
    }

    #[test]
    fn a_wrong_answer_is_spent_and_a_void_one_is_not() {
        let attempt = Attempt {
            id: Nonce([2; 16]),
            expires_at: Timestamp(9),
        };
        assert_eq!(
            on_answer(Some(Verdict::Right(attempt))),
            TokenDecision::AskDoor(Some(attempt))
        );
        assert_eq!(
            on_answer(Some(Verdict::Wrong(attempt))),
            TokenDecision::SpendAndRefuse(attempt, Refusal::ChallengeFailed)
        );
        assert_eq!(
            on_answer(Some(Verdict::Void)),
            TokenDecision::Refuse(Refusal::ChallengeFailed)
        );
        assert_eq!(on_answer(None), TokenDecision::AskDoor(None));
    }

    #[test]
    fn a_token_is_for_one_buyer_promo_and_item() {
        let token = Access {
            buyer: BuyerId(5),
            jti: Nonce([9; 16]),
            promo: PromoId(7),
            item: ItemId(3),
            generation: Generation(1),
            amount_max: 2,
            issued_at: Timestamp(0),
            expires_at: Timestamp(60_000),
        };
        let facts = |change: fn(&mut OrderFacts)| {
            let mut facts = OrderFacts {
                session: Some(session()),
                rate: PASS,
                token: Ok(token),
                promo: PromoId(7),
                item: ItemId(3),
                amount: 2,
            };
            change(&mut facts);
            may_order(&facts).map(|_| ())
        };
        assert_eq!(facts(|_| ()), Ok(()));
        assert_eq!(facts(|f| f.session = None), Err(Refusal::NotSignedIn));
        assert_eq!(facts(|f| f.promo = PromoId(8)), Err(Refusal::TokenInvalid));
        assert_eq!(facts(|f| f.item = ItemId(4)), Err(Refusal::TokenInvalid));
        assert_eq!(
            facts(|f| f.token = Err(TokenFault::Expired)),
            Err(Refusal::TokenInvalid)
        );
        assert_eq!(facts(|f| f.amount = 3), Err(Refusal::PerBuyerLimit));
        assert!(matches!(
            facts(|f| f.amount = 0),
            Err(Refusal::BadParameter(_))
        ));
        let other = Session {
            buyer: BuyerId(6),
            ..session()
        };
        let mut wrong = OrderFacts {
            session: Some(other),
            rate: PASS,
            token: Ok(token),
            promo: PromoId(7),
            item: ItemId(3),
            amount: 1,
        };
        assert_eq!(may_order(&wrong), Err(Refusal::TokenInvalid));
        wrong.rate = limit::Verdict::Wait { retry_after_s: 1 };
        assert!(matches!(
            may_order(&wrong),
            Err(Refusal::TooManyRequests { .. })
        ));
    }
}
