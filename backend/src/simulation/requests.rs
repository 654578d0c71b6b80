//! What buyers, providers and operators send, and the way of each through the real code: the rules at the
//! edge, then the order server, then the engine. Each is a future of its own, so that it can be held up,
//! overtaken and killed.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use engine::{
    Control, Door as _, EngineError, Entry, Promos as _, Publish, Reserved, Sessions as _,
};
use lua_free_rules::admission::{
    OrderFacts, TokenDecision, TokenFacts, may_ask, may_order, on_answer,
};
use lua_free_rules::challenge::{Attempt, judge};
use lua_free_rules::keys::KeyRing;
use lua_free_rules::limit::{Arrival, Verdict};
use lua_free_rules::order::State;
use lua_free_rules::promo::Snapshot;
use lua_free_rules::purchase::Purchase;
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::{Access, Session};
use lua_free_rules::units::{Nonce, OrderId, PromoId, Timestamp};

use super::house::{House, ITEM};
use super::line::Line;
use crate::error::Result;
use crate::ledger::PaymentState;
use crate::payment::Notice;

/// A request as it travels: it can arrive late, twice, or never.
#[derive(Debug, Clone)]
pub enum Request {
    /// For an access token.
    Token {
        /// The session's text.
        session: String,
        /// In which promo.
        promo: PromoId,
        /// Challenge and answer, if he has them.
        answered: Option<(String, String)>,
        /// The id that a new token would have.
        jti: Nonce,
    },
    /// To create an order.
    Order {
        /// The session's text.
        session: String,
        /// What is bought.
        purchase: Purchase,
    },
    /// To pay by the button.
    Pay(Session, OrderId),
    /// To cancel.
    Cancel(Session, OrderId),
    /// A provider's notice.
    Notice(Notice),
    /// To sign in.
    SignIn(Session),
    /// To sign out.
    SignOut(Session),
    /// An operator publishes.
    Publish(Publish),
    /// An operator steers.
    Control(PromoId, Control),
}

/// What was answered.
pub enum Said {
    /// An access token, and the challenge that was answered for it.
    Token(Access, String, Option<Attempt>),
    /// The order.
    Order(Box<Reserved>),
    /// How the order stands.
    State(State),
    /// What became of a payment.
    Payment(PaymentState),
    /// It is done.
    Done(&'static str),
}

/// Work under way.
pub type Work = Pin<Box<dyn Future<Output = Result<Said>>>>;

/// What the edge has heard of the promos, and when.
pub type Heard = (Timestamp, Arc<[Snapshot]>);

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |text: &str| text[text.len().saturating_sub(6)..].to_owned();
        match self {
            Self::Token {
                session,
                promo,
                answered,
                jti,
            } => {
                let answer = answered.as_ref().map(|(_, answer)| answer);
                write!(
                    f,
                    "token {jti} of promo {promo} in session …{}, answer {answer:?}",
                    end(session)
                )
            }
            Self::Order { session, purchase } => {
                let (asked, key) = (purchase.digest(), &purchase.key);
                let token = end(&purchase.token);
                write!(
                    f,
                    "order {asked} under {key:?} with token …{token} in session …{}",
                    end(session)
                )
            }
            Self::Pay(session, order) => write!(f, "pay {order} by {}", session.buyer),
            Self::Cancel(session, order) => write!(f, "cancel {order} by {}", session.buyer),
            Self::Notice(notice) => {
                write!(
                    f,
                    "payment {} of {} for {}",
                    notice.payment, notice.amount, notice.order
                )
            }
            Self::SignIn(session) => write!(f, "sign {} in, in {}", session.buyer, session.id),
            Self::SignOut(session) => write!(f, "sign {} out of {}", session.buyer, session.id),
            Self::Publish(publish) => write!(f, "publish {} as {:?}", publish.promo, publish.terms),
            Self::Control(promo, control) => write!(f, "{control:?} of promo {promo}"),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(access, text, _) => {
                let end = &text[text.len().saturating_sub(6)..];
                write!(f, "token {} for {}, …{end}", access.jti, access.buyer)
            }
            Self::Order(reserved) => {
                let (made, repeated) = (reserved.reservation, reserved.repeated);
                let (amount, buyer) = (made.amount, made.buyer);
                write!(
                    f,
                    "202 {} of {amount} for {buyer}, repeated {repeated}",
                    made.order
                )
            }
            Self::State(state) => write!(f, "{}", state.name()),
            Self::Payment(state) => write!(f, "payment {}", state.name()),
            Self::Done(what) => write!(f, "{what}"),
        }
    }
}

impl Request {
    /// Whose line it takes.
    pub const fn who(&self) -> &'static str {
        match self {
            Self::Token { .. } => "token",
            Self::Order { .. } => "order",
            Self::Pay(..) => "pay",
            Self::Cancel(..) => "cancel",
            Self::Notice(_) => "notice",
            Self::SignIn(_) => "sign_in",
            Self::SignOut(_) => "sign_out",
            Self::Publish(_) => "publish",
            Self::Control(..) => "control",
        }
    }

    /// The way of the request.
    pub fn work(self, house: &House, line: &Arc<Line>, heard: &Heard) -> Work {
        let line = line.clone();
        let now = engine::Clock::now(house.clock.as_ref());
        match self {
            Self::Token {
                session,
                promo,
                answered,
                jti,
            } => {
                let (keys, heard) = (house.keys.clone(), heard.clone());
                Box::pin(async move {
                    let entry = at_the_edge(&keys, &heard, now, &session, promo, answered, jti);
                    let entry = match entry? {
                        Asks::Door(entry) => entry,
                        Asks::Spend(attempt, refusal) => {
                            line.spend(promo, attempt).await?;
                            return Err(refusal.into());
                        }
                    };
                    let attempt = entry.attempt;
                    let access = line.enter(entry).await?;
                    let token = access.mint(&keys).unwrap();
                    Ok(Said::Token(access, token, attempt))
                })
            }
            Self::Order { session, purchase } => {
                let reservations = house.reservations(&line);
                Box::pin(async move {
                    let keys = &reservations.keys;
                    let resubmit_for = reservations.resubmit_for.ms();
                    let session = Session::verify(&session, keys, now).ok();
                    may_order(&OrderFacts {
                        session,
                        rate: Verdict::Pass(Arrival::default()),
                        token: Access::verify(&purchase.token, keys, now, resubmit_for),
                        promo: purchase.promo,
                        item: purchase.item,
                        amount: purchase.amount,
                    })?;
                    let session = session.ok_or(Refusal::NotSignedIn)?;
                    let reserved = reservations.make(session, &purchase).await?;
                    Ok(Said::Order(Box::new(reserved)))
                })
            }
            Self::Pay(session, order) => {
                let (ledger, payments) = (house.ledger.clone(), house.payments(&line));
                Box::pin(async move {
                    check_live(&line, session).await?;
                    let found = ledger.order(order).await?.ok_or(Refusal::NotFound)?;
                    if found.buyer != session.buyer {
                        return Err(Refusal::NotFound.into());
                    }
                    if found.state != State::Written || now >= found.pay_by {
                        return Err(found.in_other_state().into());
                    }
                    let button = payments.button().unwrap().clone();
                    let notice = button.charge(&found).await?;
                    let payment = payments.receive(button.as_ref(), &notice).await?;
                    Ok(Said::Payment(payment.state))
                })
            }
            Self::Cancel(session, order) => {
                let ledger = house.ledger.clone();
                Box::pin(async move {
                    check_live(&line, session).await?;
                    let order = ledger.cancel(order, session.buyer, now).await?;
                    Ok(Said::State(order.state))
                })
            }
            Self::Notice(notice) => {
                let payments = house.payments(&line);
                Box::pin(async move {
                    let provider = payments.button().unwrap().clone();
                    let payment = payments.receive(provider.as_ref(), &notice).await?;
                    Ok(Said::Payment(payment.state))
                })
            }
            steered => Box::pin(async move {
                match steered {
                    Self::SignIn(session) => line.sign_in(session).await?,
                    Self::SignOut(session) => line.sign_out(session).await?,
                    Self::Publish(publish) => {
                        let (published, _) = line.publish(publish).await?;
                        return Ok(Said::Done(match published {
                            engine::Published::New => "published",
                            engine::Published::Unchanged => "published before",
                        }));
                    }
                    Self::Control(promo, control) => {
                        line.control(promo, control).await?;
                        return Ok(Said::Done(match control {
                            Control::Pause => "paused",
                            Control::Resume => "resumed",
                            Control::Close => "closed",
                            Control::AddStock(_) => "stock added",
                        }));
                    }
                    _ => {}
                }
                Ok(Said::Done("session"))
            }),
        }
    }
}

enum Asks {
    Door(Entry),
    Spend(Attempt, Refusal),
}

/// What the edge does with a request for a token before it asks the engine.
fn at_the_edge(
    keys: &KeyRing,
    heard: &Heard,
    now: Timestamp,
    session: &str,
    promo: PromoId,
    answered: Option<(String, String)>,
    jti: Nonce,
) -> std::result::Result<Asks, Refusal> {
    let known = heard.1.iter().find(|each| each.promo == promo);
    let session = may_ask(&TokenFacts {
        now,
        session: Session::verify(session, keys, now).ok(),
        rate: Verdict::Pass(Arrival::default()),
        promo: known,
        heard_ms_ago: Some(now.ms_since(heard.0)),
        item: ITEM,
    })?;
    let asks_nothing = known.is_none_or(|promo| promo.terms.challenges.is_empty());
    let judged = match answered {
        _ if asks_nothing => None,
        None => return Err(Refusal::BadParameter("`challenge` is missing".to_owned())),
        Some((envelope, answer)) => Some(judge(&envelope, &answer, promo, session.id, keys, now)),
    };
    match on_answer(judged) {
        TokenDecision::Refuse(refusal) => Err(refusal),
        TokenDecision::SpendAndRefuse(attempt, refusal) => Ok(Asks::Spend(attempt, refusal)),
        TokenDecision::AskDoor(attempt) => Ok(Asks::Door(Entry {
            promo,
            session,
            attempt,
            jti,
        })),
    }
}

async fn check_live(line: &Line, session: Session) -> Result<()> {
    match line.is_signed_in(session).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::NotSignedIn.into()),
        Err(EngineError::Refused(refusal)) => Err(refusal.into()),
        Err(error) => Err(error.into()),
    }
}
