//! Refusals: each was true at some moment between its sending and its receipt. Only what an edge says
//! from memory, when it is asked for a token, may be older, by the staleness that is allowed.

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::BuyerId;

use super::door::Door;
use super::lines::Step;
use super::orders::{Asked, Placed};
use super::sale::{Sale, Span};
use super::{At, Crowd, HistoryReport, STALE_MS};

/// What judging a refusal comes to.
enum Verdict {
    /// It was true at some moment.
    True,
    /// It never was: why.
    False(String),
    /// That cannot be told from outside.
    Unknown,
}

pub(super) fn check(
    crowd: &Crowd<'_>,
    sale: &Sale<'_>,
    placed: &Placed<'_>,
    door: &Door,
    report: &mut HistoryReport,
) {
    for at in crowd.lines.iter().filter(|at| at.line.is_refused()) {
        let line = at.line;
        let Some(from) = line.from else { continue };
        let span = Span { from, to: line.to };
        let name = name(line.code);
        let verdict = match line.step {
            Step::Token => token(at, span, sale, door),
            Step::Order => {
                let key = line.key.as_deref().unwrap_or_default();
                order(at, span, sale, placed.get(&(line.buyer, key)), door)
            }
            Step::Look | Step::Pay => of_an_order(at, span, sale),
            Step::Item | Step::State | Step::Challenge => Verdict::Unknown,
        };
        match verdict {
            Verdict::True => report.judged(name),
            Verdict::Unknown => report.left_out(name),
            Verdict::False(why) => {
                report.judged(name);
                let (place, buyer) = (at.place(), line.buyer);
                report.fault(format!(
                    "{place}: buyer {buyer} was refused ({name}): {why}"
                ));
            }
        }
    }
}

/// The shop's name of a refusal.
fn name(code: u32) -> &'static str {
    let all = [
        Refusal::BadParameter(String::new()),
        Refusal::Unexpected,
        Refusal::NotFound,
        Refusal::NotSignedIn,
        Refusal::NotAllowed,
        Refusal::SoldOut,
        Refusal::TooManyRequests { retry_after_s: 0 },
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
    let found = all.iter().find(|refusal| refusal.code() == code);
    found.map_or("other", Refusal::name)
}

fn truth(is_true: bool, otherwise: &str) -> Verdict {
    if is_true {
        Verdict::True
    } else {
        Verdict::False(otherwise.to_owned())
    }
}

/// A refusal of an access token: by the edge, from what it last heard, or by the engine.
fn token(at: &At<'_>, span: Span, sale: &Sale<'_>, door: &Door) -> Verdict {
    let heard = span.earlier_by(STALE_MS);
    let buyer = BuyerId(at.line.buyer);
    match at.line.code {
        30001 => truth(sale.was_flagged(heard), "units were available all the time"),
        30003 => truth(sale.was_shut(heard), "the sale was open all the time"),
        30006 => truth(
            sale.was_at_limit(buyer, span, 1),
            "he held fewer than one buyer may have",
        ),
        30007 => match door.most_taken(span, sale) {
            None => Verdict::Unknown,
            Some((taken, places)) if taken >= places => Verdict::True,
            Some((taken, places)) => Verdict::False(format!(
                "at most {taken} of {places} places can have been taken"
            )),
        },
        30009 => truth(
            sale.was_paused(heard, STALE_MS),
            "nobody had paused the sale",
        ),
        _ => Verdict::Unknown,
    }
}

/// A refusal of an order: by the rules on its token alone, or by the engine. The edge's memory has
/// no part in it.
fn order(
    at: &At<'_>,
    span: Span,
    sale: &Sale<'_>,
    asked: Option<&Asked<'_>>,
    door: &Door,
) -> Verdict {
    let (line, buyer) = (at.line, BuyerId(at.line.buyer));
    let amount = line.amount.unwrap_or(1);
    let made = asked.and_then(|asked| asked.made);
    let of_the_order = matches!(line.code, 30001 | 30003 | 30006 | 30009);
    if of_the_order
        && !line.is_attack
        && let Some((id, since)) = made
        && since <= span.from
    {
        return Verdict::False(format!("its key had made order {id} already"));
    }
    match line.code {
        30001 => truth(sale.was_sold_out(span), "units were available all the time"),
        10001 => truth(
            sale.was_too_little(span, amount),
            "enough units were available all the time",
        ),
        30003 => truth(sale.was_shut(span), "the sale was open all the time"),
        // The limit stands in the token too, as it was when that was issued.
        30006 => truth(
            sale.was_at_limit(buyer, span.earlier_by(i64::MAX / 2), amount),
            "he held fewer than one buyer may have",
        ),
        30009 => truth(
            sale.was_paused(span, STALE_MS),
            "nobody had paused the sale",
        ),
        30011 => truth(
            asked.is_some_and(|asked| asked.differs_until(span.to)),
            "nothing else was ever asked for under its key",
        ),
        30005 if line.is_attack => Verdict::True,
        30005 => truth(
            !door.had_token(line.buyer, span, sale),
            "his token was live",
        ),
        _ => Verdict::Unknown,
    }
}

/// A refusal to show an order, or to take its payment.
fn of_an_order(at: &At<'_>, span: Span, sale: &Sale<'_>) -> Verdict {
    let Some(id) = at.line.order else {
        return Verdict::Unknown;
    };
    let own = sale
        .order(id)
        .filter(|order| order.buyer.0 == at.line.buyer);
    match (at.line.code, own) {
        (10003, own) => truth(
            own.is_none_or(|order| order.created_at > span.from),
            "the order was his, and was there",
        ),
        (30010, Some(order)) => {
            let by_then = |at: Option<_>| at.is_some_and(|at| at <= span.to);
            let is_true = order.written_at >= span.earlier_by(STALE_MS).from
                || by_then(order.paid_at)
                || by_then(order.ended_at)
                || order.pay_by <= span.to;
            truth(is_true, "the order waited for its payment all the time")
        }
        _ => Verdict::Unknown,
    }
}
