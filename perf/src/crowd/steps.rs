//! What buyers ask, and what comes of it: the words that tally, history and report share.

use lua_free_rules::refusal::Refusal;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A request that a buyer makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// `GET /item/get`
    Item,
    /// `GET /promo/state`
    State,
    /// `POST /order/generateverifycode`
    Challenge,
    /// `POST /order/generatetoken`
    Token,
    /// `POST /order/create`
    Order,
    /// `GET /order/get`
    Look,
    /// `POST /order/pay`
    Pay,
}

impl Step {
    /// The name in reports and in the history.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Item => "item",
            Self::State => "state",
            Self::Challenge => "challenge",
            Self::Token => "token",
            Self::Order => "order",
            Self::Look => "look",
            Self::Pay => "pay",
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// No connection: nothing was sent.
    Connect,
    /// The connection broke, or closed, before a whole answer.
    Connection,
    /// The answer did not come in time.
    Timeout,
    /// The answer is not one of the shop's.
    Unreadable,
    /// The buyer hung up on purpose.
    HungUp,
    /// The run ended.
    Stopped,
}

impl Lost {
    /// The words of reports.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Connect => "no connection",
            Self::Connection => "connection broke",
            Self::Timeout => "timeout",
            Self::Unreadable => "unreadable answer",
            Self::HungUp => "hung up on purpose",
            Self::Stopped => "the run ended",
        }
    }
}

/// How long a buyer's way took, from the moment they meant to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the first try of the order to its acceptance, resends included.
    OrderToAccepted,
    /// From acceptance until it was seen in the ledger.
    AcceptedToWritten,
    /// From arrival to acceptance, think times included.
    ArrivalToAccepted,
}

impl Way {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OrderToAccepted => "order to accepted",
            Self::AcceptedToWritten => "accepted to written",
            Self::ArrivalToAccepted => "arrival to accepted",
        }
    }
}

/// What the shop made of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It did what was asked.
    Granted,
    /// It said no, with this error code (0 where the body names none) and status.
    Refused(u32, u16),
    /// There is no answer.
    Lost(Lost),
}

/// The moments of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Moments {
    /// When the buyer meant to send: what latency is counted from.
    pub due: Instant,
    /// When the first byte was sent.
    pub sent: Option<Instant>,
    /// When it ended.
    pub ended: Instant,
}

/// The shop's name of an error code.
pub fn refusal_name(code: u32) -> &'static str {
    let known = [
        Refusal::BadParameter(String::new()),
        Refusal::Unexpected,
        Refusal::NotFound,
        Refusal::Method,
        Refusal::TooLarge,
        Refusal::MediaType,
        Refusal::NoSuchUser,
        Refusal::WrongLogin,
        Refusal::NotSignedIn,
        Refusal::NotAllowed,
        Refusal::WrongOtp,
        Refusal::NumberTaken,
        Refusal::SoldOut,
        Refusal::TooManyRequests { retry_after_s: 1 },
        Refusal::NotOpen { opens_in_s: None },
        Refusal::ChallengeFailed,
        Refusal::TokenInvalid,
        Refusal::PerBuyerLimit,
        Refusal::DoorFull,
        Refusal::Overloaded,
        Refusal::Paused,
        Refusal::OrderState {
            state: "",
            not_yet_written: false,
        },
        Refusal::KeyReused,
    ];
    known
        .iter()
        .find(|refusal| refusal.code() == code)
        .map_or("unknown", Refusal::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_shop() {
        assert_eq!(refusal_name(30001), "sold_out");
        assert_eq!(refusal_name(10005), "too_large");
        assert_eq!(refusal_name(1), "unknown");
    }
}
