//! `perf bench` with every server it knows, so short that its figures say nothing: all of them must be there,
//! and a server that answers wrongly must fail it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const PERF: &str = env!("CARGO_BIN_EXE_perf");

/// Floodgate beside `perf`: built with the whole workspace.
fn floodgate() -> PathBuf {
    let path = Path::new(PERF).with_file_name("floodgate");
    assert!(
        path.is_file(),
        "{} is missing: test the whole workspace",
        path.display()
    );
    path
}

/// Runs it; `first` is looked into before the usual folders of programs.
fn bench(first: &Path, words: &[&str]) -> Output {
    let path = std::env::var("PATH").unwrap();
    Command::new(PERF)
        .args(["bench", "--rounds", "1", "--seconds", "1", "--workers", "1"])
        .args(["--connections", "8", "--busy", "8", "--idle", "50"])
        .args(["--held", "200", "--orders", "300", "--floodgate"])
        .arg(floodgate())
        .args(["--pages", concat!(env!("CARGO_MANIFEST_DIR"), "/../html")])
        .args(words)
        .env("PATH", format!("{}:{path}:/usr/sbin", first.display()))
        .output()
        .unwrap()
}

/// The numbers at a place in every one of these.
fn numbers(all: &Value, key: &str) -> Vec<f64> {
    let all = all.as_array().unwrap().iter();
    let numbers = all.map(|one| match &one[key] {
        Value::Array(rounds) => rounds[0].as_f64(),
        other => other.as_f64(),
    });
    numbers.map(Option::unwrap).collect()
}

fn names(all: &Value, key: &str) -> Vec<String> {
    let all = all.as_array().unwrap().iter();
    all.map(|one| one[key].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_server_does_every_work_and_is_measured() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().display().to_string();
    let output = bench(Path::new("/usr/bin"), &["--out", &folder]);
    let (told, errors) = (output.stdout, output.stderr);
    let (told, errors) = (
        String::from_utf8_lossy(&told),
        String::from_utf8_lossy(&errors),
    );
    assert!(output.status.success(), "{told}{errors}");

    let read = |name: &str| std::fs::read_to_string(out.path().join(name)).unwrap();
    let report: Value = serde_json::from_str(&read("bench.json")).unwrap();
    let servers = [
        "Floodgate",
        "bare epoll responder",
        "nginx, fixed answer",
        "nginx, proxy_cache",
        "nginx + Lua, shared dictionary",
        "haproxy, cache",
        "varnish",
    ];
    let table = |work: &str| {
        let tables = report["tables"].as_array().unwrap().iter();
        let mut found = tables.filter(|table| table["work"] == work);
        let rows = &found.next().unwrap_or_else(|| panic!("no table: {work}"))["rows"];
        assert!(found.next().is_none(), "{work} twice");
        rows
    };
    let static_nginx = "nginx, compressed file";
    let sales = ["Floodgate", "nginx + Lua + Redis"];
    let refusals = [sales[0], sales[1], "Floodgate, a cached item"];
    for (work, right) in [
        ("cached item", &servers[..]),
        ("order passed on", &["Floodgate", "nginx, proxy_pass"]),
        ("order without a token, refused", &refusals),
        (
            "access token for a promo that is sold out, refused",
            &refusals,
        ),
        ("order with a forged token, refused", &refusals),
        (
            "page, compressed beforehand",
            &["Floodgate", "bare epoll responder", static_nginx],
        ),
        ("page that has not changed", &["Floodgate", static_nginx]),
    ] {
        assert_eq!(names(table(work), "peer"), right, "{work}");
    }
    for table in report["tables"].as_array().unwrap() {
        let rows = table["rows"].as_array().unwrap();
        assert!(rows[0].get("ratio").is_none(), "{table}");
        for ratio in rows.iter().skip(1).map(|row| &row["ratio"]["median"]) {
            let ratio = ratio.as_f64().unwrap();
            assert!(ratio.is_finite() && ratio > 0.0, "{table}");
        }
        for key in ["cpu_us", "rates", "p99_ms"] {
            let all = numbers(&table["rows"], key);
            assert!(all.iter().all(|number| *number > 0.0), "{key} of {table}");
        }
    }
    let sale = &report["sale"];
    assert_eq!(names(&sale["table"]["rows"], "peer"), sales);
    let processes = ["edge", "order server", "Redis", "nginx", "Redis"];
    assert_eq!(names(&sale["processes"], "name"), processes);
    for used in [
        numbers(&sale["processes"], "cpu_us"),
        numbers(&sale["table"]["rows"], "rates"),
        numbers(&sale["table"]["rows"], "p50_ms"),
    ] {
        assert!(used.iter().all(|number| *number > 0.0), "{sale}");
    }
    for check in ["session_us", "token_us", "forged_us"] {
        assert!(
            report["checks"][check][0].as_f64().unwrap() > 0.0,
            "{check}"
        );
    }
    assert_eq!(report["beside"].as_array().unwrap().len(), 3);
    let steady = &report["steady"];
    assert_eq!(names(&steady["rows"], "peer"), servers);
    assert!(steady["rate"].as_f64().unwrap() > 0.0, "{steady}");
    let crowded = &report["crowded"];
    assert_eq!(names(crowded, "peer"), ["Floodgate", "nginx, proxy_cache"]);
    assert_eq!(numbers(crowded, "idle"), [200.0, 200.0]);
    let crowded = crowded.as_array().unwrap().iter();
    let crowded = crowded.flat_map(|crowded| [&crowded["alone"], &crowded["beside"]]);
    for latencies in steady["rows"].as_array().unwrap().iter().chain(crowded) {
        for key in ["p50_ms", "p99_ms", "p999_ms", "max_ms"] {
            let round = latencies[key][0].as_f64().unwrap();
            assert!(round.is_finite() && round > 0.0, "{key} of {latencies}");
        }
    }
    assert_eq!(names(&report["idle"], "peer"), servers);

    assert_eq!(told, read("bench.txt"));
    let chart = read("bench.svg");
    for name in servers.iter().chain([&static_nginx, &sales[1]]) {
        assert!(told.contains(name) && chart.contains(name), "{name}");
    }
}

#[test]
fn a_server_that_answers_wrongly_is_a_failure() {
    // An nginx that answers everything with something else.
    let folder = tempfile::tempdir().unwrap();
    let (wrong, nginx) = (folder.path().join("wrong"), folder.path().join("nginx"));
    std::fs::write(&wrong, "another item").unwrap();
    let script = format!(
        "#!/bin/sh\nport=$(sed -n 's/.*listen 127.0.0.1:\\([0-9]*\\).*/\\1/p' \"$2\")\n\
         exec '{PERF}' bare --port \"$port\" --body '{}'\n",
        wrong.display()
    );
    std::fs::write(&nginx, script).unwrap();
    std::fs::set_permissions(&nginx, std::fs::Permissions::from_mode(0o755)).unwrap();

    let out = folder.path().join("out");
    let words = ["--only", "item", "--out", out.to_str().unwrap()];
    let output = bench(folder.path(), &words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let why = "nginx, fixed answer answers something else";
    assert!(errors.contains(why), "{errors}");
    let kept = std::fs::read_to_string(out.join("bench.txt")).unwrap();
    assert!(kept.contains("FAILED: Item, workers: 1: "), "{kept}");
}
