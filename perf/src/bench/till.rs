//! The till: sends each order of a list once, over a number of connections each of which waits for its answer,
//! and sees that every one of them was accepted.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Failure;
use super::load::Told;
use crate::crowd::http::{Connection, Response};

/// The longest that one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
struct Answer {
    data: Accepted,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    order_id: String,
}

/// Places all orders.
///
/// # Errors
/// If one is not accepted, or two of them are one order.
pub fn place(port: u16, orders: &[String], connections: usize) -> Result<Told, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let count = orders.len();
    let orders: Arc<Mutex<VecDeque<Vec<u8>>>> = Arc::new(Mutex::new(
        orders.iter().map(|order| order.clone().into()).collect(),
    ));
    let (duration, answers) = runtime.block_on(async {
        let mut open = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            open.push(Connection::new(stream));
        }
        let begun = Instant::now();
        let mut lanes = JoinSet::new();
        for connection in open {
            lanes.spawn(serve(connection, orders.clone()));
        }
        let mut answers = Vec::with_capacity(count);
        while let Some(lane) = lanes.join_next().await {
            answers.extend(lane??);
        }
        Ok::<_, Failure>((begun.elapsed(), answers))
    })?;
    let mut latencies_us: Vec<u64> = answers.iter().map(|(_, latency_us)| *latency_us).collect();
    check(answers.into_iter().map(|(answer, _)| answer), count)?;
    latencies_us.sort_unstable();
    let within = |share: f64| {
        let at = (latencies_us.len() as f64 * share) as usize;
        latencies_us.get(at).copied().unwrap_or_default() as f64
    };
    Ok(Told::accepted(
        count as u64,
        duration,
        [within(0.5), within(0.99), within(0.999)],
    ))
}

/// Takes one order after the other; returns the answers, each with its latency in microseconds.
async fn serve(
    mut connection: Connection<TcpStream>,
    orders: Arc<Mutex<VecDeque<Vec<u8>>>>,
) -> Result<Vec<(Response, u64)>, Failure> {
    let next = || {
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.pop_front()
    };
    let mut answers = Vec::new();
    while let Some(order) = next() {
        let sent = Instant::now();
        connection.send(&order).await?;
        let answer = tokio::time::timeout(PATIENCE, connection.receive()).await??;
        let latency_us = u64::try_from(sent.elapsed().as_micros())?;
        answers.push((answer, latency_us));
    }
    Ok(answers)
}

fn check(answers: impl Iterator<Item = Response>, count: usize) -> Result<(), Failure> {
    let mut made = HashSet::new();
    for answer in answers {
        if answer.status != 202 {
            let body = String::from_utf8_lossy(&answer.body);
            return Err(format!("an order was answered {}: {body}", answer.status).into());
        }
        let answer: Answer = serde_json::from_slice(&answer.body)?;
        made.insert(answer.data.order_id);
    }
    if made.len() == count {
        return Ok(());
    }
    Err(format!("{count} orders became {}", made.len()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, order: &str) -> Response {
        Response {
            status,
            retry_after: None,
            body: format!(r#"{{"status":"success","data":{{"orderId":"{order}"}}}}"#).into(),
        }
    }

    #[test]
    fn every_order_is_accepted_and_is_one_of_its_own() {
        let all = |answers: &[Response]| check(answers.iter().cloned(), 2);
        assert!(all(&[answer(202, "a"), answer(202, "b")]).is_ok());
        assert!(all(&[answer(202, "a"), answer(202, "a")]).is_err());
        assert!(all(&[answer(202, "a"), answer(503, "b")]).is_err());
        assert!(all(&[answer(202, "a")]).is_err());
    }
}
