//! The crowd of `perf`, let loose on the real binary: the door and the stock hold under a rush, and
//! nothing is lost, doubled or told wrongly while the process is killed again and again.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Parser as _;
use floodgate_perf::cli::{Cli, Command};
use floodgate_perf::crowd::report::Report;
use serde_json::Value;

use crate::house::{House, Plan, Shop, promo};

/// Tokens that outlive the test: then no place comes back, and the door's count is exact.
const LONG_TOKENS: &str = "[token]\nttl = \"1h\"\n";
/// What a crowd needs of the order servers.
const TEST_ACCOUNTS: &str =
    "[accounts]\notp_delivery = \"echo\"\notp_per_hour = 1000\ntest_accounts = true\n";

/// A shop for a crowd: one promo of so many units.
pub fn plan(stock: u32) -> Plan {
    Plan::new(&[promo(1, stock, "starts_in = \"0s\"", LONG_TOKENS)]).tables(TEST_ACCOUNTS)
}

/// A crowd at play, on threads of its own.
pub struct Crowd {
    playing: JoinHandle<Report>,
    pub history: PathBuf,
}

impl Crowd {
    /// Lets a crowd loose; `words` are those of the command line.
    pub fn come(shop: &impl Shop, words: &[&str]) -> Self {
        Self::keep(shop, "history.jsonl", words)
    }

    /// The same, with a name for its history.
    pub fn keep(shop: &impl Shop, history: &str, words: &[&str]) -> Self {
        let history = shop.data().join(history);
        let token = shop.data().join("operator.token");
        let fixed = ["perf", "crowd", "--promo", "1", "--ceiling-for", "0s"];
        let mut line: Vec<String> = fixed.iter().chain(words).map(ToString::to_string).collect();
        for (name, value) in [
            ("--url", format!("http://{}", shop.edge())),
            ("--operator-token-file", token.display().to_string()),
            ("--history", history.display().to_string()),
        ] {
            line.extend([name.to_owned(), value]);
        }
        let Command::Crowd(asked) = Cli::try_parse_from(&line).unwrap().command else {
            panic!("it is the crowd that was called");
        };
        let playing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime
                .block_on(floodgate_perf::crowd::play(&asked))
                .unwrap_or_else(|error| panic!("the crowd could not be played: {error}"))
        });
        Self { playing, history }
    }

    pub fn is_over(&self) -> bool {
        self.playing.is_finished()
    }

    /// Waits until everyone is done. No buyer may have seen a promise broken.
    pub fn end(self) -> Report {
        let report = self.playing.join().unwrap();
        assert_eq!(report.broken, Vec::<String>::new());
        assert!(report.cut_off.is_none(), "{report}");
        report
    }
}

/// What `floodgate audit --history` says, and its exit code.
pub fn audit(shop: &impl Shop, history: &Path) -> (Option<i32>, Value) {
    audit_all(shop, &[history])
}

/// The same, for the histories of several crowds.
pub fn audit_all(shop: &impl Shop, histories: &[&Path]) -> (Option<i32>, Value) {
    let histories = histories.iter().map(|path| path.display().to_string());
    let histories: Vec<String> = histories.collect();
    let mut words = vec!["audit", "--json", "--wait", "60s"];
    words.extend(histories.iter().flat_map(|path| ["--history", path]));
    let output = shop.floodgate(&words);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("no report: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), report)
}

/// Asserts that books and history are clean, and returns the report.
pub fn assert_true(shop: &impl Shop, history: &Path) -> Value {
    let (exit, report) = audit(shop, history);
    assert_eq!(exit, Some(0), "{report:#}");
    assert_eq!(report["clean"], true, "{report:#}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_buyers_for_a_hundred_units() {
    let mut house = House::open(&plan(100));
    let seed = draw();
    println!("seed {seed}");
    let history = house.data().join("history.jsonl");
    let words =
        format!("--buyers 2000 --within 3s --connections 400 --think exp:50ms --seed {seed}");
    let words: Vec<&str> = words.split(' ').collect();
    let crowd = Crowd::come(&house, &words);
    let report = tokio::task::spawn_blocking(|| crowd.end()).await.unwrap();

    let funnel = report.funnel;
    assert_eq!(funnel.arrived, 2_000, "{report}");
    assert_eq!(funnel.reserved, 100, "exactly the stock is sold: {report}");
    assert!(funnel.admitted <= 500, "five for each unit: {report}");
    let audited = assert_true(&house, &history);
    assert_eq!(audited["history"]["inLedger"], 100, "{audited:#}");
    assert_eq!(audited["history"]["accepted"], 100, "{audited:#}");

    // At rest, from the files alone, it comes to the same.
    let (exit, _) = house.stop_by("TERM");
    assert_eq!(exit, Some(0), "{}", house.log());
    assert_eq!(assert_true(&house, &history)["history"], audited["history"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_in_mid_sale() {
    let seed = draw();
    // `FLOODGATE_KILLS` asks for more of them; sale and crowd last as long as they do.
    let kills = std::env::var("FLOODGATE_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let (stock, buyers) = (80 * kills, 200 * kills);
    println!("seed {seed}, {kills} kills, {buyers} buyers for {stock} units");
    let mut house = House::open(&plan(stock).listen(lasting_address()));
    // A closed loop: the crowd comes no further while the shop is away, so the sale lasts.
    let words = format!(
        "--buyers {buyers} --concurrency 60 --connections 200 --think exp:20ms \
         --patience 2m --tries 100 --timeout 20s --time-limit 9m --seed {seed}"
    );
    let words: Vec<&str> = words.split_whitespace().collect();
    let crowd = Crowd::come(&house, &words);

    let mut dice = u64::from(seed);
    for kill in 1..=kills {
        // The moment: when so many orders were asked for since the restart, and a little later.
        let orders = (next(&mut dice) % 40) as f64;
        while house.orders_sent_up().await < orders {
            assert!(!crowd.is_over(), "seed {seed}: kill {kill} came too late");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_micros(next(&mut dice) % 20_000)).await;
        assert!(!crowd.is_over(), "seed {seed}: kill {kill} came too late");
        house.kill();
        house.start();
    }

    let history = crowd.history.clone();
    let report = tokio::task::spawn_blocking(|| crowd.end()).await.unwrap();
    let audited = assert_true(&house, &history);
    println!("{report}\n{:#}", audited["history"]);
    let books = &audited["promos"][0]["books"];
    assert_eq!(books["available"], 0, "seed {seed}: {report}\n{audited:#}");
    assert_eq!(
        audited["history"]["inLedger"], stock,
        "seed {seed}: {report}\n{audited:#}"
    );
}

/// A seed that is printed when the test fails; `FLOODGATE_SEED` plays one again.
pub fn draw() -> u32 {
    match std::env::var("FLOODGATE_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => getrandom::u32().unwrap(),
    }
}

/// SplitMix64.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// An address that is free, and below the ports that systems give out: nobody takes it while the
/// shop is away.
fn lasting_address() -> SocketAddr {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let mut ports = first..first + 2_000;
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    SocketAddr::from(([127, 0, 0, 1], free.expect("a free port")))
}
