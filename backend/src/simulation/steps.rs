//! What can happen in a step of a simulated sale, and how the sale comes to rest.

use std::sync::Arc;
use std::time::Duration;

use engine::{Control, OrderStream, Publish};
use lua_free_rules::challenge::{Draft, Kind};
use lua_free_rules::promo::Terms;
use lua_free_rules::purchase::Purchase;
use lua_free_rules::units::{BuyerId, ItemId, Millis, Money, Nonce, PromoId};

use super::house::ITEM;
use super::invariants::{Check, Invariant, demand};
use super::line::{Line, Plan};
use super::requests::{Request, Said};
use super::sale::Sale;
use super::sweepers::{self, SWEEPERS};
use crate::audit::audit;
use crate::error::Result;
use crate::payment::Notice;
use crate::writer::OrderWriter;

const PROMOS: [PromoId; 2] = [PromoId(7), PromoId(8)];
/// What reads the picture.
const ANSWER: &str = "aB3d5";
/// Longer than a sweeper's lease.
const LEASE_OVER_MS: i64 = 6_000;
/// Rounds in which a sale must come to rest.
const REST_ROUNDS_MAX: u32 = 8;

impl Sale {
    /// One step. Whether every promise still holds is asked after each piece of work in it, and at its end.
    pub async fn step(&mut self) -> Check {
        match self.random.below(100) {
            0..=39 => self.buyer_acts(),
            40..=44 => self.provider_tells(),
            45..=54 => self.writer_runs().await?,
            55..=62 => self.sweeper_runs().await?,
            63 | 64 => self.house.engine.tend().await.unwrap(),
            65..=70 => self.operator_acts(),
            71..=79 => self.time_passes(),
            80 => self.clock_is_set(),
            81 => self.crash().await,
            82..=87 => self.resume_one().await?,
            88 => self.give_one_up(),
            89 => self.come_to_rest().await?,
            _ => {}
        }
        if self.random.chance(60) || self.heard.1.is_empty() {
            self.edge_hears().await;
        }
        for _ in 0..self.random.below(3) {
            self.network_delivers().await?;
        }
        self.check()
    }

    /// Mostly a sale is published before anyone comes.
    pub fn open(&mut self) {
        for promo in PROMOS {
            if self.random.chance(80) {
                self.publish(promo);
            }
        }
    }

    fn publish(&mut self, promo: PromoId) {
        let request = self.proposal(promo);
        self.books.propose(promo, &request.digest, &request.terms);
        self.send(Request::Publish(request));
    }

    /// What befalls a piece of work.
    fn plan(&mut self) -> Plan {
        let at = [0, 0, 1, 1, 2, 3][self.random.index(6)];
        match self.random.below(24) {
            0 | 1 => Plan::Pause(at),
            2 => Plan::DieBefore(at),
            3 => Plan::DieAfter(at),
            4 => Plan::DieAtLedger(at),
            5 => Plan::DieInCommit(at),
            6 => Plan::Away(at),
            7 => Plan::LoseAnswer(at),
            _ => Plan::Through,
        }
    }

    /// One of the requests that are under way arrives: in any order, now and then twice or never.
    async fn network_delivers(&mut self) -> Check {
        if self.network.is_empty() {
            return Ok(());
        }
        // The newest mostly: what was sent long ago is of little use by now.
        let at = match self.random.below(2) {
            0 => self.network.len() - 1,
            _ => self.random.index(self.network.len()),
        };
        if at > 0 {
            self.tally.count("fault", "request overtook another");
        }
        let mut request = self.network.remove(at);
        match self.random.below(20) {
            0 => {
                self.tally.count("fault", "request lost");
                return Ok(());
            }
            1..=3 => {
                self.tally.count("fault", "request delivered twice");
                self.network.push(request.clone());
            }
            _ => {}
        }
        if let Request::Token { jti, .. } = &mut request {
            // The edge draws it, for each that arrives.
            *jti = self.random.nonce();
        }
        self.note(format!("arrives: {request}"));
        let plan = self.plan();
        self.serve(request, plan).await
    }

    async fn edge_hears(&mut self) {
        let (at, promos) = self.house.engine.promos().await.unwrap();
        self.heard = (at, promos.into());
    }

    fn send(&mut self, request: Request) {
        self.sent.push(request.clone());
        self.network.push(request);
    }

    fn buyer_acts(&mut self) {
        let who = self.random.index(self.sessions.len());
        let (session, text) = self.sessions[who].clone();
        let promo = PROMOS[usize::from(self.random.chance(10))];
        match self.random.below(30) {
            0..=8 => {
                let answered = self.answer(session.id, promo);
                let (session, jti) = (text, Nonce([0; 16]));
                self.send(Request::Token {
                    session,
                    promo,
                    answered,
                    jti,
                });
            }
            9..=20 => self.order(),
            21 | 22 => {
                // Not every session's orders are its own.
                if let Some((made, mut session)) = self.recent_order() {
                    if self.random.chance(5) {
                        session = self.sessions[who].0;
                    }
                    self.send(Request::Pay(session, made.order));
                }
            }
            23 => {
                if let Some((made, session)) = self.recent_order() {
                    self.send(Request::Cancel(session, made.order));
                }
            }
            24..=27 => {
                if let Some(request) = self.random.pick(&self.sent) {
                    self.tally.count("fault", "request repeated by its sender");
                    self.network.push(request);
                }
            }
            28 => self.send(Request::SignOut(session)),
            _ => self.send(Request::SignIn(session)),
        }
    }

    /// A challenge that is given out now, and an answer: mostly the right one.
    fn answer(&mut self, session: Nonce, promo: PromoId) -> Option<(String, String)> {
        let is_another_session = self.random.chance(3);
        let draft = Draft {
            kind: Kind::Image,
            id: self.random.nonce(),
            promo,
            session: if is_another_session {
                self.random.nonce()
            } else {
                session
            },
            expires_at: self.now().plus_ms(30_000),
            answer: ANSWER,
        };
        let envelope = draft.seal(&self.house.keys);
        match self.random.below(20) {
            0 => None,
            1 | 2 => Some((envelope, "wrong".to_owned())),
            _ => Some((envelope, ANSWER.to_owned())),
        }
    }

    /// With the newest token mostly; now and then with any that ever was, or another's session.
    fn order(&mut self) {
        let newest = self.tokens.len().saturating_sub(3);
        let from = [0, newest, newest, newest][self.random.index(4)];
        let token = self.random.pick(&self.tokens[from..]);
        let Some((buyer, promo, token)) = token else {
            return;
        };
        let buyer = if self.random.chance(3) {
            BuyerId(1)
        } else {
            buyer
        };
        let own: Vec<String> = self
            .sessions
            .iter()
            .filter(|(session, _)| session.buyer == buyer)
            .map(|(_, text)| text.clone())
            .collect();
        let session = self.random.pick(&own).unwrap();
        let key = match self.random.below(3) {
            0 => None,
            _ => Some(format!("key-{}", self.random.below(5))),
        };
        let item = if self.random.chance(2) {
            ItemId(4)
        } else {
            ITEM
        };
        let purchase = Purchase {
            item,
            promo,
            amount: [1, 1, 1, 1, 2, 3][self.random.index(6)],
            token,
            key,
        };
        self.send(Request::Order { session, purchase });
    }

    fn recent_order(&mut self) -> Option<(engine::Reservation, lua_free_rules::token::Session)> {
        let from = self.orders.len().saturating_sub(6);
        self.random.pick(&self.orders[from..])
    }

    /// A provider tells of a payment: in time or late, once or twice, now and then of a wrong amount, or
    /// of another one than before.
    fn provider_tells(&mut self) {
        if self.random.chance(20)
            && let Some(mut notice) = self.random.pick(&self.notices)
        {
            self.tally.count("fault", "payment told twice");
            if self.random.chance(5) {
                notice.amount = notice.amount.times(2);
            }
            self.send(Request::Notice(notice));
            return;
        }
        let Some((made, _)) = self.random.pick(&self.orders) else {
            return;
        };
        let amount = if self.random.chance(5) {
            Money::from_minor(1).unwrap()
        } else {
            Self::total(&made)
        };
        let notice = Notice {
            payment: format!("p{}", self.notices.len()),
            order: made.order,
            amount,
        };
        self.notices.push(notice.clone());
        self.send(Request::Notice(notice));
    }

    async fn writer_runs(&mut self) -> Check {
        if self.is_writer_slow && self.random.chance(90) {
            return Ok(());
        }
        let (plan, reads) = (self.plan(), 1 + self.random.below(3) as u32);
        let batch_max = 1 + self.random.index(6);
        let again = if self.random.chance(15) && !self.books.delivered.is_empty() {
            let from = self.random.index(self.books.delivered.len());
            let to = (from + batch_max).min(self.books.delivered.len());
            self.books.delivered[from..to].to_vec()
        } else {
            Vec::new()
        };
        let reads_ahead = self.random.chance(40);
        self.write(plan, reads, batch_max, again, reads_ahead).await
    }

    async fn write(
        &mut self,
        plan: Plan,
        reads: u32,
        batch_max: usize,
        again: Vec<engine::StreamEntry>,
        reads_ahead: bool,
    ) -> Check {
        let line = Line::new(self.house.engine.clone(), "writer", plan);
        let line = Arc::new(line.deliver(reads, again).breaking(self.sabotage));
        let writer = self.house.writer(&line, batch_max);
        let stream = line.clone();
        let work = Box::pin(async move {
            if reads_ahead {
                write_reading_ahead(&writer, stream.as_ref(), batch_max).await?;
                return Ok(Said::Done("written, reading ahead"));
            }
            writer.drain().await?;
            Ok(Said::Done("written"))
        });
        self.start("writer", None, line, work).await
    }

    async fn sweeper_runs(&mut self) -> Check {
        let holder = SWEEPERS[self.random.index(2)];
        if self.random.chance(15) {
            return self.sweeper_stands_still(holder).await;
        }
        let plan = self.plan();
        self.sweep(plan, holder).await
    }

    /// A sweeper stands still between lease and sweep until its lease is over; another one takes over,
    /// and may stand still or die there too.
    async fn sweeper_stands_still(&mut self, holder: &str) -> Check {
        self.sweep(Plan::Pause(1), holder).await?;
        self.house.clock.advance_ms(LEASE_OVER_MS);
        let another = SWEEPERS[usize::from(holder == SWEEPERS[0])];
        let plan = [Plan::Through, Plan::Pause(1), Plan::DieBefore(1)][self.random.index(3)];
        self.sweep(plan, another).await?;
        self.resume_one().await
    }

    async fn sweep(&mut self, plan: Plan, holder: &str) -> Check {
        let line = Arc::new(Line::new(self.house.engine.clone(), "sweeper", plan));
        let work = sweepers::turn(&self.house, &line, holder, self.watch.clone());
        self.start("sweeper", None, line, work).await
    }

    fn operator_acts(&mut self) {
        let promo = PROMOS[usize::from(self.random.chance(15))];
        let request = match self.random.below(24) {
            0..=6 => return self.publish(promo),
            7..=9 => Request::Control(promo, Control::Resume),
            10 => Request::Control(promo, Control::Close),
            11 => Request::Control(promo, Control::Pause),
            12..=20 => Request::Control(promo, Control::Resume),
            _ => {
                let units = self.random.below(4) as u32;
                Request::Control(promo, Control::AddStock(units))
            }
        };
        // Adding stock is the one step that its sender must not repeat blindly.
        if matches!(request, Request::Control(_, Control::AddStock(_))) {
            self.network.push(request);
        } else {
            self.send(request);
        }
    }

    fn proposal(&mut self, promo: PromoId) -> Publish {
        let terms = Terms {
            item: ITEM,
            starts_at: self.now().plus_ms(self.random.below(4_000) as i64 - 3_000),
            ends_at: self
                .now()
                .plus_ms(60_000 + self.random.below(400_000) as i64),
            price: Money::from_minor(1_000 + self.random.below(9) as i64 * 100).unwrap(),
            stock: 1 + self.random.below(9) as u32,
            door: 1 + self.random.below(3) as u32,
            per_buyer: 1 + self.random.below(4) as u32,
            pay_within: Millis::seconds(1 + self.random.below(20)),
            token_ttl: Millis::seconds(2 + self.random.below(20)),
            challenges: [vec![], vec![Kind::Image]][self.random.index(2)].clone(),
        };
        Publish {
            promo,
            terms,
            digest: self.random.nonce().to_string(),
            only_first: self.random.chance(10),
        }
    }

    fn time_passes(&mut self) {
        let ms = [1, 100, 500, 1_000, 3_000, 9_000][self.random.index(6)];
        self.house.clock.advance_ms(ms);
    }

    /// The clock is set: back as well as forward.
    fn clock_is_set(&mut self) {
        let ms = [-30_000, -5_000, -900, -1, 60_000, 200_000][self.random.index(6)];
        let way = if ms < 0 { "back" } else { "forward" };
        self.tally.count("fault", &format!("clock set {way}"));
        self.house.clock.advance_ms(ms);
        self.note(format!("the clock is set by {ms} ms"));
    }

    /// Everything under way comes to its end; then nothing is left over, and the audit is clean.
    pub async fn come_to_rest(&mut self) -> Check {
        self.resume_all().await?;
        for round in 0.. {
            self.write(Plan::Through, u32::MAX, 100, Vec::new(), false)
                .await?;
            for holder in SWEEPERS {
                self.sweep(Plan::Through, holder).await?;
            }
            let left = self.left_over();
            if left.is_none() && self.books.in_stream.is_empty() {
                break;
            }
            demand(Invariant::CleanAudit, round < REST_ROUNDS_MAX, || {
                format!("it does not come to rest: {left:?}")
            })?;
        }
        let engine = Arc::new(Line::new(self.house.engine.clone(), "audit", Plan::Through));
        let report = audit(engine.as_ref(), &self.house.ledger, None, Duration::ZERO).await;
        let report = report.unwrap();
        let is_on_its_way = report
            .promos
            .iter()
            .any(|promo| promo.books.releasing != 0 || promo.books.reserved != 0);
        demand(
            Invariant::CleanAudit,
            report.clean && !is_on_its_way,
            || format!("{report:?}"),
        )?;
        self.tally.count("check", "clean audit at rest");
        Ok(())
    }

    /// What is still on its way in the ledger.
    fn left_over(&self) -> Option<String> {
        self.house
            .ledger_rows
            .prepare_cached(
                "SELECT 'release of ' || order_id FROM releases WHERE state = 'pending' \
                 UNION ALL SELECT 'payment ' || reference FROM payments WHERE state = 'late'",
            )
            .unwrap()
            .query([])
            .unwrap()
            .next()
            .unwrap()
            .map(|row| row.get(0).unwrap())
    }
}

/// Writes as a writer at work does: the next batch is read before this one is written.
async fn write_reading_ahead(
    writer: &OrderWriter,
    stream: &dyn OrderStream,
    batch_max: usize,
) -> Result<()> {
    stream.rewind().await?;
    let mut batch = stream.read(batch_max, Duration::ZERO).await?;
    while !batch.is_empty() {
        let next = stream.read(batch_max, Duration::ZERO).await?;
        writer.write_entries(batch).await;
        batch = next;
    }
    Ok(())
}
