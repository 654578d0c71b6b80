//! A Floodgate of one's own: the real binary with a configuration made for one test.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;

use crate::buyer::Buyer;

/// Longest that anything awaited may take before the test fails; generous, since tests share cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a test's configuration says, beyond free ports.
pub struct Plan {
    promos: Vec<String>,
    node: String,
    edge: String,
    listen: SocketAddr,
    upstreams: Vec<SocketAddr>,
    /// Its URL and its user's password.
    database: Option<(String, String)>,
}

/// A promo of `stock` units of item 1 that is open at once and asks for no challenge; one unit each.
pub fn open_promo(id: i64, stock: u32) -> String {
    promo(id, stock, "starts_in = \"0s\"", "")
}

/// A promo of item 1.
pub fn promo(id: i64, stock: u32, start: &str, more: &str) -> String {
    let challenge = if more.contains("challenge") {
        ""
    } else {
        "challenge = \"none\"\n"
    };
    format!(
        "id = {id}\nitem = 1\n{start}\nlasts = \"1h\"\nprice = \"99.00\"\nstock = {stock}\n{challenge}{more}\n"
    )
}

impl Plan {
    pub fn new(promos: &[String]) -> Self {
        Self {
            promos: promos.to_vec(),
            node: String::new(),
            edge: String::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            upstreams: Vec::new(),
            database: None,
        }
    }

    /// A database server, and the password of its user.
    pub fn database(mut self, url: &str, password: &str) -> Self {
        self.database = Some((url.to_owned(), password.to_owned()));
        self
    }

    /// Where buyers come in, if it must be the same address after a restart.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Lines at the top of floodgate.toml, or whole tables for its end.
    pub fn tables(mut self, text: &str) -> Self {
        self.node.push_str(text);
        self
    }

    /// Lines of `[edge]`, or its tables.
    pub fn edge(mut self, text: &str) -> Self {
        self.edge.push_str(text);
        self
    }

    /// Where the edge finds the order servers, if not where they listen.
    pub fn upstreams(mut self, addresses: &[SocketAddr]) -> Self {
        self.upstreams = addresses.to_vec();
        self
    }

    fn write(&self, folder: &Path) {
        let config = folder.join("config");
        std::fs::create_dir_all(config.join("promos")).unwrap();
        let mut text = String::from("data_dir = \"../data\"\n");
        if let Some((url, password)) = &self.database {
            std::fs::write(config.join("database.password"), format!("{password}\n")).unwrap();
            writeln!(text, "database = \"{url}\"").unwrap();
            text.push_str("database_password_file = \"database.password\"\n");
        }
        text.push_str("\n[edge]\n");
        writeln!(
            text,
            "listen = \"{}\"\nadmin = \"127.0.0.1:0\"",
            self.listen
        )
        .unwrap();
        writeln!(
            text,
            "pages = {:?}",
            concat!(env!("CARGO_MANIFEST_DIR"), "/html")
        )
        .unwrap();
        if !self.upstreams.is_empty() {
            let all: Vec<_> = self
                .upstreams
                .iter()
                .map(|address| format!("{address:?}"))
                .collect();
            let all: Vec<_> = all.iter().map(|address| format!("\"{address}\"")).collect();
            writeln!(text, "upstreams = [{}]", all.join(", ")).unwrap();
        }
        text.push_str(&self.edge);
        if !self.edge.contains("[edge.rates") {
            text.push_str(OPEN_RATES);
        }
        text.push_str("\n[orders]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n");
        text.push_str("admin = \"127.0.0.1:0\"\n");
        if !self.node.contains("[accounts]") {
            text.push_str("\n[accounts]\notp_delivery = \"echo\"\notp_per_hour = 1000\n");
        }
        text.push('\n');
        text.push_str(&self.node);
        std::fs::write(config.join("floodgate.toml"), text).unwrap();
        std::fs::write(config.join("catalog.toml"), CATALOG).unwrap();
        for (number, promo) in self.promos.iter().enumerate() {
            std::fs::write(config.join(format!("promos/{number}.toml")), promo).unwrap();
        }
    }
}

/// Rates that a whole crowd on one loopback address does not meet.
pub const OPEN_RATES: &str = "
[edge.rates]
address = { per_second = 100000, burst = 100000 }
buyer = { per_second = 1000, burst = 1000 }
accounts = { per_second = 100000, burst = 100000 }
";

pub const CATALOG: &str = "
[[item]]
id = 1
title = \"Sneakers\"
price = \"129.00\"
stock = 100000
description = \"Light and quick.\"
image = \"/resources/img/sneakers.svg\"

[[item]]
id = 2
title = \"Headphones\"
price = \"249.00\"
stock = 500
image = \"/resources/img/headphones.svg\"
";

/// A shop that is open, in one process or in many.
pub trait Shop {
    /// Where buyers come in.
    fn edge(&self) -> SocketAddr;

    /// How they ask.
    fn http(&self) -> &reqwest::Client;

    /// The folder with the operator's token, and room for histories.
    fn data(&self) -> PathBuf;

    /// Runs a subcommand that asks the shop.
    fn floodgate(&self, arguments: &[&str]) -> Output;
}

impl Shop for House {
    fn edge(&self) -> SocketAddr {
        self.edge
    }

    fn http(&self) -> &reqwest::Client {
        &self.http
    }

    fn data(&self) -> PathBuf {
        Self::data(self)
    }

    fn floodgate(&self, arguments: &[&str]) -> Output {
        Self::floodgate(self, arguments)
    }
}

/// A running Floodgate and its folder.
pub struct House {
    folder: tempfile::TempDir,
    process: Option<Child>,
    pub edge: SocketAddr,
    pub edge_admin: SocketAddr,
    pub orders: Vec<SocketAddr>,
    pub orders_admin: SocketAddr,
    pub http: reqwest::Client,
}

impl House {
    /// Starts the binary and waits until it is open.
    pub fn open(plan: &Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        plan.write(folder.path());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut house = Self {
            folder,
            process: None,
            edge: nowhere,
            edge_admin: nowhere,
            orders: Vec::new(),
            orders_admin: nowhere,
            http: reqwest::Client::builder()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
        };
        house.start();
        house
    }

    /// Starts the binary on the same folder.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let mut process = self
            .command(&["run"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut printed = Vec::new();
        let open = loop {
            match lines.next() {
                Some(Ok(line)) if line.starts_with("Ctrl-C") => break true,
                Some(Ok(line)) => printed.push(line),
                _ => break false,
            }
        };
        // The pipe is read on, so that the process never blocks on its own words.
        std::thread::spawn(move || lines.count());
        self.process = Some(process);
        assert!(open, "it did not open: {printed:?}\n{}", self.log());
        let running = std::fs::read(self.data().join("running.json")).unwrap();
        let running: Value = serde_json::from_slice(&running).unwrap();
        let address = |value: &Value| value.as_str().unwrap().parse::<SocketAddr>().unwrap();
        self.edge = address(&running["edge"]);
        self.edge_admin = address(&running["edge_admin"]);
        self.orders = running["orders"]
            .as_array()
            .unwrap()
            .iter()
            .map(address)
            .collect();
        self.orders_admin = address(&running["orders_admin"]);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// A signal by name (`TERM`, `INT`), then its exit code and how long it took.
    pub fn stop_by(&mut self, signal: &str) -> (Option<i32>, Duration) {
        let mut process = self.process.take().expect("it runs");
        let begun = Instant::now();
        let id = process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", signal, &id])
                .status()
                .unwrap()
                .success()
        );
        while begun.elapsed() < PATIENCE {
            if let Some(status) = process.try_wait().unwrap() {
                return (status.code(), begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        panic!("it did not stop on {signal}");
    }

    /// Runs another subcommand on the same configuration.
    pub fn floodgate(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Asserts that `floodgate audit` finds every unit and every order.
    pub fn assert_clean(&self) {
        let output = self.floodgate(&["audit", "--wait", "30s"]);
        let words = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "the books do not balance:\n{words}{errors}\n{}",
            self.log()
        );
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_floodgate"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.folder.path().join("config"));
        command
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    pub fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(self.folder.path().join("log")) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    pub fn operator_token(&self) -> String {
        std::fs::read_to_string(self.data().join("operator.token"))
            .unwrap()
            .trim()
            .to_owned()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.edge)
    }

    /// A new buyer, registered and signed in.
    pub async fn buyer(&self) -> Buyer {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Buyer::register(self, &format!("+4915{number:08}")).await
    }

    /// So many new buyers, registered side by side.
    pub async fn buyers(&self, count: usize) -> Vec<Buyer> {
        let mut buyers = Vec::new();
        while buyers.len() < count {
            let batch = (count - buyers.len()).min(16);
            let joined = join_all((0..batch).map(|_| self.buyer())).await;
            buyers.extend(joined);
        }
        buyers
    }

    /// An operator's request through the edge.
    pub async fn operate(&self, path: &str, body: Value) -> (u16, Value) {
        let token = self.operator_token();
        let request = self
            .http
            .post(self.url(path))
            .bearer_auth(token)
            .json(&body);
        answer(request.send().await.unwrap()).await
    }

    /// The sum of a metric over the edge's series that carry every one of `labels`.
    pub async fn edge_metric(&self, name: &str, labels: &[&str]) -> f64 {
        let url = format!("http://{}/metrics", self.edge_admin);
        let text = self
            .http
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && labels.iter().all(|label| line.contains(label))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Requests for orders that the edge sent to order servers so far.
    pub async fn orders_sent_up(&self) -> f64 {
        self.edge_metric(
            "floodgate_edge_upstream_requests_total",
            &["route=\"order_create\""],
        )
        .await
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The test is over either way.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- log of {} ---\n{}",
                self.folder.path().display(),
                self.log()
            );
        }
    }
}

/// Status and JSON body of an answer.
pub async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body =
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON ({status}): {text}"));
    (status, body)
}

/// The error code in a body, 0 where there is none.
pub fn code(body: &Value) -> i64 {
    body["data"]["errCode"].as_i64().unwrap_or(0)
}

/// Waits until `look` finds something.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
