//! `POST /order/generatetoken`: judges the answer to the challenge without I/O, then asks the engine for
//! a place behind the door, and mints the access token of the place.

use std::time::Duration;

use engine::{EngineError, Entry};
use http::header::CONTENT_TYPE;
use lua_free_rules::admission::{self, TokenDecision, TokenFacts};
use lua_free_rules::challenge::{Attempt, ENVELOPE_BYTES_MAX, Kind, Verdict as Judged, judge};
use lua_free_rules::fields::Fields;
use lua_free_rules::limit::Verdict;
use lua_free_rules::promo::Snapshot;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::{Access, Session as SignedIn};
use lua_free_rules::units::{ItemId, PromoId, Timestamp};
use serde::Serialize;

use crate::answer::Answer;
use crate::challenges::draw_nonce;
use crate::client::challenge_cookie;
use crate::edge::Edge;
use crate::puzzles::key_in_payload;
use crate::request::Request;

/// The longest answer that is read: an ALTCHA widget submits its whole payload.
const ANSWER_BYTES_MAX: usize = 4_096;
const ENGINE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issued {
    token: String,
    expires_at: Timestamp,
}

/// What the engine is asked for.
#[derive(Debug)]
pub(crate) enum Errand {
    /// To spend the attempt; then this is the answer.
    Spend(PromoId, Attempt, Refusal),
    /// For a place behind the door, for that attempt.
    Enter(PromoId, SignedIn, Option<Attempt>),
}

/// Whether a request for an access token goes to the engine, and with what.
///
/// # Errors
/// The first refusal that applies.
pub(crate) fn consider(
    edge: &Edge,
    request: &Request<'_>,
    body: &[u8],
    session: Option<SignedIn>,
    rate: Verdict,
) -> Result<Errand, Refusal> {
    session.ok_or(Refusal::NotSignedIn)?;
    let fields = Fields::from_body(request.header.text(&CONTENT_TYPE), body)?;
    let promo = PromoId(fields.id("promoId")?);
    let item = ItemId(fields.id("itemId")?);
    let (session, judged) = {
        let heard = edge.promos.heard();
        let known = heard.find(promo);
        let session = admission::may_ask(&TokenFacts {
            now: edge.now(),
            session,
            rate,
            promo: known,
            heard_ms_ago: heard.ms_ago(),
            item,
        })?;
        let known = known.ok_or(Refusal::NotFound)?;
        (
            session,
            judge_answer(edge, known, &fields, request, session)?,
        )
    };
    match admission::on_answer(judged) {
        TokenDecision::Refuse(refusal) => Err(refusal),
        TokenDecision::SpendAndRefuse(attempt, refusal) => {
            Ok(Errand::Spend(promo, attempt, refusal))
        }
        TokenDecision::AskDoor(attempt) => Ok(Errand::Enter(promo, session, attempt)),
    }
}

impl Errand {
    /// Asks the engine, and answers.
    ///
    /// # Errors
    /// What the engine, or the wrong answer, is refused with.
    pub async fn run(self, edge: &Edge) -> Result<Answer, Refusal> {
        match self {
            Self::Spend(promo, attempt, refusal) => {
                within(edge.engine.spend(promo, attempt)).await?;
                Err(refusal)
            }
            Self::Enter(promo, session, attempt) => {
                let entry = Entry {
                    promo,
                    session,
                    attempt,
                    jti: draw_nonce()?,
                };
                let access = within(edge.engine.enter(entry)).await?;
                edge.metrics.token_issued(&promo.to_string());
                grant(edge, &access)
            }
        }
    }
}

/// The verdict on the answer; `None` where the promo asks for no challenge.
fn judge_answer(
    edge: &Edge,
    promo: &Snapshot,
    fields: &Fields,
    request: &Request<'_>,
    session: SignedIn,
) -> Result<Option<Judged>, Refusal> {
    let offered = &promo.terms.challenges;
    if offered.is_empty() || offered.contains(&Kind::None) {
        return Ok(None);
    }
    let envelope = match fields.optional_text("challenge", ENVELOPE_BYTES_MAX)? {
        Some(envelope) => envelope.to_owned(),
        None => challenge_cookie(request.header)
            .ok_or_else(|| Refusal::BadParameter("`challenge` is missing".to_owned()))?,
    };
    let answer = fields.text("answer", ANSWER_BYTES_MAX)?;
    let from_widget = key_in_payload(answer);
    let answer = from_widget.as_deref().unwrap_or(answer);
    Ok(Some(judge(
        &envelope,
        answer,
        promo.promo,
        session.id,
        &edge.keys,
        edge.now(),
    )))
}

fn grant(edge: &Edge, access: &Access) -> Result<Answer, Refusal> {
    let token = access.mint(&edge.keys).map_err(|fault| {
        tracing::error!(%fault, "an access token cannot be minted");
        Refusal::Unexpected
    })?;
    Ok(Answer::success(&Issued {
        token,
        expires_at: access.expires_at,
    }))
}

/// An engine step, its failure told as the buyer is told. Giving up on one is safe: asking again
/// returns the place that it may have charged.
async fn within<T>(step: impl Future<Output = engine::Result<T>>) -> Result<T, Refusal> {
    match tokio::time::timeout(ENGINE_TIMEOUT, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(EngineError::Refused(refusal))) => Err(refusal),
        Ok(Err(EngineError::Unavailable(detail))) => {
            tracing::warn!(detail, "the engine is not available");
            Err(Refusal::Overloaded)
        }
        Err(_) => {
            tracing::warn!("the engine did not answer in time");
            Err(Refusal::Overloaded)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use engine::Publish;
    use http::request::Parts;
    use lua_free_rules::limit::Arrival;
    use lua_free_rules::units::{BuyerId, Nonce};
    use serde_json::{Value, json};

    use super::*;
    use crate::challenges;
    use crate::edge::tests::edge;
    use crate::promos::tests::snapshot;
    use crate::puzzles::{Image, Pool};

    const PASS: Verdict = Verdict::Pass(Arrival(0));

    fn edge_with_picture(folder: &std::path::Path) -> Edge {
        let mut edge = edge(folder);
        let gauge = edge.metrics.images_ready.clone();
        edge.images = Arc::new(Pool::new(0, gauge, || {
            Some(Image {
                jpeg: Bytes::from_static(b"a picture of aB3d5"),
                code: "aB3d5".to_owned(),
            })
        }));
        edge
    }

    fn request() -> Parts {
        let request = http::Request::post("/").header(CONTENT_TYPE, "application/json");
        request.body(()).unwrap().into_parts().0
    }

    fn json_of(answer: Answer) -> Value {
        serde_json::from_slice::<Value>(&answer.body).unwrap()["data"].clone()
    }

    #[tokio::test]
    async fn the_code_in_the_picture_opens_the_door_once() {
        let files = tempfile::tempdir().unwrap();
        let (edge, plain) = (edge_with_picture(files.path()), request());
        let mut terms = snapshot().terms;
        terms.challenges = vec![Kind::Image];
        let publish = Publish {
            promo: PromoId(7),
            terms,
            digest: String::new(),
            only_first: true,
        };
        edge.engine.publish(publish).await.unwrap();
        assert!(edge.promos.poll(&edge.engine).await);
        let buyer = |number: u8| SignedIn {
            buyer: BuyerId(number.into()),
            id: Nonce([number; 16]),
            expires_at: Timestamp(90_000),
        };
        let ask = async |session, answer: &str| {
            let body = Bytes::from_static(br#"{"promoId":7}"#);
            let plain = Request::from(&plain);
            let errand = challenges::consider(&edge, &plain, &body, Some(session), PASS);
            let issued = errand.unwrap().run(&edge).await;
            let challenge = json_of(issued.unwrap())["challenge"].clone();
            let body = json!({"promoId": 7, "itemId": 3, "challenge": challenge, "answer": answer});
            Bytes::from(body.to_string())
        };
        let answer = async |session, body: &Bytes| {
            let errand = consider(&edge, &Request::from(&plain), body, Some(session), PASS);
            errand?.run(&edge).await
        };
        edge.engine.sign_in(buyer(1)).await.unwrap();
        let body = ask(buyer(1), " AB3D5 ").await;
        let granted = answer(buyer(1), &body).await;
        assert!(json_of(granted.unwrap())["token"].is_string());
        edge.engine.sign_in(buyer(2)).await.unwrap();
        let stolen = answer(buyer(2), &body).await;
        assert_eq!(stolen.unwrap_err(), Refusal::ChallengeFailed);
        let wrong = ask(buyer(2), "aB3d6").await;
        let refused = answer(buyer(2), &wrong).await;
        assert_eq!(refused.unwrap_err(), Refusal::ChallengeFailed);
    }
}
