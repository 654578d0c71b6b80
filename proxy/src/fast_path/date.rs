//! `Date`: written anew each second, and looked up by the clock that a request has been timed with, so that
//! an answer asks no clock of its own.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use pingora::protocols::http::date::get_cached_date;

thread_local! {
    static SHOWN: RefCell<Option<Shown>> = const { RefCell::new(None) };
}

struct Shown {
    date: HeaderValue,
    /// When the next second begins.
    until: Instant,
}

/// Writes the date at that moment, which has just been now.
pub(super) fn write(bytes: &mut Vec<u8>, at: Instant) {
    SHOWN.with_borrow_mut(|shown| {
        let shown = match shown {
            Some(shown) if at < shown.until => shown,
            outdated => outdated.insert(Shown::now()),
        };
        bytes.extend_from_slice(shown.date.as_bytes());
    });
}

impl Shown {
    fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let passed_ns = since_epoch.map_or(0, |since| since.subsec_nanos());
        let left = Duration::from_secs(1).saturating_sub(Duration::from_nanos(passed_ns.into()));
        Self {
            until: Instant::now() + left,
            date: get_cached_date(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_goes_with_the_second() {
        let written = |at| {
            let mut bytes = Vec::new();
            write(&mut bytes, at);
            String::from_utf8(bytes).unwrap()
        };
        let shown = written(Instant::now());
        assert!(shown.ends_with(" GMT") && shown.len() == 29, "{shown}");
        std::thread::sleep(Duration::from_millis(1_100));
        let later = written(Instant::now());
        assert_ne!(shown, later);
        assert_eq!(later.as_bytes(), get_cached_date().as_bytes());
    }
}
