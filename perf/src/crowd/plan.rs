//! What each buyer is going to do, before any of it is done: when they come, how long they think, and
//! which of them give up, resend, double-click, hang up or cheat. It follows from the seed alone, so
//! a run can be played again.

use std::str::FromStr;
use std::time::Duration;

use lua_free_rules::units::Millis;
use serde::{Deserialize, Serialize};

use super::dice::Dice;

/// How a buyer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// Buys and pays.
    Plain,
    /// Leaves at some point without a word.
    GivesUp(Leaves),
    /// Sends the order once more after its answer.
    Resends,
    /// Sends the order twice at once, under one key.
    DoubleClicks,
    /// Hangs up before the order's answer has come, then sends it again.
    HangsUp,
    /// Orders with a token that must not be accepted.
    Attacks(Attack),
}

/// When a buyer who gives up leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaves {
    /// Having seen the item.
    AfterLooking,
    /// With a token, and a place behind the door.
    WithToken,
    /// With an order that is never paid.
    WithOrder,
}

/// What is wrong with an attacker's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attack {
    /// Well made, but signed by a key of the attacker's own.
    Forged,
    /// The attacker's own valid token, changed afterwards.
    Altered,
    /// A valid token of somebody else.
    Foreign,
}

/// Which part of the crowd behaves in which way; the rest is plain.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Shares {
    /// Give up.
    pub give_up: f64,
    /// Resend.
    pub resend: f64,
    /// Double-click.
    pub double_click: f64,
    /// Hang up.
    pub hang_up: f64,
    /// Attack.
    pub attack: f64,
}

impl Shares {
    /// All shares together; more than 1 cannot be.
    pub fn sum(&self) -> f64 {
        self.give_up + self.resend + self.double_click + self.hang_up + self.attack
    }

    fn draw(&self, dice: &mut Dice) -> Manner {
        let mut left = dice.share();
        let choice = dice.below(3);
        let leaves = [Leaves::AfterLooking, Leaves::WithToken, Leaves::WithOrder];
        let attacks = [Attack::Forged, Attack::Altered, Attack::Foreign];
        let at = usize::try_from(choice).unwrap_or(0);
        let manners = [
            (self.give_up, Manner::GivesUp(leaves[at])),
            (self.resend, Manner::Resends),
            (self.double_click, Manner::DoubleClicks),
            (self.hang_up, Manner::HangsUp),
            (self.attack, Manner::Attacks(attacks[at])),
        ];
        for (share, manner) in manners {
            if left < share {
                return manner;
            }
            left -= share;
        }
        Manner::Plain
    }
}

/// How think times are distributed. Written `exp:200ms`, `fixed:0ms` or `uniform:100ms..500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Think {
    /// Always the same.
    Fixed(Duration),
    /// Exponential, by its mean.
    Exponential(Duration),
    /// Any length between two, equally likely.
    Uniform(Duration, Duration),
}

impl Think {
    fn draw(self, dice: &mut Dice) -> Duration {
        // Every distribution takes one draw, so that changing it changes nothing else in the plan.
        match self {
            Self::Fixed(length) => {
                dice.draw();
                length
            }
            Self::Exponential(mean) => dice.exponential(mean),
            Self::Uniform(least, most) => least + dice.up_to(most.saturating_sub(least)),
        }
    }
}

impl FromStr for Think {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = || format!("`{text}`: write `exp:200ms`, `fixed:0ms` or `uniform:100ms..500ms`");
        let length = |part: &str| {
            Millis::try_from(part.to_owned())
                .map(Millis::duration)
                .map_err(|_| hint())
        };
        let (kind, rest) = text.split_once(':').ok_or_else(hint)?;
        match kind {
            "fixed" => Ok(Self::Fixed(length(rest)?)),
            "exp" => Ok(Self::Exponential(length(rest)?)),
            "uniform" => {
                let (least, most) = rest.split_once("..").ok_or_else(hint)?;
                let (least, most) = (length(least)?, length(most)?);
                if least <= most {
                    Ok(Self::Uniform(least, most))
                } else {
                    Err(hint())
                }
            }
            _ => Err(hint()),
        }
    }
}

/// When buyers come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Open loop: everyone at a moment drawn evenly from so long.
    Within(Duration),
    /// Open loop: so many a second on average, independent of each other.
    Poisson(f64),
    /// Open loop: so many a second, evenly spaced.
    Even(f64),
    /// Closed loop: so many at a time; the next comes when one is done.
    Closed(usize),
}

/// The stream of dice that arrivals are drawn from; buyers have the streams from 0 up.
const ARRIVALS_STREAM: u64 = u64::MAX;

impl Arrivals {
    /// When each of `buyers` comes, counted from the start, in order. Empty in a closed loop.
    pub fn offsets(&self, seed: u64, buyers: usize) -> Vec<Duration> {
        let mut dice = Dice::new(seed, ARRIVALS_STREAM);
        let mut offsets: Vec<Duration> = match *self {
            Self::Within(length) => (0..buyers).map(|_| dice.up_to(length)).collect(),
            Self::Even(rate) => (0..buyers)
                .map(|n| Duration::from_secs_f64(n as f64 / rate))
                .collect(),
            Self::Poisson(rate) => {
                let gap = Duration::from_secs_f64(1.0 / rate);
                let mut at = Duration::ZERO;
                let mut next = || {
                    at += dice.exponential(gap);
                    at
                };
                (0..buyers).map(|_| next()).collect()
            }
            Self::Closed(_) => Vec::new(),
        };
        offsets.sort_unstable();
        offsets
    }
}

/// What the plan of a crowd is made from.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// Everything follows from it.
    pub seed: u64,
    /// Who behaves how.
    pub shares: Shares,
    /// How long they think.
    pub think: Think,
    /// The most units one asks for.
    pub amount_max: u32,
}

/// The plan of one buyer.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How they behave.
    pub manner: Manner,
    /// How long they look at the item.
    pub looks: Duration,
    /// How long they wait with their token before they order.
    pub decides: Duration,
    /// How long they wait before they pay.
    pub pays: Duration,
    /// How many units they want.
    pub amount: u32,
    /// The idempotency key of their order.
    pub key: String,
    /// For what depends on the answers: the spread of retries, the change made to a token.
    pub dice: Dice,
}

impl Crowd {
    /// The plan of the buyer at `index`.
    pub fn plan(&self, index: usize) -> Plan {
        let mut dice = Dice::new(self.seed, index as u64);
        let manner = self.shares.draw(&mut dice);
        let looks = self.think.draw(&mut dice);
        let decides = self.think.draw(&mut dice);
        let pays = self.think.draw(&mut dice);
        let drawn = dice.below(u64::from(self.amount_max.max(1)));
        let key = dice.key();
        let amount = 1 + u32::try_from(drawn).unwrap_or(0);
        Plan {
            manner,
            looks,
            decides,
            pays,
            amount,
            key,
            dice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn crowd(seed: u64) -> Crowd {
        let shares = Shares {
            give_up: 0.3,
            resend: 0.1,
            double_click: 0.1,
            hang_up: 0.1,
            attack: 0.15,
        };
        let think = Think::Exponential(Duration::from_millis(200));
        Crowd {
            seed,
            shares,
            think,
            amount_max: 3,
        }
    }

    fn in_words(crowd: &Crowd) -> Vec<String> {
        (0..500)
            .map(|index| format!("{:?}", crowd.plan(index)))
            .collect()
    }

    #[test]
    fn a_seed_is_a_crowd() {
        assert_eq!(in_words(&crowd(7)), in_words(&crowd(7)));
        assert_ne!(in_words(&crowd(7)), in_words(&crowd(8)));
        for arrivals in [
            Arrivals::Within(Duration::from_secs(5)),
            Arrivals::Poisson(100.0),
            Arrivals::Even(9.0),
        ] {
            let offsets = arrivals.offsets(7, 300);
            assert_eq!(offsets, arrivals.offsets(7, 300));
            assert!(offsets.is_sorted());
            assert_eq!(offsets.len(), 300);
        }
        assert!(
            Arrivals::Within(Duration::from_secs(5))
                .offsets(1, 300)
                .iter()
                .all(|at| { *at < Duration::from_secs(5) })
        );
    }

    #[test]
    fn keys_never_meet_and_shares_are_kept() {
        let crowd = crowd(3);
        let mut manners: HashMap<Manner, usize> = HashMap::new();
        let mut keys = std::collections::HashSet::new();
        for index in 0..20_000 {
            let plan = crowd.plan(index);
            *manners.entry(plan.manner).or_default() += 1;
            assert!(keys.insert(plan.key), "buyer {index}");
            assert!((1..=3).contains(&plan.amount));
        }
        assert_eq!(
            manners.len(),
            10,
            "every way to behave is drawn: {manners:?}"
        );
        let plain = manners[&Manner::Plain];
        assert!(
            (4_600..5_400).contains(&plain),
            "a quarter is plain: {plain}"
        );
        let forged = manners[&Manner::Attacks(Attack::Forged)];
        assert!((850..1_150).contains(&forged), "a third of 15 %: {forged}");
    }

    #[test]
    fn think_times_are_read_as_they_are_written() {
        let ms = Duration::from_millis;
        assert_eq!("fixed:0ms".parse(), Ok(Think::Fixed(ms(0))));
        assert_eq!("exp:1s".parse(), Ok(Think::Exponential(ms(1_000))));
        assert_eq!(
            "uniform:100ms..500ms".parse(),
            Ok(Think::Uniform(ms(100), ms(500)))
        );
        for bad in [
            "",
            "200ms",
            "exp:",
            "uniform:1s",
            "uniform:2s..1s",
            "normal:1s",
        ] {
            assert!(bad.parse::<Think>().is_err(), "{bad}");
        }
    }

    #[test]
    fn another_think_time_leaves_the_rest_of_the_plan() {
        let (one, mut other) = (crowd(5), crowd(5));
        other.think = Think::Fixed(Duration::ZERO);
        for index in 0..100 {
            let (one, other) = (one.plan(index), other.plan(index));
            assert_eq!((one.manner, &one.key), (other.manner, &other.key));
        }
    }
}
