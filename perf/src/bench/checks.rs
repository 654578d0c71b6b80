//! What it costs to check a signature: the rules alone, in a loop on one thread.

use engine::{Clock as _, SystemClock};
use lua_free_rules::keys::KeyRing;
use lua_free_rules::token::{Access, Session};
use serde::Serialize;

use super::Failure;
use super::credentials::Credentials;
use super::load;

/// How often each is checked in a round.
const TIMES: usize = 20_000;

/// Processor time of one check, round by round, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Checks {
    /// Of a session that is good.
    pub session_us: Vec<f64>,
    /// Of an access token that is good.
    pub token_us: Vec<f64>,
    /// Of an access token that somebody else signed.
    pub forged_us: Vec<f64>,
}

/// Measures them.
///
/// # Errors
/// If one is not judged as it should be.
pub fn measure(
    ring: &KeyRing,
    buyers: &[Credentials],
    forged: &[Credentials],
    rounds: usize,
) -> Result<Checks, Failure> {
    let now = SystemClock.now();
    let mut checks = Checks {
        session_us: Vec::new(),
        token_us: Vec::new(),
        forged_us: Vec::new(),
    };
    for _ in 0..rounds {
        let session = |buyer: &Credentials| Session::verify(&buyer.session, ring, now).is_ok();
        let token = |buyer: &Credentials| Access::verify(&buyer.token, ring, now, 0).is_ok();
        checks.session_us.push(each_us(buyers, session)?);
        checks.token_us.push(each_us(buyers, token)?);
        checks
            .forged_us
            .push(each_us(forged, |buyer| !token(buyer))?);
    }
    Ok(checks)
}

fn each_us(
    buyers: &[Credentials],
    is_right: impl Fn(&Credentials) -> bool,
) -> Result<f64, Failure> {
    let before = load::own_cpu_ns()?;
    let judged = buyers.iter().cycle().take(TIMES);
    let right = judged.filter(|buyer| is_right(buyer)).count();
    let used = load::own_cpu_ns()? - before;
    if right != TIMES {
        return Err("a signature was judged wrongly".into());
    }
    Ok(used as f64 / 1e3 / TIMES as f64)
}
