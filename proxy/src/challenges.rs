//! `/order/generateverifycode`: gives out a challenge, bound to promo and session by its envelope. No
//! record is kept until an answer spends it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use lua_free_rules::admission::{self, TokenFacts};
use lua_free_rules::challenge::{Draft, Kind};
use lua_free_rules::fields::Fields;
use lua_free_rules::limit::Verdict;
use lua_free_rules::promo::Snapshot;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::Session;
use lua_free_rules::units::{ItemId, Nonce, PromoId, Timestamp};
use serde::Serialize;

use crate::answer::Answer;
use crate::client::CHALLENGE_COOKIE;
use crate::edge::Edge;
use crate::request::Request;

/// The longest name of a kind.
const KIND_BYTES_MAX: usize = 16;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issued<'a> {
    challenge: &'a str,
    kind: Kind,
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    altcha: Option<&'a altcha::Challenge>,
}

/// Which challenge is given out.
#[derive(Debug)]
pub(crate) struct Errand {
    promo: PromoId,
    session: Session,
    kind: Kind,
    /// Whether the answer is the picture itself, for a plain form.
    as_picture: bool,
}

/// Whether a request for a challenge gets one, and which. `GET` asks for the picture itself.
///
/// # Errors
/// The first refusal that applies.
pub(crate) fn consider(
    edge: &Edge,
    request: &Request<'_>,
    body: &[u8],
    session: Option<Session>,
    rate: Verdict,
) -> Result<Errand, Refusal> {
    session.ok_or(Refusal::NotSignedIn)?;
    let as_picture = *request.method != Method::POST;
    let fields = if as_picture {
        Fields::from_query(request.query)
    } else {
        let kind = request.header.text(&CONTENT_TYPE);
        Fields::from_body(kind, body)
    }?;
    let promo = PromoId(fields.id("promoId")?);
    let wanted = fields
        .optional_text("kind", KIND_BYTES_MAX)?
        .map(|kind| kind.parse().map_err(Refusal::BadParameter))
        .transpose()?;
    let (session, kind) = admit(edge, promo, wanted, as_picture, session, rate)?;
    if as_picture && !accepts_image(request) {
        return Err(Refusal::BadParameter(
            "send `Accept: image/*`, or ask by POST".to_owned(),
        ));
    }
    Ok(Errand {
        promo,
        session,
        kind,
        as_picture,
    })
}

impl Errand {
    /// Waits for a picture or a puzzle, if none is in stock, and answers with it.
    ///
    /// # Errors
    /// If too many wait for one.
    pub async fn run(self, edge: &Edge) -> Result<Answer, Refusal> {
        edge.metrics.challenge_issued(&self.promo.to_string());
        let order = Order {
            promo: self.promo,
            session: self.session,
            expires_at: edge.now().plus_ms(edge.config.puzzles.ttl.ms()),
        };
        match self.kind {
            Kind::None => Ok(order.answer(Kind::None, "none", None, None)),
            Kind::Image => {
                let image = edge.images.take().await?;
                let sealed = order.seal(edge, Kind::Image, &image.code)?;
                if self.as_picture {
                    picture(edge, image.jpeg, &sealed)
                } else {
                    Ok(order.answer(Kind::Image, &sealed, Some(&image.jpeg), None))
                }
            }
            Kind::Altcha => {
                let proof = edge.proofs.take().await?;
                let sealed = order.seal(edge, Kind::Altcha, &proof.key)?;
                Ok(order.answer(Kind::Altcha, &sealed, None, Some(&proof.challenge)))
            }
        }
    }
}

/// Whether this request may have a challenge, and which kind.
fn admit(
    edge: &Edge,
    promo: PromoId,
    wanted: Option<Kind>,
    as_picture: bool,
    session: Option<Session>,
    rate: Verdict,
) -> Result<(Session, Kind), Refusal> {
    let heard = edge.promos.heard();
    let known = heard.find(promo);
    let session = admission::may_ask(&TokenFacts {
        now: edge.now(),
        session,
        rate,
        promo: known,
        heard_ms_ago: heard.ms_ago(),
        item: known.map_or(ItemId(0), |promo| promo.terms.item),
    })?;
    let wanted = if as_picture {
        Some(Kind::Image)
    } else {
        wanted
    };
    let known = known.ok_or(Refusal::NotFound)?;
    Ok((session, choose(known, wanted)?))
}

fn choose(promo: &Snapshot, wanted: Option<Kind>) -> Result<Kind, Refusal> {
    let offered = &promo.terms.challenges;
    let preferred = offered.first().copied().unwrap_or(Kind::None);
    match wanted {
        None => Ok(preferred),
        Some(kind) if offered.contains(&kind) || (offered.is_empty() && kind == Kind::None) => {
            Ok(kind)
        }
        Some(kind) => Err(Refusal::BadParameter(format!(
            "this promo has no challenge of kind `{kind}`"
        ))),
    }
}

fn accepts_image(request: &Request<'_>) -> bool {
    let accept = request.header.text(&ACCEPT);
    accept.is_some_and(|accept| accept.contains("image/"))
}

/// What a challenge is given out for.
struct Order {
    promo: PromoId,
    session: Session,
    expires_at: Timestamp,
}

impl Order {
    fn seal(&self, edge: &Edge, kind: Kind, answer: &str) -> Result<String, Refusal> {
        let draft = Draft {
            kind,
            id: draw_nonce()?,
            promo: self.promo,
            session: self.session.id,
            expires_at: self.expires_at,
            answer,
        };
        Ok(draft.seal(&edge.keys))
    }

    fn answer(
        &self,
        kind: Kind,
        challenge: &str,
        jpeg: Option<&Bytes>,
        altcha: Option<&altcha::Challenge>,
    ) -> Answer {
        Answer::success(&Issued {
            challenge,
            kind,
            expires_at: self.expires_at,
            image: jpeg.map(|jpeg| format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg))),
            altcha,
        })
    }
}

/// The picture itself; the envelope goes as a cookie that only `/order` sees.
fn picture(edge: &Edge, jpeg: Bytes, sealed: &str) -> Result<Answer, Refusal> {
    let secure = if edge.secure_cookies { "; Secure" } else { "" };
    let max_age_s = edge.config.puzzles.ttl.ms() / 1_000;
    let cookie = format!(
        "{CHALLENGE_COOKIE}={sealed}; Path=/order; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}"
    );
    let cookie = HeaderValue::try_from(cookie).map_err(|_| Refusal::Unexpected)?;
    let kind = HeaderValue::from_static("image/jpeg");
    Ok(Answer::new(StatusCode::OK, kind, jpeg)
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with(SET_COOKIE, cookie))
}

/// 128 bits drawn by chance.
pub(crate) fn draw_nonce() -> Result<Nonce, Refusal> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "the system gives no randomness");
        Refusal::Unexpected
    })?;
    Ok(Nonce(bytes))
}
