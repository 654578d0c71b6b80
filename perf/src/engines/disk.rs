//! How long the disk takes to make a small write durable: every figure of a durable step stands on it.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use crate::spread::median;

const WRITES: usize = 200;
const BYTES: usize = 4_096;

/// The median, in milliseconds, of 200 times 4 KiB appended to a new file, each made durable by
/// fdatasync before the next one.
///
/// # Errors
/// If the file cannot be made or written.
pub fn sync_ms(folder: &Path) -> io::Result<f64> {
    let mut file = tempfile::tempfile_in(folder)?;
    let block = [0x5a_u8; BYTES];
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&times))
}
