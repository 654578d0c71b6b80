//! Records of who is signed in, each a key that Redis forgets when the session ends.
//!
//! A step checks the session's record just before it is taken, not inside it: sessions and promos do
//! not share a slot of a cluster. A request that began after a sign-out was answered is refused; one
//! that was under way may be taken, as if it had come a moment earlier.

use async_trait::async_trait;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::Session;
use redis::{Pipeline, pipe};

use super::Redis;
use super::batch::Asked;
use super::link::{Link, Repeat};
use super::scripts::{self, Call};
use crate::{Result, Sessions};

#[async_trait]
impl Sessions for Redis {
    async fn sign_in(&self, session: Session) -> Result<()> {
        let words = [session.buyer.0, session.expires_at.0].map(|word| word.to_string());
        let call = Call::new(&scripts::SIGN_IN, self.link.keys.session(session.id), words);
        let recorded: i64 = self.link.call(&call, Repeat::Safe).await?;
        // An id that is another buyer's was not drawn by chance.
        if recorded == 0 {
            return Err(Refusal::NotAllowed.into());
        }
        Ok(())
    }

    async fn is_signed_in(&self, session: Session) -> Result<bool> {
        let alive = look(&self.link, &[session]).await?;
        Ok(alive == [true])
    }

    async fn sign_out(&self, session: Session) -> Result<()> {
        let words = [session.buyer.0.to_string()];
        let call = Call::new(
            &scripts::SIGN_OUT,
            self.link.keys.session(session.id),
            words,
        );
        let _: i64 = self.link.call(&call, Repeat::Safe).await?;
        Ok(())
    }
}

/// Those of a batch whose sessions are alive; the others are refused.
pub(super) async fn alive<Q, T>(
    link: &Link,
    batch: Vec<Asked<Q, Result<T>>>,
    session_of: impl Fn(&Q) -> Session,
) -> Vec<Asked<Q, Result<T>>> {
    let sessions: Vec<Session> = batch
        .iter()
        .map(|(request, _)| session_of(request))
        .collect();
    match look(link, &sessions).await {
        Ok(alive) => batch
            .into_iter()
            .zip(alive)
            .filter_map(|(asked, is_alive)| {
                if is_alive {
                    return Some(asked);
                }
                // The caller may have gone away, here and below.
                let _ = asked.1.send(Err(Refusal::NotSignedIn.into()));
                None
            })
            .collect(),
        Err(error) => {
            for (_, reply) in batch {
                let _ = reply.send(Err(error.clone()));
            }
            Vec::new()
        }
    }
}

/// Whether each session has a record of the same buyer and has not ended, by the clock of Redis.
async fn look(link: &Link, sessions: &[Session]) -> Result<Vec<bool>> {
    if sessions.is_empty() {
        return Ok(Vec::new());
    }
    let mut all: Pipeline = pipe();
    all.cmd("TIME");
    all.cmd("MGET");
    for session in sessions {
        all.arg(link.keys.session(session.id));
    }
    let mut answers = link.ask_all(&all, Repeat::Safe).await?.into_iter();
    let (seconds, micros): (i64, i64) = link.read(answers.next())?;
    let now = seconds * 1_000 + micros / 1_000;
    let kept: Vec<Option<String>> = link.read(answers.next())?;
    let mut kept = kept.into_iter();
    sessions
        .iter()
        .map(|session| {
            let kept = kept.next().flatten();
            let record = kept.as_deref().and_then(|kept| kept.split_once('|'));
            Ok(record.is_some_and(|(buyer, expires_at)| {
                buyer.parse() == Ok(session.buyer.0)
                    && expires_at.parse().is_ok_and(|end: i64| now < end)
            }))
        })
        .collect()
}
