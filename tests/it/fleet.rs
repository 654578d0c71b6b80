//! A Floodgate of many processes: edges, order servers and writers on one Redis and one database server, all
//! of them started for one test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use floodgate_servers::{MariaDb, Postgres, Redis};

use crate::house::{CATALOG, OPEN_RATES, PATIENCE, Shop};

/// The database server of a fleet.
pub enum Database {
    MariaDb(MariaDb),
    Postgres(Postgres),
}

impl Database {
    fn fresh(&self) -> String {
        match self {
            Self::MariaDb(server) => server.fresh(),
            Self::Postgres(server) => server.fresh(),
        }
    }

    const fn password(&self) -> &str {
        match self {
            Self::MariaDb(server) => server.password(),
            Self::Postgres(server) => server.password(),
        }
    }

    /// What it answers on the database of the fleet, which is the first one that was made in it.
    pub fn ask(&self, sql: &str) -> String {
        match self {
            Self::MariaDb(server) => server.ask("shop0", sql),
            Self::Postgres(server) => server.ask("shop0", sql),
        }
    }

    /// Ends it as a crash does, and starts it again on its files.
    pub fn crash(&mut self) {
        match self {
            Self::MariaDb(server) => server.restart(),
            Self::Postgres(server) => server.restart(),
        }
    }

    /// Stops it from answering.
    pub fn freeze(&self) {
        match self {
            Self::MariaDb(server) => server.freeze(),
            Self::Postgres(server) => server.freeze(),
        }
    }

    /// Lets it answer again.
    pub fn thaw(&self) {
        match self {
            Self::MariaDb(server) => server.thaw(),
            Self::Postgres(server) => server.thaw(),
        }
    }
}

/// The processes of a fleet: two of each role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Edge(usize),
    OrderServer(usize),
    Writer(usize),
}

/// All of them, in the order in which they are started.
pub const PARTS: [Part; 6] = [
    Part::Writer(0),
    Part::Writer(1),
    Part::OrderServer(0),
    Part::OrderServer(1),
    Part::Edge(0),
    Part::Edge(1),
];

impl Part {
    const fn role(self) -> &'static str {
        match self {
            Self::Edge(_) => "proxy",
            Self::OrderServer(_) => "backend",
            Self::Writer(_) => "writer",
        }
    }

    fn name(self) -> String {
        let (Self::Edge(number) | Self::OrderServer(number) | Self::Writer(number)) = self;
        format!("{}-{number}", self.role())
    }
}

/// A fleet at sea.
pub struct Fleet {
    pub folder: tempfile::TempDir,
    pub redis: Redis,
    pub database: Database,
    pub edges: [SocketAddr; 2],
    processes: Vec<(Part, Child)>,
    http: reqwest::Client,
}

impl Fleet {
    /// Starts everything and publishes promo 1; `tables` are further lines of every floodgate.toml.
    pub fn launch(database: Database, promo: &str, tables: &str) -> Self {
        Self::on(Redis::start(), database, promo, tables)
    }

    /// The same, on that Redis.
    pub fn on(redis: Redis, database: Database, promo: &str, tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (edges, orders) = ([address(), address()], [address(), address()]);
        let mut fleet = Self {
            folder,
            redis,
            database,
            edges,
            processes: Vec::new(),
            http: reqwest::Client::builder()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
        };
        fleet.write_secrets();
        let database = fleet.database.fresh();
        for part in PARTS {
            fleet.write(part, &database, orders, promo, tables);
        }
        for part in PARTS {
            fleet.start(part);
        }
        let published = fleet.floodgate(&["publish", "1"]);
        let words = String::from_utf8_lossy(&published.stderr);
        assert!(published.status.success(), "{words}\n{}", fleet.logs());
        // An edge hears of it at once, or at its next look.
        for edge in fleet.edges {
            let begun = Instant::now();
            while !knows_the_promo(edge) {
                assert!(begun.elapsed() < PATIENCE, "{edge} never heard of it");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        fleet
    }

    /// Drawn anew for each fleet: a sample would be refused.
    fn write_secrets(&self) {
        std::fs::create_dir(self.data()).unwrap();
        for name in ["k1.key", "operator.token", "webhook.secret"] {
            let mut keygen = Command::new(env!("CARGO_BIN_EXE_floodgate"));
            let made = keygen.arg("keygen").output().unwrap();
            std::fs::write(self.data().join(name), made.stdout).unwrap();
        }
        let password = self.database.password();
        std::fs::write(self.data().join("database.password"), password).unwrap();
    }

    fn write(
        &self,
        part: Part,
        database: &str,
        orders: [SocketAddr; 2],
        promo: &str,
        tables: &str,
    ) {
        let config = self.config(part);
        std::fs::create_dir_all(config.join("promos")).unwrap();
        let (edge, listen) = match part {
            Part::Edge(number) => (self.edges[number].to_string(), orders[0].to_string()),
            Part::OrderServer(number) => ("127.0.0.1:0".to_owned(), orders[number].to_string()),
            Part::Writer(_) => ("127.0.0.1:0".to_owned(), orders[0].to_string()),
        };
        let text = format!(
            "data_dir = \"../data\"\nnode = \"{}\"\nengine = \"{}\"\ndatabase = \"{database}\"\n\
             database_password_file = \"../data/database.password\"\n{tables}\n\
             [edge]\nlisten = \"{edge}\"\nadmin = \"127.0.0.1:0\"\npages = {:?}\n\
             upstreams = [\"{}\", \"{}\"]\n{OPEN_RATES}\n\
             [orders]\nlisten = [\"{listen}\"]\nadmin = \"127.0.0.1:0\"\n\
             [writer]\nadmin = \"127.0.0.1:0\"\n\
             [accounts]\notp_delivery = \"echo\"\notp_per_hour = 1000\ntest_accounts = true\n\
             [keys]\nactive = \"k1\"\n[[keys.accepted]]\nid = \"k1\"\nfile = \"../data/k1.key\"\n\
             [operator]\ntoken_file = \"../data/operator.token\"\n\
             [payment]\nwebhook_secret_file = \"../data/webhook.secret\"\n",
            part.name(),
            self.redis.url(),
            concat!(env!("CARGO_MANIFEST_DIR"), "/html"),
            orders[0],
            orders[1],
        );
        std::fs::write(config.join("floodgate.toml"), text).unwrap();
        std::fs::write(config.join("catalog.toml"), CATALOG).unwrap();
        std::fs::write(config.join("promos/1.toml"), promo).unwrap();
    }

    fn config(&self, part: Part) -> PathBuf {
        self.folder.path().join(part.name())
    }

    /// Starts a process and waits until it is open.
    pub fn start(&mut self, part: Part) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(part))
            .unwrap();
        let mut process = self
            .command(part, &[part.role()])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let is_open = lines.any(|line| line.is_ok_and(|line| line.starts_with("Ctrl-C")));
        // The pipe is read on, so that the process never blocks on its own words.
        std::thread::spawn(move || lines.count());
        self.processes.push((part, process));
        assert!(is_open, "{part:?} did not open:\n{}", self.logs());
    }

    /// kill -9.
    pub fn kill(&mut self, part: Part) {
        let at = self.processes.iter().position(|(each, _)| *each == part);
        let (_, mut process) = self.processes.remove(at.expect("it runs"));
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn command(&self, part: Part, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_floodgate"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config(part));
        command
    }

    fn log(&self, part: Part) -> PathBuf {
        self.folder.path().join(format!("{}.log", part.name()))
    }

    /// What every process said.
    pub fn logs(&self) -> String {
        let read = |part: &Part| {
            let text = std::fs::read_to_string(self.log(*part)).unwrap_or_default();
            format!("--- {} ---\n{text}", part.name())
        };
        PARTS.iter().map(read).collect()
    }

    /// The shop as buyers of one of its edges see it.
    pub const fn at(&self, edge: usize) -> AtEdge<'_> {
        AtEdge { fleet: self, edge }
    }

    /// Asserts that `floodgate audit` finds every unit and every order.
    pub fn assert_clean(&self) {
        let output = self.floodgate(&["audit", "--wait", "60s"]);
        let words = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "the books do not balance:\n{words}{errors}\n{}",
            self.logs()
        );
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (_, process) in &mut self.processes {
            // The test is over either way.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// One edge of a fleet.
pub struct AtEdge<'f> {
    fleet: &'f Fleet,
    edge: usize,
}

impl Shop for Fleet {
    fn edge(&self) -> SocketAddr {
        self.edges[0]
    }

    fn http(&self) -> &reqwest::Client {
        &self.http
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn floodgate(&self, arguments: &[&str]) -> Output {
        self.command(Part::OrderServer(0), arguments)
            .output()
            .unwrap()
    }
}

impl Shop for AtEdge<'_> {
    fn edge(&self) -> SocketAddr {
        self.fleet.edges[self.edge]
    }

    fn http(&self) -> &reqwest::Client {
        &self.fleet.http
    }

    fn data(&self) -> PathBuf {
        self.fleet.data()
    }

    fn floodgate(&self, arguments: &[&str]) -> Output {
        self.fleet.floodgate(arguments)
    }
}

/// Whether an edge tells of promo 1, asked without a client of any kind: fleets are made outside of one.
fn knows_the_promo(edge: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(edge).unwrap();
    let request =
        format!("GET /promo/state?id=1 HTTP/1.1\r\nHost: {edge}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.1 200")
}

/// An address that is free, below the ports that systems give out, and given to nobody else in this
/// process: it can be taken again after a restart.
fn address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 22_500 + u16::try_from(std::process::id() % 900).unwrap() * 8;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return SocketAddr::from(([127, 0, 0, 1], port));
        }
    }
}

/// Copies a folder of files, as a backup does.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
