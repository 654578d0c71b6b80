//! From what was asked for and what the promo says to what is played.

use std::time::Duration;

use tokio::time::Instant;

use super::clock::Clock;
use super::desk::Promo;
use super::error::CrowdError;
use super::plan::{Arrivals, Crowd, Shares};
use super::report::Settings;
use super::stage::Scene;
use crate::cli;

/// A moment between making ready and the first arrival, so that every thread is there.
const LEAD: Duration = Duration::from_millis(200);

/// What is played. Without a promo, what the ceiling is measured with.
///
/// # Errors
/// If it cannot be played.
pub fn scene(asked: &cli::Crowd, seed: u64, promo: Option<&Promo>) -> Result<Scene, CrowdError> {
    let shares = shares(asked);
    if shares.sum() > 1.0 {
        let words = format!(
            "the shares add up to {:.2}: at most 1 is there",
            shares.sum()
        );
        return Err(CrowdError::Settings(words));
    }
    let offered = promo.map_or(&[][..], |promo| &promo.challenge);
    let offers = |kind: &str| offered.iter().any(|offered| offered == kind);
    if !offered.is_empty() && !offers("none") && !offers("altcha") {
        let words = format!("the promo asks for {offered:?}, which a crowd cannot answer");
        return Err(CrowdError::Settings(words));
    }
    let think = asked.think().map_err(CrowdError::Settings)?;
    Ok(Scene {
        promo: asked.promo,
        item: asked.item.or(promo.map(|promo| promo.item_id)).unwrap_or(1),
        per_buyer_limit: promo.map_or(1, |promo| promo.per_buyer_limit),
        proof_of_work: offers("altcha") && !offers("none"),
        crowd: Crowd {
            seed,
            shares,
            think,
            amount_max: asked.amount,
        },
        timeout: asked.timeout,
        patience: asked.patience,
        tries: asked.tries,
        door_tries: asked.door_tries,
        poll: asked.poll,
    })
}

const fn shares(asked: &cli::Crowd) -> Shares {
    Shares {
        give_up: asked.give_up,
        resend: asked.resend,
        double_click: asked.double_click,
        hang_up: asked.hang_up,
        attack: asked.attack,
    }
}

/// What the report says was asked for.
pub fn settings(asked: &cli::Crowd, seed: u64, scene: &Scene) -> Settings {
    let arrivals = match (asked.rate, asked.concurrency) {
        (Some(rate), _) if asked.even => Arrivals::Even(rate),
        (Some(rate), _) => Arrivals::Poisson(rate),
        (None, Some(at_a_time)) => Arrivals::Closed(at_a_time as usize),
        (None, None) => Arrivals::Within(asked.within.unwrap_or(Duration::from_secs(5))),
    };
    Settings {
        url: asked.url.clone(),
        promo: scene.promo,
        item: scene.item,
        seed,
        buyers: asked.buyers as usize,
        arrivals,
        think: asked.think.clone(),
        shares: shares(asked),
        connections: asked.connections(),
        threads: asked.threads as usize,
    }
}

/// The moment of the first arrival: now, or the promo's start if that lies ahead.
///
/// # Errors
/// If nothing is sold, or not soon enough.
pub fn begin(promo: &Promo, clock: Clock, time_limit: Duration) -> Result<Instant, CrowdError> {
    let soon = Instant::now() + LEAD;
    match promo.phase.as_str() {
        "live" => Ok(soon),
        "upcoming" => {
            let opens = clock
                .at_wall_ms(promo.starts_at - promo.server_ahead_ms)
                .max(soon);
            if opens > soon + time_limit {
                let words = "the sale opens later than --time-limit from now".to_owned();
                return Err(CrowdError::Settings(words));
            }
            Ok(opens)
        }
        phase => Err(CrowdError::Prepare(format!(
            "nothing is sold: the promo is {phase}"
        ))),
    }
}
