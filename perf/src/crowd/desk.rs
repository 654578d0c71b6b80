//! What a run asks of the shop before and after the play, as an operator: the promo's terms, signed-in
//! test buyers, the audit.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::address::Target;
use super::clock::Clock;
use super::error::CrowdError;
use super::forge;
use super::http::{Request, Response};
use super::pool::{Pool, Stay, Tcp};
use super::stage::Person;

/// Most sessions in one answer.
const BATCH: usize = 5_000;
/// Longest that one answer is waited for: 5,000 sessions are 5,000 records.
const PATIENCE: Duration = Duration::from_secs(60);

/// A promo as its state tells it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promo {
    /// What it sells.
    pub item_id: i64,
    /// Where it stands.
    pub phase: String,
    /// The server's clock.
    pub server_time: i64,
    /// Its start.
    pub starts_at: i64,
    /// Units one buyer may have.
    pub per_buyer_limit: u32,
    /// The challenges on offer, or `none`.
    pub challenge: Vec<String>,
    /// The server's clock less ours, in milliseconds.
    #[serde(skip)]
    pub server_ahead_ms: i64,
    /// How wrong that may be.
    #[serde(skip)]
    pub server_ahead_error_ms: i64,
}

/// The shop's verdict on its own books.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Audit {
    /// Whether nothing is off.
    pub clean: bool,
    /// The whole report, as it came.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Sessions {
    sessions: Vec<String>,
}

/// The operator's connection.
pub struct Desk {
    pool: Pool<Tcp>,
    token: Option<Arc<str>>,
}

impl Desk {
    /// A desk at `target`, with the operator's token where there is one.
    pub fn new(target: &Target, token: Option<Arc<str>>) -> Self {
        Self {
            pool: Pool::new(Tcp(target.address), &target.host, 1),
            token,
        }
    }

    /// The promo, and how far the server's clock is ahead.
    ///
    /// # Errors
    /// If it cannot be had.
    pub async fn promo(&self, promo: i64, clock: Clock) -> Result<Promo, CrowdError> {
        let asked = Instant::now();
        let what = format!("promo {promo}");
        let mut answer: Promo = self
            .ask(&what, Request::get(format!("/promo/state?id={promo}")))
            .await?;
        let (sent, received) = (
            clock.wall_ms_floor(asked),
            clock.wall_ms_ceil(Instant::now()),
        );
        answer.server_ahead_ms = answer.server_time - (sent + received) / 2;
        answer.server_ahead_error_ms = (received - sent + 1) / 2;
        Ok(answer)
    }

    /// Test buyers, signed in, the first of them the shop's test account number `from`.
    ///
    /// # Errors
    /// If the shop does not make any, or not as many as were asked for.
    pub async fn people(&self, from: u64, count: usize) -> Result<Arc<[Person]>, CrowdError> {
        let mut people = Vec::with_capacity(count);
        while people.len() < count {
            let batch = BATCH.min(count - people.len());
            let body = json!({ "from": from + people.len() as u64, "count": batch });
            let request = Request::post("/admin/testaccounts", &body);
            let answer: Sessions = self.ask("test accounts", self.signed(request)).await?;
            if answer.sessions.len() != batch {
                let got = answer.sessions.len();
                let words = format!("asked for {batch} sessions, got {got}");
                return Err(CrowdError::Prepare(words));
            }
            for session in answer.sessions {
                // It goes into a header line.
                let plain = session.bytes().all(|b| b.is_ascii_graphic());
                let buyer = forge::subject(&session).filter(|_| plain).ok_or_else(|| {
                    CrowdError::Prepare("a session is not a token of the shop's".to_owned())
                })?;
                people.push(Person {
                    index: people.len(),
                    buyer,
                    session: session.into(),
                });
            }
        }
        Ok(people.into())
    }

    /// The shop's audit of the promo.
    ///
    /// # Errors
    /// If there is none to be had.
    pub async fn audit(&self, promo: i64) -> Result<Audit, CrowdError> {
        let request = Request::get(format!("/admin/audit?promoId={promo}"));
        self.ask("the audit", self.signed(request)).await
    }

    fn signed(&self, request: Request) -> Request {
        match &self.token {
            Some(token) => request.bearer(token),
            None => request,
        }
    }

    async fn ask<T: for<'a> Deserialize<'a>>(
        &self,
        what: &str,
        request: Request,
    ) -> Result<T, CrowdError> {
        let failed = |why: String| CrowdError::Prepare(format!("{what}: {why}"));
        let sent = Cell::new(None);
        let exchange = self.pool.exchange(&request, Stay::ForAnswer, &sent);
        let response = match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(response)) => response.ok_or_else(|| failed("no answer".to_owned()))?,
            Ok(Err(fault)) => return Err(failed(fault.to_string())),
            Err(_) => return Err(failed("no answer in a minute".to_owned())),
        };
        read(&response).map_err(failed)
    }
}

/// The `data` of a success, or the words of a refusal.
fn read<T: for<'a> Deserialize<'a>>(response: &Response) -> Result<T, String> {
    let mut body: serde_json::Value = serde_json::from_slice(&response.body)
        .map_err(|_| format!("status {} and a body that is not JSON", response.status))?;
    if body["status"] == "success" {
        let data = body["data"].take();
        return serde_json::from_value(data).map_err(|error| format!("unexpected answer: {error}"));
    }
    let (words, code) = (body["data"]["errMsg"].as_str(), &body["data"]["errCode"]);
    let words = format!("refused: {} ({code})", words.unwrap_or("without a reason"));
    Err(match response.status {
        404 => format!("{words}. Test accounts need `test_accounts = true` at the order servers"),
        401 | 403 => format!("{words}. Give the operator's token with --operator-token-file"),
        _ => words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, body: &str) -> Response {
        Response {
            status,
            retry_after: None,
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn an_audit_is_read_whole() {
        let body = r#"{"status":"success","data":{"clean":false,"deadLetters":1,"promos":[]}}"#;
        let audit: Audit = read(&response(200, body)).unwrap();
        assert!(!audit.clean);
        assert_eq!(audit.rest["deadLetters"], 1);
    }

    #[test]
    fn a_refusal_says_what_would_help() {
        let body = r#"{"status":"fail","data":{"errCode":20004,"errMsg":"you may not do this"}}"#;
        let words = read::<Audit>(&response(403, body)).unwrap_err();
        assert!(
            words.contains("you may not") && words.contains("--operator-token-file"),
            "{words}"
        );
        assert!(read::<Audit>(&response(200, "<html>")).is_err());
        assert!(read::<Audit>(&response(200, r#"{"status":"success","data":null}"#)).is_err());
    }
}
