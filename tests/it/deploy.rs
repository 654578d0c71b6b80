//! `deploy/`: servers take their files, compose names what exists, units stop later than the grace
//! they give, and alert rules name metrics that there are.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use floodgate_servers::Redis;
use floodgate_servers::redis::Fsync;
use serde_yaml::Value;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn deploy(path: &str) -> PathBuf {
    repository("deploy").join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: &str) -> Value {
    let mut value: Value = serde_yaml::from_str(&read(&deploy(path))).unwrap();
    value.apply_merge().unwrap();
    value
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let mapping = value.as_mapping().unwrap();
    mapping
        .iter()
        .map(|(key, value)| (key.as_str().unwrap(), value))
}

fn texts(value: &Value) -> Vec<&str> {
    let list = value.as_sequence().unwrap().iter();
    list.map(|text| text.as_str().unwrap()).collect()
}

fn names_in(folder: &str, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(deploy(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(ending)).collect()
}

#[test]
fn redis_takes_its_file_and_syncs_before_it_answers() {
    let file = deploy("redis/floodgate.conf");
    // What it is started with otherwise keeps nothing on disk: the file has to say so.
    let redis = Redis::with(Fsync::Off, &["--include", file.to_str().unwrap()]);
    for (key, value) in [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "noeviction"),
        ("save", ""),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
        let asked = format!("CONFIG GET {key}\r\nQUIT\r\n");
        stream.write_all(asked.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let words: Vec<&str> = answer.split("\r\n").collect();
        assert_eq!((words[2], words[4]), (key, value), "{answer}");
    }
}

#[test]
fn mariadb_takes_its_file_and_syncs_each_commit() {
    // It reads every line before it helps, and refuses what it does not know.
    let read = Command::new("mariadbd")
        .env(
            "PATH",
            format!("{}:/usr/sbin", std::env::var("PATH").unwrap()),
        )
        .arg(format!(
            "--defaults-file={}",
            deploy("mariadb/floodgate.cnf").display()
        ))
        .args(["--user=nobody", "--verbose", "--help"])
        .output()
        .unwrap();
    let (words, errors) = (
        String::from_utf8_lossy(&read.stdout),
        String::from_utf8_lossy(&read.stderr),
    );
    assert!(read.status.success(), "{errors}");
    let value = |key: &str| {
        let line = words.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key}")).trim()
    };
    assert_eq!(value("innodb-flush-log-at-trx-commit "), "1");
    assert_eq!(value("innodb-buffer-pool-size "), (256 << 20).to_string());
    assert_eq!(value("sync-binlog "), "1");
    assert!(value("sql-mode ").contains("STRICT_TRANS_TABLES"));
}

#[test]
fn compose_names_what_exists() {
    let compose = yaml("compose/compose.yaml");
    let known = |section: &str| -> BTreeSet<&str> {
        entries(&compose[section]).map(|(name, _)| name).collect()
    };
    let (services, volumes, secrets) = (known("services"), known("volumes"), known("secrets"));
    let config = read(&deploy("compose/config/floodgate.toml"));
    for (name, service) in entries(&compose["services"]) {
        for secret in texts(&service["secrets"]) {
            assert!(secrets.contains(secret), "{name}: secret {secret}");
        }
        for volume in texts(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            let exists = match source.strip_prefix('.') {
                Some(_) => deploy("compose").join(source).exists(),
                None => volumes.contains(source),
            };
            assert!(exists, "{name}: volume {volume}");
        }
        if let Some(needs) = service.get("depends_on") {
            let mut needs = entries(needs);
            assert!(needs.all(|(needed, _)| services.contains(needed)), "{name}");
        }
        let address = service["networks"]["house"]["ipv4_address"]
            .as_str()
            .unwrap();
        let is_reached =
            config.contains(&format!("{address}:")) || config.contains(&format!("@{address}"));
        let is_asked_for = ["backend", "redis", "mariadb"].contains(&name);
        assert_eq!(is_reached, is_asked_for, "{name} at {address}");
    }
    for role in ["proxy", "backend", "writer"] {
        let command = texts(&compose["services"][role]["command"]);
        assert_eq!(command, [role, "--config", "/etc/floodgate"]);
    }
    // Each secret that the configuration names is given to those who read it.
    let named = config
        .lines()
        .filter_map(|line| line.split_once("\"/run/secrets/"));
    let named: Vec<_> = named.map(|(_, rest)| rest.trim_end_matches('"')).collect();
    assert_eq!(named.len(), 5);
    for role in ["proxy", "backend", "writer"] {
        let given = texts(&compose["services"][role]["secrets"]);
        assert!(named.iter().all(|name| given.contains(name)), "{role}");
    }
    let dockerfile = compose["services"]["proxy"]["build"]["dockerfile"].as_str();
    assert!(repository(dockerfile.unwrap()).is_file());
}

#[test]
fn the_image_copies_what_exists() {
    let dockerfile = read(&deploy("Dockerfile"));
    let stages: Vec<_> = dockerfile
        .lines()
        .filter(|line| line.starts_with("FROM "))
        .collect();
    assert_eq!(stages.len(), 2);
    assert!(stages[0].ends_with(" AS build"), "{stages:?}");
    assert!(dockerfile.contains("--from=build /src/html ") && repository("html").is_dir());
    assert!(dockerfile.contains("--from=build /src/target/release/floodgate "));
}

/// The keys of a unit's section, with their values.
fn unit(text: &str, section: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut keys = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            inside = line == format!("[{section}]");
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
            keys.push((key.to_owned(), value.to_owned()));
        }
    }
    keys
}

#[test]
fn units_run_the_roles_and_wait_out_their_grace() {
    let graces = ["edge", "orders-1", "orders-2"].map(|host| {
        let text = read(&deploy(&format!("four-hosts/{host}/floodgate.toml")));
        assert!(
            !text.contains("grace"),
            "{host} has a grace of its own: compare it"
        );
        lua_free_rules::config::Node::default().grace.duration()
    });
    let units = names_in("systemd", ".service");
    assert_eq!(units.len(), 3, "{units:?}");
    for role in ["proxy", "backend", "writer"] {
        let text = read(&deploy(&format!("systemd/floodgate-{role}.service")));
        let service = unit(&text, "Service");
        let value = |key: &str| {
            let found = service.iter().find(|(name, _)| name == key);
            found
                .unwrap_or_else(|| panic!("{role} has no {key}"))
                .1
                .as_str()
        };
        let command = format!("/usr/bin/floodgate {role} --config /etc/floodgate");
        assert_eq!(value("ExecStart"), command);
        // What a bad configuration exits with.
        assert_eq!(value("RestartPreventExitStatus"), "64");
        let seconds = value("TimeoutStopSec").strip_suffix('s').unwrap();
        let stop = std::time::Duration::from_secs(seconds.parse().unwrap());
        assert!(graces.iter().all(|grace| stop > *grace), "{role}");
        assert!(value("LimitNOFILE").parse::<u32>().unwrap() >= 4_096);
        assert_eq!(value("ProtectSystem"), "strict");
    }
}

/// Every metric's name in the text.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let found = text.match_indices("floodgate_").map(|(at, _)| &text[at..]);
    let names = found.map(|rest| rest.split(|letter| !is_part(letter)).next().unwrap());
    names.map(str::to_owned).collect()
}

#[test]
fn alerts_are_about_metrics_that_there_are() {
    let code: String = ["proxy", "backend"]
        .map(|part| read(&repository(&format!("{part}/src/metrics.rs"))))
        .concat();
    let known = metrics(&code);
    assert!(known.len() > 20, "{known:?}");
    let outcomes = [
        read(&repository("lua-free-rules/src/refusal.rs")),
        read(&repository("backend/src/ledger/payments.rs")),
    ]
    .concat();
    let rules = yaml("prometheus/floodgate.rules.yml");
    let mut names = BTreeSet::new();
    for group in rules["groups"].as_sequence().unwrap() {
        for rule in group["rules"].as_sequence().unwrap() {
            let (name, expression) = (
                rule["alert"].as_str().unwrap(),
                rule["expr"].as_str().unwrap(),
            );
            assert!(names.insert(name), "{name} stands there twice");
            let mut metrics = metrics(expression);
            if name != "FloodgateDown" {
                assert!(!metrics.is_empty(), "{name}");
            }
            metrics.retain(|metric| {
                let base = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|ending| metric.strip_suffix(ending))
                    .unwrap_or(metric);
                !known.contains(base)
            });
            assert!(metrics.is_empty(), "{name} is about {metrics:?}");
            for outcome in expression.split("outcome=\"").skip(1) {
                let outcome = outcome.split('"').next().unwrap();
                assert!(
                    outcomes.contains(&format!("\"{outcome}\"")),
                    "{name}: {outcome}"
                );
            }
            let [open, closed] = ['(', ')'].map(|which| expression.matches(which).count());
            assert_eq!(open, closed, "{name}");
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(["page", "ticket"].contains(&severity), "{name}");
            assert!(rule["annotations"]["summary"].is_string(), "{name}");
        }
    }
    assert!(names.len() >= 10);

    let scraped = yaml("prometheus/prometheus.yml");
    for file in texts(&scraped["rule_files"]) {
        assert!(deploy("prometheus").join(file).is_file(), "{file}");
    }
    let jobs = scraped["scrape_configs"].as_sequence().unwrap().iter();
    assert!(
        jobs.clone()
            .all(|job| job["job_name"].as_str().unwrap().starts_with("floodgate-"))
    );
    let targets = jobs.flat_map(|job| texts(&job["static_configs"][0]["targets"]));
    assert!(
        targets
            .into_iter()
            .all(|target| target.parse::<std::net::SocketAddr>().is_ok())
    );
}

#[test]
fn floodgate_check_takes_every_folder_for_every_role_of_its_host() {
    for (folder, roles) in [
        ("compose/config", ["proxy", "backend", "writer"].as_slice()),
        ("four-hosts/edge", &["proxy"]),
        ("four-hosts/orders-1", &["backend", "writer"]),
        ("four-hosts/orders-2", &["backend", "writer"]),
    ] {
        for role in roles {
            let checked = Command::new(env!("CARGO_BIN_EXE_floodgate"))
                .args(["check", "--role", role, "--config"])
                .arg(deploy(folder))
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&checked.stderr);
            assert!(checked.status.success(), "{folder} as {role}: {errors}");
        }
    }
}
