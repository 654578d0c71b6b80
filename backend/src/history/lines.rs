//! Reads a crowd's history (format 1, described in `perf/README.md`): one JSON object a line, written
//! by the client alone.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use lua_free_rules::units::{OrderId, Timestamp};
use serde::Deserialize;

use super::CLOCK_DRIFT_MS;

/// The version of the format that is read.
const VERSION: u32 = 1;
/// Longest line.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not one of the format's.
    #[error("{}:{line}: {why}", path.display())]
    Line {
        /// Of which file.
        path: PathBuf,
        /// Which, from 1.
        line: u32,
        /// Why.
        why: String,
    },
}

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The item.
    Item,
    /// The promo's state.
    State,
    /// A challenge.
    Challenge,
    /// An access token.
    Token,
    /// An order.
    Order,
    /// What has become of an order.
    Look,
    /// To pay.
    Pay,
}

/// One request and what the client was told. Its times are on the server's clock, as far apart as
/// the client cannot exclude.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u32,
    /// Who asked.
    pub buyer: i64,
    /// The promo.
    pub promo: i64,
    /// What was asked.
    pub step: Step,
    /// The idempotency key of an order.
    pub key: Option<Box<str>>,
    /// The units asked for.
    pub amount: Option<u32>,
    /// Whether the token was wrong on purpose.
    pub is_attack: bool,
    /// Not sent before; absent if nothing was sent.
    pub from: Option<Timestamp>,
    /// Not received after.
    pub to: Timestamp,
    /// The HTTP status; 0 without an answer.
    pub status: u16,
    /// The error code of a refusal; 0 if the answer named none.
    pub code: u32,
    /// Whether there is no answer that can be read.
    pub is_lost: bool,
    /// The order that was answered, looked at or paid.
    pub order: Option<OrderId>,
    /// Its state in the answer.
    pub state: Option<Box<str>>,
}

impl Line {
    /// Whether the shop said yes.
    pub const fn is_granted(&self) -> bool {
        !self.is_lost && self.status >= 200 && self.status < 300
    }

    /// Whether it may have been done although nobody said so.
    pub const fn is_open(&self) -> bool {
        self.from.is_some() && (self.is_lost || self.status >= 500)
    }

    /// Whether the shop said no.
    pub const fn is_refused(&self) -> bool {
        !self.is_lost && self.status >= 400
    }
}

/// A history, whole.
#[derive(Debug, Clone)]
pub struct History {
    /// Where it was read.
    pub path: PathBuf,
    /// The promo that was played.
    pub promo: i64,
    /// Its lines, in their order.
    pub lines: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opening {
    history: u32,
    promo: i64,
    server_ahead_ms: i64,
    server_ahead_error_ms: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    buyer: i64,
    promo: i64,
    step: Step,
    key: Option<Box<str>>,
    amount: Option<u32>,
    attack: Option<Box<str>>,
    sent_at: Option<i64>,
    received_at: i64,
    status: u16,
    err_code: Option<u32>,
    lost: Option<Box<str>>,
    order_id: Option<OrderId>,
    state: Option<Box<str>>,
}

impl Written {
    fn on_the_servers_clock(self, number: u32, opening: &Opening) -> Line {
        let unsure = opening
            .server_ahead_error_ms
            .max(0)
            .saturating_add(CLOCK_DRIFT_MS);
        let there = |ms: i64, unsure: i64| {
            Timestamp(
                ms.saturating_add(opening.server_ahead_ms)
                    .saturating_add(unsure),
            )
        };
        Line {
            number,
            buyer: self.buyer,
            promo: self.promo,
            step: self.step,
            key: self.key,
            amount: self.amount,
            is_attack: self.attack.is_some(),
            from: self.sent_at.map(|at| there(at, -unsure)),
            to: there(self.received_at, unsure),
            status: self.status,
            code: self.err_code.unwrap_or(0),
            is_lost: self.lost.is_some() || self.status == 0,
            order: self.order_id,
            state: self.state,
        }
    }
}

impl History {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or a line is not one of the format's: nothing is judged on a part.
    pub fn read(path: &Path) -> Result<Self, HistoryError> {
        let in_file = |source| HistoryError::File {
            path: path.to_owned(),
            source,
        };
        let mut file = BufReader::new(File::open(path).map_err(in_file)?);
        let mut opening: Option<Opening> = None;
        let (mut lines, mut number, mut bytes) = (Vec::new(), 0_u32, Vec::new());
        loop {
            bytes.clear();
            let mut limited = (&mut file).take(LINE_BYTES_MAX);
            if limited.read_until(b'\n', &mut bytes).map_err(in_file)? == 0 {
                break;
            }
            number = number.saturating_add(1);
            let wrong = |why: String| HistoryError::Line {
                path: path.to_owned(),
                line: number,
                why,
            };
            if bytes.pop() != Some(b'\n') {
                return Err(wrong("the line is cut off, or too long".to_owned()));
            }
            match &opening {
                None => opening = Some(open(&bytes).map_err(wrong)?),
                Some(opening) => {
                    let read: Written =
                        serde_json::from_slice(&bytes).map_err(|why| wrong(why.to_string()))?;
                    lines.push(read.on_the_servers_clock(number, opening));
                }
            }
        }
        match opening {
            Some(opening) => Ok(Self {
                path: path.to_owned(),
                promo: opening.promo,
                lines,
            }),
            None => Err(HistoryError::Line {
                path: path.to_owned(),
                line: 1,
                why: "the file is empty".to_owned(),
            }),
        }
    }
}

fn open(bytes: &[u8]) -> Result<Opening, String> {
    let opening: Opening = serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
    if opening.history == VERSION {
        Ok(opening)
    } else {
        let version = opening.history;
        Err(format!(
            "the history has version {version}, version {VERSION} can be read"
        ))
    }
}
