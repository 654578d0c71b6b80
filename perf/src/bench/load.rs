//! Load: wrk, as Debian has it, and what the servers' processors did meanwhile.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::Failure;
use super::exchange::Answer;
use super::peers;
use super::work::Work;

const SCRIPT: &str = include_str!("../../peers/load.lua");

/// Answers to the same request may differ in a digit of a number.
const LENGTH_MAY_DIFFER: f64 = 0.02;

/// What wrk tells.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Told {
    /// Answers that came.
    pub requests: u64,
    bytes: u64,
    /// For how long.
    pub duration_us: u64,
    failed: u64,
    refused: u64,
    /// Half of the answers came within this.
    pub p50_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1,000.
    pub p999_us: f64,
}

impl Told {
    /// So many answers, all of them right, half of them, 99 of 100 and 999 of 1,000 within so many
    /// microseconds.
    pub fn accepted(requests: u64, duration: Duration, within_us: [f64; 3]) -> Self {
        let [p50_us, p99_us, p999_us] = within_us;
        Self {
            requests,
            bytes: 0,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            failed: 0,
            refused: 0,
            p50_us,
            p99_us,
            p999_us,
        }
    }
}

impl Told {
    /// Whether all answers were like this one: wrk tells refusals from what is none, and how long they were.
    fn is_all(&self, right: &Answer) -> bool {
        let is_refusal = right.status >= 400;
        let refused = if is_refusal { self.requests } else { 0 };
        let each = self.bytes as f64 / self.requests.max(1) as f64;
        let length = right.length as f64;
        self.requests > 0
            && self.failed == 0
            && self.refused == refused
            && (each - length).abs() < length * LENGTH_MAY_DIFFER
    }
}

/// Asks for `work` over so many connections for so long; `core` binds wrk to one.
///
/// # Errors
/// If wrk fails, or an answer was another one than the work's.
pub fn load(
    port: u16,
    work: &Work,
    connections: usize,
    duration: Duration,
    core: Option<usize>,
) -> Result<Told, Failure> {
    let right = peers::ask(port, work)?;
    if right.status != work.status {
        let status = right.status;
        return Err(format!("{} is answered {status}", work.name).into());
    }
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(script.path(), SCRIPT)?;
    let requests = tempfile::NamedTempFile::new()?;
    std::fs::write(requests.path(), work.requests.join("\0") + "\0")?;
    let mut command = match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string(), "wrk"]);
            command
        }
        None => Command::new("wrk"),
    };
    let output = command
        .args(["-t1", "-c", &connections.to_string()])
        .args(["-d", &format!("{}s", duration.as_secs().max(1))])
        .args(["--timeout", "10s", "-s"])
        .arg(script.path())
        .arg(format!("http://127.0.0.1:{port}/"))
        .env("FLOODGATE_REQUESTS", requests.path())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with('{'));
    let line = line.ok_or_else(|| format!("wrk said nothing of use: {text}"))?;
    let told: Told = serde_json::from_str(line)?;
    if !told.is_all(&right) {
        return Err(format!("wrong answers to {}: {line}", work.name).into());
    }
    Ok(told)
}

/// Processor time that each thread of some processes has used, in nanoseconds.
#[derive(Debug)]
pub struct Used(HashMap<PathBuf, u64>);

impl Used {
    /// So far.
    pub fn by(processes: &[u32]) -> Self {
        let of_thread = |path: PathBuf| {
            let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
            let used_ns = text.split(' ').next()?.parse::<u64>().ok()?;
            Some((path, used_ns))
        };
        let threads = processes
            .iter()
            .filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok())
            .flatten()
            .flatten();
        let threads = threads.filter_map(|thread| of_thread(thread.path()));
        Self(threads.collect())
    }

    /// By all threads together since `before`. One that has ended in between is not seen: what it had used
    /// before must not be taken from the others'.
    pub fn ns_since(&self, before: &Self) -> u64 {
        let threads = self.0.iter();
        let used = threads
            .map(|(path, now)| now.saturating_sub(before.0.get(path).copied().unwrap_or_default()));
        used.sum()
    }
}

/// Processor time that this thread has used, in nanoseconds.
///
/// # Errors
/// If the system does not tell.
pub fn own_cpu_ns() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let used = text.split(' ').next().and_then(|used| used.parse().ok());
    used.ok_or_else(|| "the system does not tell processor times".into())
}

/// Memory that these processes have for themselves, in KiB.
pub fn memory_kib(processes: &[u32]) -> u64 {
    let of_process = |pid: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    processes.iter().filter_map(of_process).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_another_kind_or_length_are_wrong_ones() {
        let right = |status| Answer::of(status, 200);
        let told = Told {
            bytes: 20_100,
            ..Told::accepted(100, Duration::from_secs(1), [0.0; 3])
        };
        assert!(told.is_all(&right(200)) && !told.is_all(&right(409)));
        let refused = Told {
            refused: 100,
            ..told
        };
        assert!(refused.is_all(&right(409)) && !refused.is_all(&right(200)));
        let longer = Told {
            bytes: 22_000,
            ..told
        };
        assert!(!longer.is_all(&right(200)));
        let failed = Told { failed: 1, ..told };
        assert!(!failed.is_all(&right(200)));
    }
}
