//! Roles as processes of their own: what they refuse to start with, and what they wait for.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use floodgate_servers::Redis;
use floodgate_servers::redis::Fsync;

use crate::house::PATIENCE;

const ROLES: [&str; 3] = ["proxy", "backend", "writer"];

fn floodgate(arguments: &[&str], config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_floodgate"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

fn words(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A folder with that `floodgate.toml`, and an item.
fn folder(node: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("floodgate.toml"), node).unwrap();
    std::fs::write(
        config.join("catalog.toml"),
        "[[item]]\nid = 1\ntitle = \"A\"\nprice = \"1.00\"\nstock = 5\nimage = \"/resources/a.svg\"\n",
    )
    .unwrap();
    (folder, config)
}

/// A node that every role could start with, but for its secrets. Nothing listens at its Redis.
const SHARED: &str = "
node = \"north\"
engine = \"redis://127.0.0.1:1\"
database = \"postgres://shop@127.0.0.1:1/shop\"
[edge]
upstreams = [\"127.0.0.1:8101\"]
[keys]
active = \"k1\"
[[keys.accepted]]
id = \"k1\"
file = \"k1.key\"
[operator]
token_file = \"operator.token\"
[payment]
webhook_secret_file = \"webhook.secret\"
";

#[test]
fn no_role_starts_on_an_engine_of_its_own() {
    let (kept, config) = folder("");
    assert!(floodgate(&["check"], &config).status.success());
    for role in ROLES {
        let started = floodgate(&[role], &config);
        let checked = floodgate(&["check", "--role", role], &config);
        for output in [&started, &checked] {
            assert_eq!(output.status.code(), Some(64), "{}", words(output));
        }
        let said = words(&started);
        assert_eq!(
            said,
            words(&checked),
            "`check --role` tells what starting would"
        );
        let lacks = match role {
            "proxy" => &["`edge.upstreams`", "`keys.active`", "`operator.token_file`"][..],
            "backend" => &[
                "`database`",
                "`keys.active`",
                "`operator.token_file`",
                "`payment.webhook_secret_file`",
            ],
            _ => &["`database`"],
        };
        let refused = format!(
            "`engine` is \"embedded\", which lives inside of one process: `floodgate {role}`"
        );
        for part in lacks
            .iter()
            .copied()
            .chain([refused.as_str(), "floodgate.toml:1:1:"])
        {
            assert!(said.contains(part), "{role}: {part} is missing in:\n{said}");
        }
        assert_eq!(
            said.lines().count(),
            lacks.len() + 1,
            "{role} lacks no more:\n{said}"
        );
    }
    let left: Vec<_> = std::fs::read_dir(kept.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing was made but the folder: {left:?}");
}

#[test]
fn check_for_a_role_reads_no_secret() {
    let (_kept, config) = folder(SHARED);
    for role in ROLES {
        let output = floodgate(&["check", "--role", role], &config);
        assert!(output.status.success(), "{}", words(&output));
        let good = format!("good for `floodgate {role}`");
        assert!(words(&output).contains(&good), "{}", words(&output));
    }
    let output = floodgate(&["check", "--role", "edge"], &config);
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
}

#[test]
fn secrets_that_are_none_are_refused_all_at_once() {
    let (_kept, config) = folder(SHARED);
    // 32 bytes of the letter A, in base64.
    let same = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    std::fs::write(config.join("k1.key"), same).unwrap();
    std::fs::write(config.join("operator.token"), "change-me-before-the-sale").unwrap();
    for role in ["proxy", "backend"] {
        let output = floodgate(&[role], &config);
        assert_eq!(output.status.code(), Some(64), "{}", words(&output));
        let said = words(&output);
        assert!(said.contains("key `k1` is a sample"), "{said}");
        assert!(
            said.contains("the secret in operator.token is a sample"),
            "{said}"
        );
        assert_eq!(said.contains("webhook.secret"), role == "backend", "{said}");
    }
}

#[test]
fn a_redis_that_throws_keys_away_is_refused() {
    let redis = Redis::with(Fsync::Off, &["--maxmemory-policy", "allkeys-lru"]);
    let (_kept, config) = folder(&SHARED.replace("redis://127.0.0.1:1", &redis.url()));
    let output = floodgate(&["writer"], &config);
    assert_eq!(output.status.code(), Some(64), "{}", words(&output));
    let said = words(&output);
    assert!(
        said.contains("allkeys-lru") && said.contains("set noeviction"),
        "{said}"
    );
}

/// A role that was started, and is ended with the test.
struct Started {
    process: Child,
    log: PathBuf,
}

impl Started {
    fn new(role: &str, config: &Path) -> Self {
        let log = config.join("log");
        let process = Command::new(env!("CARGO_BIN_EXE_floodgate"))
            .args([role, "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { process, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The lines it prints until it is open.
    fn announced(&mut self) -> Vec<String> {
        let lines = BufReader::new(self.process.stdout.as_mut().unwrap()).lines();
        let lines = lines.map(Result::unwrap);
        let printed: Vec<_> = lines
            .take_while(|line| !line.starts_with("Ctrl-C"))
            .collect();
        let open = self.process.try_wait().unwrap().is_none();
        assert!(open, "it did not open: {printed:?}\n{}", self.log());
        printed
    }

    /// Tells it to stop, and returns its exit code.
    fn stop(&mut self) -> Option<i32> {
        let id = self.process.id().to_string();
        let told = Command::new("kill").args(["-s", "TERM", &id]).status();
        assert!(told.unwrap().success());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not stop:\n{}", self.log());
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // The test is over either way.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_opens_before_its_redis_and_says_that_it_is_not_ready() {
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/html");
    let edge =
        format!("[edge]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\npages = {pages:?}");
    let (_kept, config) = folder(&SHARED.replace("[edge]", &edge));
    for name in ["k1.key", "operator.token"] {
        let key = config.join(name).display().to_string();
        let made = Command::new(env!("CARGO_BIN_EXE_floodgate"))
            .args(["keygen", "--out", &key])
            .output();
        assert!(made.unwrap().status.success());
    }
    let mut edge = Started::new("proxy", &config);
    let printed = edge.announced();
    assert!(printed[0].ends_with("proxy north is open"), "{printed:?}");
    assert!(
        printed.contains(&"  engine    redis://127.0.0.1:1/0".to_owned()),
        "{printed:?}"
    );
    let metrics = printed
        .iter()
        .find_map(|line| line.strip_prefix("  metrics   "));
    let metrics = metrics.unwrap();
    for (path, expected) in [("/live", 200), ("/ready", 503), ("/metrics", 200)] {
        let answer = reqwest::get(metrics.replace("/metrics", path))
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{path}");
    }
    assert!(
        edge.log().lines().all(|line| line.starts_with("north ")),
        "{}",
        edge.log()
    );
    assert_eq!(edge.stop(), Some(0), "{}", edge.log());
}

#[test]
fn a_writer_waits_for_its_database_and_stops_when_told() {
    let (_kept, config) = folder(SHARED);
    let mut writer = Started::new("writer", &config);
    let begun = Instant::now();
    while !writer.log().contains("not open yet") {
        let runs = writer.process.try_wait().unwrap().is_none();
        assert!(runs, "it gave up:\n{}", writer.log());
        assert!(
            begun.elapsed() < PATIENCE,
            "it says nothing:\n{}",
            writer.log()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(writer.stop(), Some(0), "{}", writer.log());
}
