//! One call of the reserve script for each reservation: what batches are measured against. Nothing that
//! ships turns it on.

use lua_free_rules::refusal::Refusal;
use redis::Value;
use redis::aio::ConnectionLike;

use super::keys::Keys;
use super::stock::Selling;
use super::told::Reservations;
use super::{Options, Redis, scripts, stock, told};
use crate::{EngineError, Reserve, Reserved, Result, bounds};

/// Reserves over connections of the caller's. The script is the engine's own, with the session's check in
/// front: all that a batch does, in one round trip.
pub struct OneCall {
    keys: Keys,
    stream_max: u64,
}

impl OneCall {
    /// With the names of keys and the stream's bound of an engine.
    pub fn new(options: &Options) -> Self {
        Self {
            keys: Keys::new(&options.prefix),
            stream_max: options.stream_max,
        }
    }

    /// What [`crate::Stock::reserve`] does.
    ///
    /// # Errors
    /// Those of [`crate::Stock::reserve`]; [`EngineError::Unavailable`] also for whatever a connection or
    /// Redis says: nothing is tried again.
    pub async fn reserve<C: ConnectionLike>(
        &self,
        connection: &mut C,
        request: &Reserve,
    ) -> Result<Reserved> {
        bounds::check_request(request)?;
        if request.session.buyer != request.access.buyer {
            return Err(Refusal::TokenInvalid.into());
        }
        let selling = Selling::of(&request.access);
        let mut call = scripts::RESERVE_ONE.prepare_invoke();
        call.key(self.keys.meta(selling.promo));
        call.key(self.keys.session(request.session.id));
        for word in stock::words(self.stream_max, selling, &[request])? {
            call.arg(word);
        }
        let answers: Vec<Value> = call
            .invoke_async(connection)
            .await
            .map_err(|error| EngineError::Unavailable(error.to_string()))?;
        let is_signed_out =
            |answer: &Value| matches!(answer, Value::BulkString(it) if it == b"E|not_signed_in|");
        if answers.iter().any(is_signed_out) {
            return Err(Refusal::NotSignedIn.into());
        }
        let (common, answers) = Reservations::read(answers)?;
        let answer = answers.first().ok_or_else(|| told::odd("no answer"))?;
        common.reserved(request, answer)
    }
}

impl Redis {
    /// Takes the Redis that runs now for one whose memory is good: it was started for a measurement.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn trust(&self) -> Result<()> {
        self.vouch().await
    }
}
