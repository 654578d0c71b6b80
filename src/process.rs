//! What every process that stays does alike: its threads, its log, waiting for what it needs, and its end.

use std::fmt;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use backend::BackendError;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::engine::Home;
use crate::load::Loaded;

/// How long closing the engine may take beyond the grace limit.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Pause before something that is away is looked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// The runtime of everything but the edge's connections, with a thread for each processor that the process
/// may use at once.
pub fn runtime() -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build()
}

/// The signals that end a process: watched before anything is announced, so that none is missed.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits until one of them comes.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Does `start` again while what it needs is away. None if the process is to end before that.
    ///
    /// # Errors
    /// What no waiting mends.
    pub async fn or_start<T, F>(&mut self, start: impl Fn() -> F) -> Result<Option<T>, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let starting = async {
            loop {
                match start().await {
                    Err(error) if error.is_outage() => {
                        tracing::warn!(%error, "not open yet: trying again");
                        tokio::time::sleep(PAUSE).await;
                    }
                    done => return done,
                }
            }
        };
        tokio::select! {
            started = starting => started.map(Some),
            () = self.asked() => Ok(None),
        }
    }
}

/// How much time is left for stopping.
pub struct Grace(Instant);

impl Grace {
    /// The time begins now.
    pub fn begin(loaded: &Loaded) -> Self {
        println!("stopping: work in flight is finished first");
        Self(Instant::now() + loaded.config.node.grace.duration())
    }

    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Lets go of the engine. What was asked of it is durable once it is answered; closing only tidies up.
pub async fn close(home: &Home) {
    if tokio::time::timeout(CLOSE_MAX, home.close()).await.is_err() {
        tracing::warn!("the engine was left open");
    }
    println!("stopped");
}

/// Addresses side by side.
pub fn listed(all: &[SocketAddr]) -> String {
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// Logs to stderr. With a `name`, each line tells which process wrote it.
pub fn log_to_stderr(name: Option<String>) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,floodgate=info,floodgate_backend=info"));
    // Only a second call in one process could fail.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .event_format(Named {
            name,
            format: Format::default(),
        })
        .try_init();
}

/// Puts a name in front of each line.
struct Named {
    name: Option<String>,
    format: Format,
}

impl<S, N> FormatEvent<S, N> for Named
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(writer, "{name} ")?;
        }
        self.format.format_event(context, writer, event)
    }
}
