//! From a request to create an order to a reservation: the token checked, the rules asked, a turn
//! waited for, then one step of the engine.

use std::sync::Arc;

use engine::{Clock, Reserve, Reserved, SharedEngine};
use lua_free_rules::admission::{OrderFacts, may_order};
use lua_free_rules::keys::KeyRing;
use lua_free_rules::limit::{Arrival, Verdict};
use lua_free_rules::purchase::Purchase;
use lua_free_rules::token::{Access, Session};
use lua_free_rules::units::Millis;

use crate::bounded::Bounded;
use crate::error::Result;

/// Makes reservations for one order server.
#[derive(Clone)]
pub struct Reservations {
    /// The engine that reserves.
    pub engine: SharedEngine,
    /// The keys that access tokens are signed with.
    pub keys: KeyRing,
    /// How long after its token's expiry an order may be submitted again.
    pub resubmit_for: Millis,
    /// Tells whether a token has expired.
    pub clock: Arc<dyn Clock>,
    /// How many are made at once, and how many wait.
    pub bound: Bounded,
}

impl Reservations {
    /// Reserves what is asked for, or finds the order that was made for it before.
    ///
    /// # Errors
    /// What the rules or the engine refuse; [`lua_free_rules::refusal::Refusal::Overloaded`] if too
    /// many wait.
    pub async fn make(&self, session: Session, purchase: &Purchase) -> Result<Reserved> {
        let now = self.clock.now();
        let access = may_order(&OrderFacts {
            session: Some(session),
            // The edge holds the rates.
            rate: Verdict::Pass(Arrival::default()),
            token: Access::verify(&purchase.token, &self.keys, now, self.resubmit_for.ms()),
            promo: purchase.promo,
            item: purchase.item,
            amount: purchase.amount,
        })?;
        let request = Reserve {
            access,
            session,
            amount: purchase.amount,
            key: purchase
                .key
                .clone()
                .unwrap_or_else(|| access.jti.to_string()),
            body: purchase.digest(),
        };
        let _turn = self.bound.turn().await?;
        Ok(self.engine.reserve(request).await?)
    }
}
