//! The machine a run was made on, and how busy this process kept it. Read from `/proc`; where there
//! is none, the figures are absent, not wrong.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What a figure is worth nothing without.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// The kernel.
    pub kernel: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line
                .and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim());
            value.unwrap_or("unknown").to_owned()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib = memory
            .split(' ')
            .next()
            .and_then(|kib| kib.parse::<u64>().ok());
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: kib.unwrap_or(0) / 1024,
        }
    }
}

/// How many files this process may have open, sockets included.
pub fn open_files_max() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    open_files(&limits).map(|(allowed, _)| allowed)
}

/// Lets this process, and those that it starts from then on, have `wanted` files open, or as many as the hard
/// limit allows; how many those are.
pub fn open_files_for(wanted: usize) -> usize {
    let allowed = open_files_max().unwrap_or(usize::MAX);
    if allowed >= wanted {
        return allowed;
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let hard = open_files(&limits).map_or(allowed, |(_, hard)| hard);
    // Where it fails, the limit is what it was.
    let _ = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string()])
        .arg(format!("--nofile={}:", wanted.min(hard)))
        .stderr(Stdio::null())
        .status();
    open_files_max().unwrap_or(allowed)
}

/// The limits of open files, the one that holds and the one up to which it can be raised.
fn open_files(limits: &str) -> Option<(usize, usize)> {
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    let mut words = line.split_whitespace().skip(3);
    let number = |word: &str| match word {
        "unlimited" => Some(usize::MAX),
        word => word.parse().ok(),
    };
    Some((number(words.next()?)?, number(words.next()?)?))
}

/// What the thread that calls it has used so far: time on a core, and time ready to run without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThreadTime {
    /// On a core.
    pub ran: Duration,
    /// Waiting for a core that something else had.
    pub waited: Duration,
}

impl ThreadTime {
    /// Of the calling thread.
    pub fn now() -> Option<Self> {
        Self::read(&std::fs::read_to_string("/proc/thread-self/schedstat").ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let mut numbers = text
            .split_whitespace()
            .map(|number| number.parse::<u64>().ok());
        let (ran, waited) = (numbers.next()??, numbers.next()??);
        Some(Self {
            ran: Duration::from_nanos(ran),
            waited: Duration::from_nanos(waited),
        })
    }

    /// What was used since.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(earlier.ran),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// How busy the threads of the crowd were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Effort {
    /// Processor seconds of all threads.
    pub cpu_s: f64,
    /// Share of their time on a core.
    pub busy: f64,
    /// The same in the busiest second of any thread.
    pub busiest_second: f64,
    /// Share of their time ready to run, but without a core.
    pub without_core: f64,
    /// Seconds in which a thread was on a core, or waiting for one, for more than the limit.
    pub hot_seconds: u64,
    /// Seconds looked at.
    pub seconds: u64,
}

/// A thread is at its limit when it has less than a tenth of its time to spare.
pub const HOT: f64 = 0.9;

impl Effort {
    /// Adds what another thread did at the same time.
    pub fn add(&mut self, other: &Self) {
        let (mine, theirs) = (self.seconds as f64, other.seconds as f64);
        let both = (mine + theirs).max(1.0);
        self.busy = (self.busy * mine + other.busy * theirs) / both;
        self.without_core = (self.without_core * mine + other.without_core * theirs) / both;
        self.cpu_s += other.cpu_s;
        self.busiest_second = self.busiest_second.max(other.busiest_second);
        self.hot_seconds += other.hot_seconds;
        self.seconds += other.seconds;
    }

    fn second(&mut self, used: ThreadTime, length: Duration) {
        let share = |part: Duration| part.as_secs_f64() / length.as_secs_f64().max(1e-9);
        let (ran, waited) = (share(used.ran), share(used.waited));
        let seconds = self.seconds as f64;
        self.busy = (self.busy * seconds + ran) / (seconds + 1.0);
        self.without_core = (self.without_core * seconds + waited) / (seconds + 1.0);
        self.busiest_second = self.busiest_second.max(ran);
        self.cpu_s += used.ran.as_secs_f64();
        self.hot_seconds += u64::from(ran + waited > HOT);
        self.seconds += 1;
    }
}

/// Watches one thread from inside.
#[derive(Debug)]
pub struct EffortWatch {
    effort: Effort,
    last: Option<(ThreadTime, Instant)>,
}

impl EffortWatch {
    /// From now on.
    pub fn start() -> Self {
        Self {
            effort: Effort::default(),
            last: ThreadTime::now().map(|time| (time, Instant::now())),
        }
    }

    /// Call it about every second, on the thread that is watched.
    pub fn look(&mut self) {
        let Some((last, at)) = self.last else { return };
        let Some(time) = ThreadTime::now() else {
            return;
        };
        let now = Instant::now();
        self.effort
            .second(time.since(last), now.saturating_duration_since(at));
        self.last = Some((time, now));
    }

    /// What was seen; nothing where the system does not tell.
    pub fn end(mut self) -> Option<Effort> {
        // A remnant much shorter than a second would be judged by the grain of the clock.
        let remnant = self
            .last
            .is_some_and(|(_, at)| at.elapsed() > Duration::from_millis(200));
        if remnant || self.effort.seconds == 0 {
            self.look();
        }
        self.last.map(|_| self.effort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_is_read_or_absent() {
        let time = ThreadTime::read("661245 88522 3\n").unwrap();
        assert_eq!(time.ran, Duration::from_nanos(661_245));
        assert_eq!(time.waited, Duration::from_nanos(88_522));
        for bad in ["", "1", "a b c"] {
            assert_eq!(ThreadTime::read(bad), None);
        }
    }

    #[test]
    fn limits_of_open_files_are_read() {
        let line =
            "Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(line), Some((1_024, 524_288)));
        let line =
            "Max open files            1024                 unlimited            files     \n";
        assert_eq!(open_files(line), Some((1_024, usize::MAX)));
        assert_eq!(open_files("Max processes             1 2 processes"), None);
        assert!(open_files_for(10) >= 10);
    }

    #[test]
    fn a_second_without_a_tenth_to_spare_is_hot() {
        let ms = Duration::from_millis;
        let mut effort = Effort::default();
        effort.second(
            ThreadTime {
                ran: ms(400),
                waited: ms(0),
            },
            ms(1_000),
        );
        effort.second(
            ThreadTime {
                ran: ms(500),
                waited: ms(450),
            },
            ms(1_000),
        );
        assert_eq!((effort.hot_seconds, effort.seconds), (1, 2));
        assert!((effort.busy - 0.45).abs() < 1e-9 && (effort.busiest_second - 0.5).abs() < 1e-9);
        let mut other = Effort::default();
        other.second(
            ThreadTime {
                ran: ms(1_000),
                waited: ms(0),
            },
            ms(1_000),
        );
        effort.add(&other);
        assert_eq!((effort.hot_seconds, effort.seconds), (2, 3));
        assert!((effort.cpu_s - 1.9).abs() < 1e-9);
        assert!((effort.busy - 1.9 / 3.0).abs() < 1e-9);
    }
}
