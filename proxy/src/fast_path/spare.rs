//! Buffers that are between two requests: each thread keeps a few, so that a connection that waits holds
//! none and a request costs no allocation.

use std::cell::RefCell;

/// Most buffers that a thread keeps.
const KEPT_MAX: usize = 16;
/// A larger one is not kept.
const BYTES_MAX: usize = 32 << 10;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer.
pub(super) fn take() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back.
pub(super) fn give(mut buffer: Vec<u8>) {
    if (1..=BYTES_MAX).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT_MAX {
                spare.push(buffer);
            }
        });
    }
}
