//! Signed-in test accounts by the thousand, for load generators: hashing as many passwords would take
//! half an hour. There is no such route unless `accounts.test_accounts` is set.

use futures_util::future::try_join_all;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::Session;
use lua_free_rules::units::{BuyerId, Nonce, Timestamp};
use serde_json::json;

use super::Call;
use super::admin::as_operator;
use crate::accounts::random;
use crate::answer::Reply;
use crate::error::{BackendError, Result};

/// Test buyers have ids from here on, out of the way of registered ones.
const FIRST_BUYER: i64 = 1 << 40;
/// Most accounts in one call.
const COUNT_MAX: i64 = 5_000;
/// Sessions recorded at once.
const AT_ONCE: usize = 256;

pub async fn create(call: Call) -> Result<Reply> {
    as_operator(&call, "admin/testaccounts", async {
        if !call.shop.accounts.settings.test_accounts {
            return Err(Refusal::NotFound.into());
        }
        let fields = call.fields()?;
        let from = fields.integer("from", 0..=1_000_000_000)?;
        let count = fields.integer("count", 1..=COUNT_MAX)?;
        let life = call.shop.accounts.settings.session_ttl;
        let expires_at = Timestamp(call.now.plus_ms(life.ms()).seconds() * 1_000);
        let mut sessions = Vec::new();
        for number in from..from + count {
            let buyer = BuyerId(FIRST_BUYER + number);
            sessions.push(Session {
                buyer,
                id: Nonce(random()?),
                expires_at,
            });
        }
        for some in sessions.chunks(AT_ONCE) {
            try_join_all(
                some.iter()
                    .map(|session| call.shop.engine.sign_in(*session)),
            )
            .await?;
        }
        let minted = sessions.iter().map(|session| session.mint(&call.shop.keys));
        let minted = minted
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|fault| BackendError::Unexpected(format!("a session: {fault}")))?;
        Reply::ok(&json!({ "sessions": minted }))
    })
    .await
}
