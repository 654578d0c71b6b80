//! The door, seen from outside: buyers who held a place for certain never outnumber the places, and a
//! door that was said to be full could have been full.

use std::collections::HashMap;

use lua_free_rules::units::Timestamp;

use super::lines::Step;
use super::sale::{Sale, Span};
use super::{Crowd, HistoryReport};
use crate::ledger::Past;

/// Tokens are issued and expire at whole seconds.
const WHOLE_SECOND_MS: i64 = 1_000;

/// What the crowd knows of the door.
pub(super) struct Door {
    /// When each buyer may first have had a place, in order.
    first: Vec<Timestamp>,
    /// Until when each buyer's first token lived for certain, and since when it was there.
    tokens: HashMap<i64, Token>,
    /// The most buyers that held a place for certain at one time, when, and the places there were.
    fullest: Option<(i64, Timestamp, i64)>,
    /// Whether buyers who are in no history came too.
    has_others: bool,
}

/// A token, as far as it is certain.
#[derive(Debug, Clone, Copy)]
struct Token {
    /// Earliest moment at which it may have been issued.
    issued: Timestamp,
    /// When it was there for certain; absent while no answer brought it.
    there: Option<Timestamp>,
}

impl Door {
    pub fn of(crowd: &Crowd<'_>, past: &Past, sale: &Sale<'_>) -> Self {
        let mut tokens: HashMap<i64, Token> = HashMap::new();
        for at in crowd.lines.iter().filter(|at| at.line.step == Step::Token) {
            let (line, granted) = (at.line, at.line.is_granted());
            let Some(from) = line.from.filter(|_| granted || line.is_open()) else {
                continue;
            };
            let token = tokens.entry(line.buyer).or_insert(Token {
                issued: from,
                there: None,
            });
            token.issued = token.issued.min(from);
            if granted {
                token.there = Some(token.there.map_or(line.to, |there| there.min(line.to)));
            }
        }
        let mut first: Vec<Timestamp> = tokens.values().map(|token| token.issued).collect();
        first.sort_unstable();
        Self {
            first,
            fullest: fullest(&tokens, past, sale),
            tokens,
            has_others: sale.others(&crowd.buyers) > 0,
        }
    }

    /// Whether more buyers were let in than there are places.
    pub fn check(&self, report: &mut HistoryReport) {
        if let Some((held, at, places)) = self.fullest
            && held > places
        {
            report.fault(format!(
                "the door: {held} buyers held a place at {}, there are {places}",
                at.to_rfc3339()
            ));
        }
    }

    /// The most places that can have been taken by `span`'s end, and how many there were; nothing if
    /// that cannot be known.
    pub fn most_taken(&self, span: Span, sale: &Sale<'_>) -> Option<(i64, i64)> {
        let places = sale.places_at(span)?;
        let taken = self.first.partition_point(|first| *first <= span.to);
        (!self.has_others).then_some((i64::try_from(taken).unwrap_or(i64::MAX), places))
    }

    /// Whether a token of the buyer lived through all of `span` for certain.
    pub fn had_token(&self, buyer: i64, span: Span, sale: &Sale<'_>) -> bool {
        self.tokens.get(&buyer).is_some_and(|token| {
            let issued = Span {
                from: token.issued,
                to: span.to,
            };
            let lives = sale.token_ttl_ms(issued).unwrap_or(0) - WHOLE_SECOND_MS;
            let ends = sale.ends_at(issued).unwrap_or(span.to);
            !sale.changed(issued)
                && token.there.is_some_and(|there| there <= span.from)
                && span.to < token.issued.plus_ms(lives)
                && span.to < ends
        })
    }
}

/// Counts places held for certain: by a token from its receipt until the earliest moment at which it
/// can have expired, by an order from its making until its end.
fn fullest(
    tokens: &HashMap<i64, Token>,
    past: &Past,
    sale: &Sale<'_>,
) -> Option<(i64, Timestamp, i64)> {
    let (places, terms) = sale.door()?;
    let mut held: HashMap<i64, Vec<Span>> = HashMap::new();
    for (buyer, token) in tokens {
        let to = token.issued.plus_ms(terms.token_ttl_ms - WHOLE_SECOND_MS);
        let to = to.min(terms.ends_at);
        if let Some(from) = token.there.filter(|from| *from < to) {
            held.entry(*buyer).or_default().push(Span { from, to });
        }
    }
    for order in &past.orders {
        held.entry(order.buyer.0).or_default().push(Span {
            from: order.created_at,
            to: order.ended_at.unwrap_or(Timestamp(i64::MAX)),
        });
    }
    let mut steps = Vec::new();
    for mut spans in held.into_values() {
        spans.sort_unstable_by_key(|span| span.from);
        let mut until: Option<Timestamp> = None;
        for span in spans {
            match until {
                // One place a buyer, whatever it is held by.
                Some(end) if span.from <= end => until = Some(end.max(span.to)),
                _ => {
                    if let Some(end) = until {
                        steps.push((end, 0, -1));
                    }
                    steps.push((span.from, 1, 1));
                    until = Some(span.to);
                }
            }
        }
        if let Some(end) = until {
            steps.push((end, 0, -1));
        }
    }
    steps.sort_unstable();
    let (mut now, mut fullest) = (0_i64, None::<(i64, Timestamp, i64)>);
    for (at, _, step) in steps {
        now += step;
        if fullest.is_none_or(|(most, ..)| now > most) {
            fullest = Some((now, at, places));
        }
    }
    fullest
}
