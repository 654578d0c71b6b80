//! Reading a request's body: bounded in size and time, and to its end even when it is refused. A
//! server that answers and closes while a body is still arriving resets the connection, and the
//! client may lose the answer with it.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use lua_free_rules::refusal::Refusal;

/// Largest body.
const BYTES_MAX: usize = 16 << 10;
/// Up to this size a body that is too large is read to its end and dropped.
const DROPPED_BYTES_MAX: usize = 512 << 10;
/// How long a body may take to arrive.
const READ_MAX: Duration = Duration::from_secs(10);

/// The body, whole.
///
/// # Errors
/// [`Refusal::TooLarge`], and [`Refusal::BadParameter`] for one that is cut off or takes too long.
pub(super) async fn read(body: Body) -> Result<Vec<u8>, Refusal> {
    let late = |_| Refusal::BadParameter("the body took too long".to_owned());
    tokio::time::timeout(READ_MAX, collect(body))
        .await
        .map_err(late)?
}

async fn collect(mut body: Body) -> Result<Vec<u8>, Refusal> {
    let (mut kept, mut bytes) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::BadParameter("the body was cut off".to_owned()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        bytes = bytes.saturating_add(data.len());
        if bytes > DROPPED_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        if bytes <= BYTES_MAX {
            kept.extend_from_slice(&data);
        }
    }
    if bytes > BYTES_MAX {
        Err(Refusal::TooLarge)
    } else {
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_whole_or_refused() {
        for (bytes, whole) in [
            (0, true),
            (BYTES_MAX, true),
            (BYTES_MAX + 1, false),
            (1 << 20, false),
        ] {
            let body = read(Body::from(vec![b'x'; bytes])).await;
            let expected = if whole {
                Ok(bytes)
            } else {
                Err(Refusal::TooLarge)
            };
            assert_eq!(body.map(|body| body.len()), expected);
        }
    }
}
