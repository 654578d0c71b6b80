//! Pictures and proof-of-work puzzles, made in advance on threads where work may take its time, so that
//! giving one out costs the request nothing. When the stock is gone, a bounded number of requests wait
//! for one to be made; the rest are told to come back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use altcha::{CreateChallengeOptions, SolveChallengeOptions, create_challenge, solve_challenge};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use captcha_rs::CaptchaBuilder;
use lua_free_rules::config;
use lua_free_rules::refusal::Refusal;
use prometheus::IntGauge;
use tokio::sync::{Notify, Semaphore};

/// Puzzles made in one go for the stock.
const BATCH: usize = 8;
/// Puzzles made at once for requests that found the stock empty.
const MAKING_MAX: usize = 2;
/// Requests that wait for one to be made.
const WAITING_MAX: usize = 256;
/// A puzzle that cannot be made is tried again; after this many times something is wrong.
const ATTEMPTS: usize = 3;

/// A picture and the code on it.
#[derive(Clone)]
pub(crate) struct Image {
    pub jpeg: Bytes,
    pub code: String,
}

/// A proof-of-work puzzle and the key that solves it, in hex.
#[derive(Clone)]
pub(crate) struct Proof {
    pub challenge: altcha::Challenge,
    pub key: String,
}

type Make<T> = dyn Fn() -> Option<T> + Send + Sync;

/// A stock of one kind.
pub(crate) struct Pool<T> {
    ready: Mutex<VecDeque<T>>,
    size: usize,
    low: Notify,
    making: Semaphore,
    waiting: Semaphore,
    make: Box<Make<T>>,
    gauge: IntGauge,
}

impl<T: Send + 'static> Pool<T> {
    pub fn new(
        size: usize,
        gauge: IntGauge,
        make: impl Fn() -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        Self {
            ready: Mutex::default(),
            size,
            low: Notify::new(),
            making: Semaphore::new(MAKING_MAX),
            waiting: Semaphore::new(WAITING_MAX),
            make: Box::new(make),
            gauge,
        }
    }

    /// Keeps the stock full until the task is dropped.
    pub async fn refill(self: Arc<Self>) {
        loop {
            while self.len() < self.size {
                let pool = self.clone();
                let batch = BATCH.min(self.size - self.len());
                let made = tokio::task::spawn_blocking(move || {
                    (0..batch).filter_map(|_| (pool.make)()).collect::<Vec<T>>()
                });
                match made.await {
                    Ok(made) if !made.is_empty() => self.put(made),
                    _ => break, // taking one asks again
                }
            }
            self.low.notified().await;
        }
    }

    /// One puzzle.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] if there is none and too many wait for one already.
    pub async fn take(self: &Arc<Self>) -> Result<T, Refusal> {
        let ready = self.lock().pop_front();
        self.gauge
            .set(i64::try_from(self.len()).unwrap_or(i64::MAX));
        self.low.notify_one();
        if let Some(puzzle) = ready {
            return Ok(puzzle);
        }
        let overloaded = |_| Refusal::Overloaded;
        let _waiting = self.waiting.try_acquire().map_err(overloaded)?;
        let _making = self
            .making
            .acquire()
            .await
            .map_err(|_| Refusal::Overloaded)?;
        let pool = self.clone();
        let made = tokio::task::spawn_blocking(move || (0..ATTEMPTS).find_map(|_| (pool.make)()));
        made.await.ok().flatten().ok_or(Refusal::Overloaded)
    }

    fn put(&self, made: Vec<T>) {
        self.lock().extend(made);
        self.gauge
            .set(i64::try_from(self.len()).unwrap_or(i64::MAX));
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<T>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws pictures with so many letters.
pub(crate) fn image_maker(config: &config::Puzzles) -> impl Fn() -> Option<Image> + use<> {
    let letters = config.image_letters.clamp(1, 12);
    move || {
        let width = u32::try_from(40 * letters + 20).unwrap_or(220);
        let picture = CaptchaBuilder::new()
            .length(letters)
            .width(width)
            .height(70)
            .complexity(4)
            .compression(40)
            .build();
        let data_url = picture.to_base64();
        let (_, jpeg) = data_url.split_once(',')?;
        Some(Image {
            jpeg: STANDARD.decode(jpeg).ok()?.into(),
            code: picture.text,
        })
    }
}

/// Makes puzzles whose solution is known: a fixed counter is drawn, so that one derivation gives the
/// key that a solver finds after trying all counters below it.
pub(crate) fn proof_maker(
    config: &config::Puzzles,
    secret: String,
) -> impl Fn() -> Option<Proof> + use<> {
    let cost = config.altcha_cost.max(1);
    let steps = config.altcha_steps.max(1);
    move || {
        let counter = draw_between(steps / 2, steps)?;
        let challenge = create_challenge(CreateChallengeOptions {
            algorithm: "PBKDF2/SHA-256".to_owned(),
            cost,
            counter: Some(counter),
            hmac_signature_secret: Some(secret.clone()),
            hmac_key_signature_secret: Some(secret.clone()),
            ..CreateChallengeOptions::default()
        })
        .ok()?;
        let solution = solve_challenge(SolveChallengeOptions {
            counter_start: counter,
            ..SolveChallengeOptions::new(&challenge)
        })
        .ok()??;
        // Another key with the same prefix comes once in 2^128; a solver would not find this one.
        (solution.counter == counter).then_some(Proof {
            key: solution.derived_key,
            challenge,
        })
    }
}

/// A number from `low` to `high`, both included; the bias of the remainder does not matter here.
fn draw_between(low: u32, high: u32) -> Option<u32> {
    let drawn = getrandom::u32().ok()?;
    Some(low + drawn % (high - low).saturating_add(1))
}

/// The key in what an ALTCHA widget submits: base64 of its JSON payload. `None` if it is no such thing.
pub(crate) fn key_in_payload(answer: &str) -> Option<String> {
    let payload = STANDARD.decode(answer.trim()).ok()?;
    let payload: altcha::Payload = serde_json::from_slice(&payload).ok()?;
    Some(payload.solution.derived_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> config::Puzzles {
        config::Puzzles {
            altcha_cost: 10,
            altcha_steps: 40,
            ..config::Puzzles::default()
        }
    }

    #[test]
    fn a_solver_that_counts_up_finds_the_key_we_know() {
        let make = proof_maker(&config(), "secret".to_owned());
        let proof = make().unwrap();
        let solution = solve_challenge(SolveChallengeOptions::new(&proof.challenge));
        let solution = solution.unwrap().unwrap();
        assert!((20..=40).contains(&solution.counter));
        assert_eq!(solution.derived_key, proof.key);
        assert!(proof.challenge.signature.is_some());
        let payload = altcha::Payload {
            challenge: proof.challenge,
            solution,
        };
        let sent = STANDARD.encode(serde_json::to_vec(&payload).unwrap());
        assert_eq!(key_in_payload(&sent), Some(proof.key));
        assert_eq!(key_in_payload("00ff"), None);
    }

    #[test]
    fn a_picture_is_a_jpeg_with_its_code_apart() {
        let image = image_maker(&config())().unwrap();
        assert!(image.jpeg.starts_with(&[0xff, 0xd8]));
        assert_eq!(image.code.chars().count(), config().image_letters);
    }

    #[tokio::test]
    async fn an_empty_stock_makes_one_and_too_many_are_told_to_come_back() {
        let gauge = || IntGauge::new("ready", "ready").unwrap();
        let pool = Arc::new(Pool::new(4, gauge(), || Some(1)));
        assert_eq!(pool.take().await, Ok(1));
        let refilling = tokio::spawn(pool.clone().refill());
        while pool.len() < 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.take().await, Ok(1));
        refilling.abort();
        let broken = Arc::new(Pool::new(4, gauge(), || None::<i32>));
        assert_eq!(broken.take().await, Err(Refusal::Overloaded));
        let _all = pool.waiting.try_acquire_many(WAITING_MAX as u32).unwrap();
        while pool.lock().pop_front().is_some() {}
        assert_eq!(pool.take().await, Err(Refusal::Overloaded));
    }
}
