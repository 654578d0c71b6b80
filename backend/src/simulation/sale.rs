//! One simulated sale: buyers, a network that reorders and repeats, servers that are held up and killed,
//! and after every step the question whether every promise still holds.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use engine::{Clock as _, Reservation};
use lua_free_rules::refusal::Refusal;
use lua_free_rules::token::Session;
use lua_free_rules::units::{BuyerId, Money, OrderId, PromoId, Timestamp};

use super::books::Books;
use super::house::{House, START};
use super::invariants::{Check, Invariant, Violation, demand};
use super::line::{Line, Plan, is_on_purpose};
use super::promises::Promises;
use super::random::Random;
use super::requests::{Heard, Request, Said, Work};
use super::sabotage::Sabotage;
use super::shelf::Shelf;
use super::sweepers::Watch;
use super::tally::Tally;
use crate::error::BackendError;
use crate::payment::Notice;

/// Lines of the trace that a failure shows.
const TRACE_MAX: usize = 40;
/// Buyers of a sale, each with two sessions.
const BUYERS: i64 = 6;
/// Most pieces of work that are held up at once.
const HELD_UP_MAX: usize = 4;

/// A sale.
pub struct Sale {
    pub random: Random,
    pub house: House,
    pub books: Books,
    pub shelf: Shelf,
    pub tally: Tally,
    pub sabotage: Option<Sabotage>,
    pub sessions: Vec<(Session, String)>,
    pub tokens: Vec<(BuyerId, PromoId, String)>,
    pub orders: Vec<(Reservation, Session)>,
    pub network: Vec<Request>,
    pub sent: Vec<Request>,
    pub notices: Vec<Notice>,
    pub heard: Heard,
    pub is_writer_slow: bool,
    pub watch: Watch,
    held_up: Vec<Job>,
    promises: Promises,
    digest: DefaultHasher,
    trace: VecDeque<String>,
}

/// A piece of work under way.
struct Job {
    who: &'static str,
    request: Option<Request>,
    line: Arc<Line>,
    work: Work,
}

/// A sale that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// The promise that was broken.
    pub violation: Violation,
    /// At which step.
    pub step: u64,
    /// What happened last.
    pub trace: Vec<String>,
}

impl Sale {
    /// The sale of a seed, before its first step.
    pub async fn new(seed: u64, sabotage: Option<Sabotage>, is_on_disk: bool) -> Self {
        let mut random = Random::new(seed);
        let house = House::build(is_on_disk).await;
        if let Some(sabotage) = sabotage {
            sabotage.break_rule(&house);
        }
        let mut sessions = Vec::new();
        for buyer in (1..=BUYERS).chain(1..=BUYERS) {
            let session = Session {
                buyer: BuyerId(buyer),
                id: random.nonce(),
                expires_at: START.plus_ms(36_000_000),
            };
            house.engine.sign_in(session).await.unwrap();
            sessions.push((session, session.mint(&house.keys).unwrap()));
        }
        Self {
            is_writer_slow: random.chance(15),
            watch: Watch::default(),
            random,
            house,
            books: Books::default(),
            shelf: Shelf::default(),
            tally: Tally::default(),
            sabotage,
            sessions,
            tokens: Vec::new(),
            orders: Vec::new(),
            network: Vec::new(),
            sent: Vec::new(),
            notices: Vec::new(),
            heard: (START, Arc::new([])),
            held_up: Vec::new(),
            promises: Promises::default(),
            digest: DefaultHasher::new(),
            trace: VecDeque::new(),
        }
    }

    /// Plays `steps` steps and comes to rest. Returns the digest of everything that happened.
    pub async fn play(&mut self, steps: u64) -> Result<u64, Box<Failure>> {
        self.open();
        for step in 0..=steps {
            let taken = if step == steps {
                self.come_to_rest().await
            } else {
                self.step().await
            };
            if let Err(violation) = taken {
                return Err(Box::new(Failure {
                    violation,
                    step,
                    trace: self.trace.drain(..).collect(),
                }));
            }
        }
        Ok(self.digest.finish())
    }

    /// Notes what happened.
    pub fn note(&mut self, what: String) {
        what.hash(&mut self.digest);
        if std::env::var_os("FLOODGATE_TRACE").is_some() {
            println!("{what}");
        }
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(what);
    }

    /// Every promise that can be seen from outside.
    pub fn check(&mut self) -> Check {
        self.watch.check()?;
        self.books.check(&self.house.engine_rows)?;
        self.shelf
            .check(&self.house.ledger_rows, &mut self.books, &mut self.tally)?;
        let in_stream: HashSet<OrderId> = self
            .books
            .in_stream
            .values()
            .filter_map(|event| event.change.reservation().map(|made| made.order))
            .collect();
        self.promises
            .meet(std::mem::take(&mut self.books.new_orders))?;
        self.promises
            .are_kept(|order| in_stream.contains(&order) || self.shelf.has(&order.to_string()))
    }

    /// Starts a request on its way; its plan says what befalls it.
    pub async fn serve(&mut self, request: Request, plan: Plan) -> Check {
        let who = request.who();
        if let Request::SignIn(session) = &request {
            // It counts from its beginning: it may take effect without an answer.
            self.promises.signs_in(*session);
        }
        let line = Line::new(self.house.engine.clone(), who, plan);
        let line = Arc::new(line.breaking(self.sabotage));
        let work = request.clone().work(&self.house, &line, &self.heard);
        self.start(who, Some(request), line, work).await
    }

    /// Starts a piece of work.
    pub async fn start(
        &mut self,
        who: &'static str,
        request: Option<Request>,
        line: Arc<Line>,
        work: Work,
    ) -> Check {
        let job = Job {
            who,
            request,
            line,
            work,
        };
        self.drive(job).await?;
        self.check()
    }

    /// Lets one that was held up go on.
    pub async fn resume_one(&mut self) -> Check {
        if self.held_up.is_empty() {
            return Ok(());
        }
        let at = self.random.index(self.held_up.len());
        let job = self.held_up.remove(at);
        job.line.resume();
        self.tally.count("fault", "went on later");
        self.drive(job).await?;
        self.check()
    }

    /// Kills one that was held up: its caller went away, or its task died.
    pub fn give_one_up(&mut self) {
        if !self.held_up.is_empty() {
            let at = self.random.index(self.held_up.len());
            let job = self.held_up.remove(at);
            self.tally.count("fault", "given up while held up");
            self.note(format!("{} is given up", job.who));
        }
    }

    /// Kills the process with everything under way in it, and starts it again.
    pub async fn crash(&mut self) {
        self.held_up.clear();
        self.house.restart().await;
        self.tally
            .count("fault", "process killed and started again");
        self.note("the process is killed and started again".to_owned());
    }

    /// Lets everything that is held up go on to its end.
    pub async fn resume_all(&mut self) -> Check {
        while !self.held_up.is_empty() {
            self.resume_one().await?;
        }
        Ok(())
    }

    async fn drive(&mut self, mut job: Job) -> Check {
        self.house.at_ledger.set(Some(job.line.clone()));
        let done = tokio::select! {
            biased;
            done = &mut job.work => Some(done),
            () = job.line.stopped() => None,
        };
        self.house.at_ledger.set(None);
        let (faults, broken) = job.line.take_notes();
        for fault in faults {
            self.tally.count("fault", &fault);
        }
        if let Some(at) = job.line.dead() {
            self.tally.count("crash", &at);
            self.note(format!("killed: {at}"));
            self.may_have_taken_effect(&job);
            drop(job);
            if self.random.chance(50) {
                self.crash().await;
            }
            return Ok(());
        }
        demand(Invariant::NothingBreaks, broken.is_none(), || {
            format!("{}: {broken:?}", job.who)
        })?;
        match done {
            None => {
                self.note(format!("{} is held up", job.who));
                self.held_up.push(job);
                if self.held_up.len() > HELD_UP_MAX {
                    self.give_one_up();
                }
                Ok(())
            }
            Some(done) => self.answered(&job, done),
        }
    }

    /// Holds an answer against all that was answered before.
    fn answered(&mut self, job: &Job, done: Result<Said, BackendError>) -> Check {
        self.note(match &done {
            Ok(said) => format!("{}: {said}", job.who),
            Err(error) => format!("{}: {error:?}", job.who),
        });
        match done {
            Ok(said) => {
                let is_heard = self.random.chance(85);
                self.tally.count("answer", answer_name(&said));
                if !is_heard {
                    self.tally.count("fault", "answer to a buyer lost");
                }
                self.believe(job, said, is_heard)
            }
            Err(BackendError::Refused(refusal)) => {
                let name = format!("{} {}", job.who, refusal.name());
                self.tally.count("refusal", &name);
                self.check_refusal(job, &refusal)
            }
            Err(BackendError::Engine(detail)) if is_on_purpose(&detail) => {
                self.may_have_taken_effect(job);
                Ok(())
            }
            Err(BackendError::Replaced(_)) => {
                self.tally.count("fault", "a replaced sweeper went on");
                Ok(())
            }
            Err(error) => demand(Invariant::NothingBreaks, false, || {
                format!("{}: {error:?}", job.who)
            }),
        }
    }

    fn check_refusal(&self, job: &Job, refusal: &Refusal) -> Check {
        let (Some(Request::Order { purchase, .. }), Refusal::SoldOut) = (&job.request, refusal)
        else {
            return Ok(());
        };
        let available = self.books.available(purchase.promo).unwrap_or_default();
        demand(Invariant::TrueRefusal, available == 0, || {
            format!("sold out was said while {available} were available")
        })
    }

    fn may_have_taken_effect(&mut self, job: &Job) {
        if let Some(Request::Order { session, purchase }) = &job.request {
            let session = self.session(session);
            self.promises.is_unanswered(session.buyer, purchase);
        }
    }

    fn believe(&mut self, job: &Job, said: Said, is_heard: bool) -> Check {
        match (said, &job.request) {
            (Said::Token(access, text, attempt), Some(Request::Token { jti, promo, .. })) => {
                if is_heard {
                    self.tokens.push((access.buyer, *promo, text));
                }
                match attempt {
                    // A token that stands already leaves the challenge unspent.
                    Some(attempt) if access.jti == *jti => self.promises.spend(attempt.id),
                    _ => Ok(()),
                }
            }
            (Said::Order(reserved), Some(Request::Order { session, purchase })) => {
                let (session, made) = (self.session(session), reserved.reservation);
                let name = ["made", "repeated"][usize::from(reserved.repeated)];
                self.tally.count("order", name);
                let is_known = |(known, _): &(Reservation, Session)| known.order == made.order;
                if is_heard && !self.orders.iter().any(is_known) {
                    self.orders.push((made, session));
                }
                self.promises.order(session, purchase, &reserved)
            }
            (Said::Done(_), Some(Request::SignOut(session))) => {
                self.promises.signs_out(*session);
                Ok(())
            }
            (Said::Done(_), Some(Request::SignIn(session))) => {
                self.promises.signs_in(*session);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The session of a request's text.
    fn session(&self, text: &str) -> Session {
        let known = self.sessions.iter().find(|(_, known)| known == text);
        known.map(|(session, _)| *session).unwrap()
    }

    /// The clock.
    pub fn now(&self) -> Timestamp {
        self.house.clock.now()
    }

    /// What an order costs.
    pub fn total(made: &Reservation) -> Money {
        made.price.times(made.amount)
    }
}

const fn answer_name(said: &Said) -> &'static str {
    match said {
        Said::Token(..) => "token",
        Said::Order(_) => "order",
        Said::State(_) => "cancelled",
        Said::Payment(crate::ledger::PaymentState::Accepted) => "payment accepted",
        Said::Payment(crate::ledger::PaymentState::Late) => "payment late",
        Said::Payment(crate::ledger::PaymentState::RefundDue) => "payment refund due",
        Said::Done(what) => what,
    }
}
