//! A sale over time, put together again from the ledger's movements: what was available, what each
//! buyer held, when it was open, and how many places its door had.

use std::collections::{HashMap, HashSet};

use lua_free_rules::units::{BuyerId, Generation, OrderId, Timestamp};

use super::REOPEN_MS;
use crate::audit::{AuditedTerms, PromoAudit};
use crate::ledger::{Movement, Past, PastOrder, Steering};

/// A stretch of time, its ends included: what happens within one millisecond has no order here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// First moment.
    pub from: Timestamp,
    /// Last moment.
    pub to: Timestamp,
}

impl Span {
    const fn meets(self, other: Self) -> bool {
        self.from.0 <= other.to.0 && other.from.0 <= self.to.0
    }

    /// The same, begun so much earlier.
    pub const fn earlier_by(self, ms: i64) -> Self {
        Self {
            from: self.from.plus_ms(-ms),
            to: self.to,
        }
    }
}

const FOR_EVER: Timestamp = Timestamp(i64::MAX);

/// One publishing of the promo, while it was the current one.
#[derive(Debug)]
struct Era {
    generation: Generation,
    span: Span,
    terms: Option<AuditedTerms>,
    /// Each change of stock, and the units available after it.
    changes: Vec<(Timestamp, i64)>,
    /// Each publishing of units, and the units published by then.
    supplies: Vec<(Timestamp, i64)>,
}

impl Era {
    /// What was available, stretch by stretch.
    fn stretches(&self) -> impl Iterator<Item = (Span, i64)> {
        let ends = self.changes.iter().skip(1).map(|change| change.0);
        let ends = ends.chain([self.span.to]);
        let each = self.changes.iter().zip(ends);
        each.map(|(&(from, available), to)| (Span { from, to }, available))
    }

    fn published_until(&self, at: Timestamp) -> i64 {
        let before = self.supplies.iter().take_while(|supply| supply.0 <= at);
        before.last().map_or(0, |supply| supply.1)
    }
}

/// A promo's sale over time.
pub(super) struct Sale<'a> {
    eras: Vec<Era>,
    held: HashMap<BuyerId, Vec<(Generation, Timestamp, i64)>>,
    orders: HashMap<OrderId, &'a PastOrder>,
    past: &'a Past,
    /// Stretches in which nothing was available.
    empty: Vec<Span>,
    /// Stretches in which the flag "sold out" may have stood.
    flagged: Vec<Span>,
}

impl<'a> Sale<'a> {
    /// The sale of `past`. `silences` are stretches in which the shop answered nobody, in order.
    pub fn new(past: &'a Past, audits: &[&PromoAudit], silences: &[Span]) -> Self {
        let eras = eras(past, audits);
        let empty: Vec<Span> = eras
            .iter()
            .flat_map(Era::stretches)
            .filter(|(_, available)| *available == 0)
            .map(|(stretch, _)| stretch)
            .collect();
        let late = |stretch: &Span| reopened_late(*stretch, silences);
        let flagged = empty.iter().map(late).collect();
        Self {
            eras,
            held: held(past),
            orders: past.orders.iter().map(|order| (order.id, order)).collect(),
            past,
            empty,
            flagged,
        }
    }

    /// The order, if the ledger has it.
    pub fn order(&self, id: OrderId) -> Option<&'a PastOrder> {
        self.orders.get(&id).copied()
    }

    /// Whether nothing was available at some moment.
    pub fn was_sold_out(&self, span: Span) -> bool {
        self.empty.iter().any(|stretch| stretch.meets(span))
    }

    /// Whether fewer than `amount` units were available at some moment.
    pub fn was_too_little(&self, span: Span, amount: u32) -> bool {
        let mut stretches = self.eras.iter().flat_map(Era::stretches);
        stretches.any(|(stretch, left)| left < i64::from(amount) && stretch.meets(span))
    }

    /// Whether buyers may have been told "sold out" at some moment.
    pub fn was_flagged(&self, span: Span) -> bool {
        self.flagged.iter().any(|flagged| flagged.meets(span))
    }

    /// Whether the buyer held so much at some moment that `amount` more were beyond the limit.
    pub fn was_at_limit(&self, buyer: BuyerId, span: Span, amount: u32) -> bool {
        self.met(span).any(|era| {
            let Some(terms) = era.terms else { return true };
            self.most_held(buyer, begun(self.past, era.generation), span) + i64::from(amount)
                > i64::from(terms.per_buyer_limit)
        })
    }

    fn most_held(&self, buyer: BuyerId, generation: Generation, span: Span) -> i64 {
        let steps = self.held.get(&buyer).map_or(&[][..], Vec::as_slice);
        let (mut now, mut most) = (0, 0);
        for &(_, at, delta) in steps.iter().filter(|step| step.0 == generation) {
            if at > span.to {
                break;
            }
            if at >= span.from {
                most = most.max(now);
            }
            now += delta;
        }
        most.max(now)
    }

    /// Whether the promo was outside its window, closed, or not published, at some moment.
    pub fn was_shut(&self, span: Span) -> bool {
        let closed = self.past.steering.iter().find(|s| s.1 == Steering::Close);
        let first = self.eras.first().map_or(FOR_EVER, |era| era.span.from);
        span.from < first
            || closed.is_some_and(|(at, _)| *at <= span.to)
            || self.met(span).any(|era| {
                era.terms
                    .is_none_or(|terms| span.from < terms.starts_at || span.to >= terms.ends_at)
            })
    }

    /// Whether an operator had paused the promo at some moment. A pause ends up to `slack_ms` after
    /// the call that resumed it began.
    pub fn was_paused(&self, span: Span, slack_ms: i64) -> bool {
        let steering = &self.past.steering;
        let mut pauses = steering
            .iter()
            .enumerate()
            .filter(|(_, s)| s.1 == Steering::Pause);
        pauses.any(|(at, &(from, _))| {
            let resumed = steering.iter().skip(at).find(|s| s.1 == Steering::Resume);
            let to = resumed.map_or(FOR_EVER, |(at, _)| at.plus_ms(slack_ms));
            Span { from, to }.meets(span)
        })
    }

    /// Whether more than one publishing was current within `span`.
    pub fn changed(&self, span: Span) -> bool {
        self.met(span).count() > 1
    }

    /// The fewest places that the door had when `span` began; nothing if that is not known.
    pub fn places_at(&self, span: Span) -> Option<i64> {
        let places = |era: &Era| {
            let door = era.terms.map(|terms| i64::from(terms.door))?;
            Some(era.published_until(span.from) * door)
        };
        self.met(span).map(places).min().flatten()
    }

    /// The most places that the door ever had, and how long a token lives, if there was one
    /// publishing only.
    pub fn door(&self) -> Option<(i64, AuditedTerms)> {
        match self.eras.as_slice() {
            [era] => {
                let terms = era.terms?;
                let places = era.published_until(FOR_EVER) * i64::from(terms.door);
                Some((places, terms))
            }
            _ => None,
        }
    }

    /// How long an access token of that time lives.
    pub fn token_ttl_ms(&self, span: Span) -> Option<i64> {
        self.met(span)
            .map(|era| era.terms.map(|terms| terms.token_ttl_ms))
            .min()
            .flatten()
    }

    /// When the sale of that time ends.
    pub fn ends_at(&self, span: Span) -> Option<Timestamp> {
        self.met(span)
            .map(|era| era.terms.map(|terms| terms.ends_at))
            .min()
            .flatten()
    }

    /// How many buyers with orders are not among `crowd`.
    pub fn others(&self, crowd: &HashSet<i64>) -> usize {
        let orders = self.past.orders.iter();
        let others: HashSet<_> = orders
            .map(|order| order.buyer.0)
            .filter(|buyer| !crowd.contains(buyer))
            .collect();
        others.len()
    }

    fn met(&self, span: Span) -> impl Iterator<Item = &Era> {
        self.eras.iter().filter(move |era| era.span.meets(span))
    }
}

fn eras(past: &Past, audits: &[&PromoAudit]) -> Vec<Era> {
    let mut eras: Vec<Era> = Vec::new();
    for movement in &past.movements {
        if eras
            .last()
            .is_none_or(|era| era.generation != movement.generation)
        {
            if let Some(before) = eras.last_mut() {
                before.span.to = movement.at;
            }
            let audit = audits.iter().find(|a| a.generation == movement.generation);
            eras.push(Era {
                generation: movement.generation,
                span: Span {
                    from: movement.at,
                    to: FOR_EVER,
                },
                terms: audit.and_then(|audit| audit.terms),
                changes: Vec::new(),
                supplies: Vec::new(),
            });
        }
        let Some(era) = eras.last_mut() else { continue };
        add(&mut era.changes, movement);
        if movement.is_supply {
            add(&mut era.supplies, movement);
        }
    }
    eras
}

fn add(sums: &mut Vec<(Timestamp, i64)>, movement: &Movement) {
    let before = sums.last().map_or(0, |last| last.1);
    sums.push((movement.at, before + movement.delta));
}

fn held(past: &Past) -> HashMap<BuyerId, Vec<(Generation, Timestamp, i64)>> {
    let mut owners: HashMap<OrderId, BuyerId> = HashMap::new();
    let mut held: HashMap<BuyerId, Vec<_>> = HashMap::new();
    for movement in &past.movements {
        let Some(order) = movement.order else {
            continue;
        };
        if let Some(buyer) = movement.buyer {
            owners.insert(order, buyer);
        }
        if let Some(buyer) = owners.get(&order) {
            let step = (
                begun(past, movement.generation),
                movement.at,
                -movement.delta,
            );
            held.entry(*buyer).or_default().push(step);
        }
    }
    for steps in held.values_mut() {
        // A unit of an earlier generation may come back while a later one goes on with it.
        steps.sort_by_key(|step| step.1);
    }
    held
}

/// The generation in which the sale began that `generation` goes on with: rebuilt engines raise it, and
/// the limit of a buyer counts over all of them.
fn begun(past: &Past, generation: Generation) -> Generation {
    let mut first = generation;
    while past.rebuilt.contains(&first) {
        // Numbers may be left out.
        let at = past
            .movements
            .partition_point(|movement| movement.generation < first);
        let Some(before) = at.checked_sub(1) else {
            break;
        };
        first = past.movements[before].generation;
    }
    first
}

/// How long the flag may have stood for which nothing was available during `stretch`: buyers are told
/// of stock that came back at most once a second, and while the shop is away nobody is told.
fn reopened_late(stretch: Span, silences: &[Span]) -> Span {
    let mut to = stretch.to.plus_ms(REOPEN_MS);
    for silence in silences {
        if silence.from <= to && silence.to >= stretch.to {
            to = to.plus_ms(silence.to.ms_since(silence.from));
        }
    }
    Span { to, ..stretch }
}
