//! The provider of the demo: a button that pays without money, and a webhook like any other's.

use async_trait::async_trait;
use http::HeaderMap;
use lua_free_rules::units::Timestamp;

use super::webhook::{TOLERANCE, Webhook};
use super::{Button, Notice, Provider, Told};
use crate::error::Result;
use crate::ledger::Order;
use crate::settings::Secret;

/// The demo provider.
#[derive(Debug)]
pub struct Demo(Webhook);

impl Demo {
    /// A demo provider whose webhook is signed with `secret`.
    pub fn new(secret: Secret) -> Self {
        Self(Webhook::new("demo", vec![secret], TOLERANCE))
    }
}

impl Provider for Demo {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn told(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Told> {
        self.0.told(headers, body, now)
    }
}

#[async_trait]
impl Button for Demo {
    async fn charge(&self, order: &Order) -> Result<Notice> {
        Ok(Notice {
            payment: format!("button-{}", order.id),
            order: order.id,
            amount: order.total(),
        })
    }
}
