//! Connections: a few that everyone shares, each checked before anything is sent on it.
//!
//! A Redis that was started anew may have lost what it had answered for. So nothing is asked on a new
//! connection until the run of the server is the one that was recorded when its memory was last found
//! good; until then every request is answered as unavailable. The order stream alone is read and
//! acknowledged all the same, since what is still in it must reach the ledger first.
//!
//! What Redis says of itself (loading, read-only, busy) and broken connections are tried again while
//! the caller's patience lasts, then they are an outage; a caller never sees them. A request whose
//! outcome is unknown is sent again only if repeating it is harmless.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use lua_free_rules::refusal::Refusal;
use lua_free_rules::units::PromoId;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, cmd,
};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::keys::Keys;
use super::scripts::Call;
use super::{OpenError, Options};
use crate::{EngineError, Result};

/// Connections that are shared.
const CONNECTIONS: usize = 4;
/// Longest that making a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Pause before something is tried again.
const PAUSE: Duration = Duration::from_millis(25);
/// How long replicas may take to confirm.
const CONFIRM_MAX: Duration = Duration::from_millis(1_000);

/// Whether a request whose outcome is unknown may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Done twice is done once.
    Safe,
    /// Only the caller can decide.
    Once,
}

/// Whether the server's memory must have been found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// It must.
    Good,
    /// Anything goes: the order stream, and the rebuild itself.
    Any,
}

/// The way to Redis.
pub(super) struct Link {
    /// The names of all keys.
    pub(super) keys: Keys,
    /// The address, password included.
    pub(super) client: Client,
    config: AsyncConnectionConfig,
    /// Where connections live, whoever is the first to need one: some who do serve others meanwhile.
    home: Handle,
    slots: Vec<Slot>,
    turn: AtomicUsize,
    patience: Duration,
    replicas: u32,
}

/// A place for a connection.
#[derive(Default)]
struct Slot {
    current: RwLock<Option<Held>>,
    /// Held by who connects.
    connecting: Mutex<()>,
    made: AtomicU64,
}

/// A connection, and which one of its slot.
#[derive(Clone)]
struct Held {
    connection: MultiplexedConnection,
    number: u64,
    /// Whether the server's memory is the one that was found good.
    is_good: bool,
}

/// What is sent.
#[derive(Clone, Copy)]
enum Sending<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline),
    /// A script, by its digest, and what is needed to load it.
    Call(&'a Cmd, &'a Call),
}

/// Why a try had no answer.
enum Fault {
    /// It was not done, or not known to be: for the operator.
    NotDone(String),
    /// It may have been done.
    Unknown(String),
    /// Trying again would not help.
    Final(EngineError),
}

/// What a server says of itself.
struct Server {
    run: String,
    is_primary: bool,
    policy: String,
}

impl Link {
    /// Makes the link; connects when it is first used.
    pub(super) fn new(options: &Options) -> std::result::Result<Self, OpenError> {
        let address = |error: RedisError| OpenError::Address(error.to_string());
        let mut info: ConnectionInfo = options
            .url
            .as_str()
            .into_connection_info()
            .map_err(address)?;
        if let Some(password) = &options.password {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        Ok(Self {
            keys: Keys::new(&options.prefix),
            client: Client::open(info).map_err(address)?,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_MAX))
                .set_response_timeout(Some(options.patience)),
            home: Handle::current(),
            slots: (0..CONNECTIONS).map(|_| Slot::default()).collect(),
            turn: AtomicUsize::new(0),
            patience: options.patience,
            replicas: options.replicas,
        })
    }

    /// Refuses a Redis that throws keys away, or refuses us. One that is away is taken on trust until it
    /// answers.
    pub(super) async fn check_server(&self) -> std::result::Result<(), OpenError> {
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&self.config);
        let answer = match connecting.await {
            Ok(mut connection) => server(&mut connection).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(server) if server.policy != "noeviction" => Err(OpenError::Eviction(server.policy)),
            Err(error) if is_refused(&error) => Err(OpenError::Refused(error.to_string())),
            _ => Ok(()),
        }
    }

    /// Calls a script, and waits for the replicas if there are to be any.
    pub(super) async fn call<T: FromRedisValue>(&self, call: &Call, repeat: Repeat) -> Result<T> {
        self.call_on(call, repeat, Memory::Good).await
    }

    /// Calls a script on a server whose memory may not be good.
    pub(super) async fn call_on<T: FromRedisValue>(
        &self,
        call: &Call,
        repeat: Repeat,
        memory: Memory,
    ) -> Result<T> {
        let mut eval = cmd("EVALSHA");
        eval.arg(call.script.get_hash()).arg(call.keys.len());
        eval.arg(&call.keys).arg(&call.words);
        let sending = Sending::Call(&eval, call);
        let answer = self.persist(sending, repeat, memory).await?;
        self.read(Some(answer))
    }

    /// Sends one command.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd, repeat: Repeat) -> Result<T> {
        self.ask_on(command, repeat, Memory::Good).await
    }

    /// Sends one command to a server whose memory may not be good.
    pub(super) async fn ask_on<T: FromRedisValue>(
        &self,
        command: &Cmd,
        repeat: Repeat,
        memory: Memory,
    ) -> Result<T> {
        let sending = Sending::One(command);
        let answer = self.persist(sending, repeat, memory).await?;
        self.read(Some(answer))
    }

    /// Sends several commands at once; their answers in order.
    pub(super) async fn ask_all(&self, all: &Pipeline, repeat: Repeat) -> Result<Vec<Value>> {
        self.ask_all_on(all, repeat, Memory::Good).await
    }

    /// Sends several commands at once to a server whose memory may not be good.
    pub(super) async fn ask_all_on(
        &self,
        all: &Pipeline,
        repeat: Repeat,
        memory: Memory,
    ) -> Result<Vec<Value>> {
        let answer = self.persist(Sending::Many(all), repeat, memory).await?;
        self.read(Some(answer))
    }

    /// Reads an answer.
    pub(super) fn read<T: FromRedisValue>(&self, answer: Option<Value>) -> Result<T> {
        let value = answer.unwrap_or(Value::Nil);
        redis::from_redis_value(value).map_err(|error| super::told::odd(&error.to_string()))
    }

    /// Every promo that was ever published here.
    pub(super) async fn promos(&self) -> Result<Vec<PromoId>> {
        self.promos_on(Memory::Good).await
    }

    /// The same, on a server whose memory may not be good.
    pub(super) async fn promos_on(&self, memory: Memory) -> Result<Vec<PromoId>> {
        let mut members = cmd("SMEMBERS");
        members.arg(self.keys.promos());
        let mut ids: Vec<i64> = self.ask_on(&members, Repeat::Safe, memory).await?;
        ids.sort_unstable();
        Ok(ids.into_iter().map(PromoId).collect())
    }

    /// Tries until it is done or the patience is over.
    async fn persist(&self, sending: Sending<'_>, repeat: Repeat, memory: Memory) -> Result<Value> {
        let until = Instant::now() + self.patience;
        loop {
            let slot = self.turn.fetch_add(1, Ordering::Relaxed) % self.slots.len();
            let slot = &self.slots[slot];
            let fault = match timeout_at(until, self.held(slot, memory)).await {
                Ok(Ok(mut held)) => match timeout_at(until, self.send(&mut held, sending)).await {
                    Ok(Ok(done)) => return Ok(done),
                    Ok(Err(error)) => judge(slot, &held, &error),
                    Err(_) => {
                        // It may never answer again: the next one gets another connection.
                        slot.drop_current(Some(held.number));
                        Fault::Unknown("Redis did not answer in time".to_owned())
                    }
                },
                Ok(Err(fault)) => fault,
                Err(_) => Fault::NotDone("Redis could not be reached in time".to_owned()),
            };
            let detail = match fault {
                Fault::Final(error) => return Err(error),
                Fault::Unknown(detail) if repeat == Repeat::Once => {
                    return Err(EngineError::Unavailable(detail));
                }
                Fault::Unknown(detail) | Fault::NotDone(detail) => detail,
            };
            if Instant::now() + PAUSE >= until {
                return Err(EngineError::Unavailable(detail));
            }
            sleep(PAUSE).await;
        }
    }

    /// One try.
    async fn send(
        &self,
        held: &mut Held,
        sending: Sending<'_>,
    ) -> std::result::Result<Value, RedisError> {
        let (eval, call) = match sending {
            Sending::One(command) => return command.query_async(&mut held.connection).await,
            Sending::Many(all) => {
                let answers: Vec<Value> = all.query_async(&mut held.connection).await?;
                return Ok(Value::Array(answers));
            }
            Sending::Call(eval, call) => (eval, call),
        };
        let answer = match eval.query_async::<Value>(&mut held.connection).await {
            Err(error) if is(&error, ServerErrorKind::NoScript) => {
                call.script.load_async(&mut held.connection).await?;
                eval.query_async(&mut held.connection).await?
            }
            answer => answer?,
        };
        self.confirm(held).await?;
        Ok(answer)
    }

    async fn connect(&self) -> std::result::Result<RedisResult<MultiplexedConnection>, Fault> {
        let (client, config) = (self.client.clone(), self.config.clone());
        let connecting = async move {
            client
                .get_multiplexed_async_connection_with_config(&config)
                .await
        };
        let connected = self.home.spawn(connecting).await;
        connected.map_err(|error| Fault::NotDone(error.to_string()))
    }

    /// The connection of a slot: made anew if there is none, or none that may be used.
    async fn held(&self, slot: &Slot, memory: Memory) -> std::result::Result<Held, Fault> {
        let usable = |held: &Held| held.is_good || memory == Memory::Any;
        if let Some(held) = slot.current().filter(usable) {
            return Ok(held);
        }
        let _alone = slot.connecting.lock().await;
        if let Some(held) = slot.current().filter(usable) {
            return Ok(held);
        }
        let away = |error: RedisError| Fault::NotDone(error.to_string());
        let mut connection = match slot.current() {
            // It is good for the stream; whether its memory is good by now is seen below.
            Some(held) => held.connection,
            None => self.connect().await?.map_err(away)?,
        };
        let checked = self.check(&mut connection).await;
        let is_good = match checked {
            Ok(is_good) => is_good,
            Err(fault) => {
                slot.drop_current(None);
                return Err(fault);
            }
        };
        let held = Held {
            connection,
            number: slot.made.fetch_add(1, Ordering::Relaxed),
            is_good,
        };
        slot.put(held.clone());
        if usable(&held) {
            return Ok(held);
        }
        Err(Fault::NotDone(
            "Redis was started anew and waits to be rebuilt from the ledger".to_owned(),
        ))
    }

    /// Whether the server is the one whose memory was found good.
    async fn check(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> std::result::Result<bool, Fault> {
        let away = |error: RedisError| Fault::NotDone(error.to_string());
        let server = server(connection).await.map_err(away)?;
        if !server.is_primary {
            return Err(Fault::NotDone("this Redis is a replica".to_owned()));
        }
        if server.policy != "noeviction" {
            return Err(Fault::Final(EngineError::Unavailable(
                OpenError::Eviction(server.policy).to_string(),
            )));
        }
        let mut get = cmd("GET");
        get.arg(self.keys.run());
        let recorded: Option<String> = get.query_async(connection).await.map_err(away)?;
        Ok(recorded.as_deref() == Some(server.run.as_str()))
    }

    /// Waits until as many replicas as are asked for have what was written on this connection.
    async fn confirm(&self, held: &mut Held) -> std::result::Result<(), RedisError> {
        if self.replicas == 0 {
            return Ok(());
        }
        let mut wait = cmd("WAIT");
        wait.arg(self.replicas).arg(CONFIRM_MAX.as_millis() as u64);
        let have: u32 = wait.query_async(&mut held.connection).await?;
        if have >= self.replicas {
            return Ok(());
        }
        Err(RedisError::from((
            ErrorKind::Extension,
            "too few replicas confirmed",
            format!("{have} of {}", self.replicas),
        )))
    }
}

impl Slot {
    fn current(&self) -> Option<Held> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    fn put(&self, held: Held) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(held);
    }

    /// Drops the connection, or only the one of that number: another one may have taken its place.
    fn drop_current(&self, number: Option<u64>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if number.is_none() || current.as_ref().map(|held| held.number) == number {
            *current = None;
        }
    }
}

/// What an error means for what was sent.
fn judge(slot: &Slot, held: &Held, error: &RedisError) -> Fault {
    let detail = error.to_string();
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown,
        ) => Fault::NotDone(detail),
        // Roles have changed: whoever is the primary now is found by connecting anew.
        ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            slot.drop_current(Some(held.number));
            Fault::NotDone(detail)
        }
        ErrorKind::Server(_) => server_fault(error, detail),
        // Also a confirmation of replicas that did not come: it may come when asked again.
        _ if error.kind() == ErrorKind::Extension && error.code().is_none() => {
            Fault::Unknown(detail)
        }
        ErrorKind::Extension => server_fault(error, detail),
        _ => {
            slot.drop_current(Some(held.number));
            Fault::Unknown(detail)
        }
    }
}

fn server_fault(error: &RedisError, detail: String) -> Fault {
    match error.code() {
        // Memory is full: what is in the stream must be written first.
        Some("OOM") => Fault::Final(Refusal::Overloaded.into()),
        Some("BUSY" | "MISCONF" | "NOREPLICAS") => Fault::NotDone(detail),
        // For who reads a stream that was not begun, or begins one that was: they know what to do.
        Some("NOGROUP" | "BUSYGROUP") => Fault::Final(EngineError::Unavailable(detail)),
        _ => {
            tracing::error!(detail, "a step in Redis failed");
            Fault::Final(EngineError::Unavailable(detail))
        }
    }
}

/// Whether Redis does not let us in.
fn is_refused(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
}

fn is(error: &RedisError, kind: ServerErrorKind) -> bool {
    error.kind() == ErrorKind::Server(kind)
}

/// Asks a server about itself.
async fn server(connection: &mut MultiplexedConnection) -> std::result::Result<Server, RedisError> {
    let info: String = cmd("INFO")
        .arg("everything")
        .query_async(connection)
        .await?;
    Ok(Server {
        run: field(&info, "run_id").unwrap_or_default(),
        is_primary: field(&info, "role").is_none_or(|role| role == "master"),
        policy: field(&info, "maxmemory_policy").unwrap_or_else(|| "noeviction".to_owned()),
    })
}

/// A field of what `INFO` answers.
pub(super) fn field(info: &str, name: &str) -> Option<String> {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(key, _)| *key == name);
    found.map(|(_, value)| value.trim().to_owned())
}
