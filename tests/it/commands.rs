//! The subcommands as an operator meets them: help, check, keygen, publish, audit, exit codes.

use std::process::{Command, Output};

use crate::house::{House, Plan, open_promo};

fn floodgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_floodgate"))
        .args(arguments)
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

#[test]
fn help_teaches() {
    for (arguments, taught) in [
        (&["--help"][..], "Exit codes"),
        (&["run", "--help"], "SIGTERM"),
        (&["publish", "--help"], "never reset"),
        (&["audit", "--help"], "stock equation"),
        (&["keygen", "--help"], "rotate"),
        (&["proxy", "--help"], "edge.upstreams"),
        (&["backend", "--help"], "nothing is published"),
        (&["writer", "--help"], "takes over"),
        (&["check", "--help"], "--role"),
        (&["dead-letters", "replay", "--help"], "under a new id"),
    ] {
        let output = floodgate(arguments);
        assert!(output.status.success());
        assert!(
            words(&output).contains(taught),
            "{arguments:?}: {}",
            words(&output)
        );
    }
}

#[test]
fn check_reports_every_error_and_exits_with_64() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "floodgate.toml",
        b"grace = \"soon\"\n[edge]\nlisten = \"0.0.0.0:80\"\nlissten = 1\n",
    );
    write(
        "catalog.toml",
        b"[[item]]\nid = 1\ntitle = \"A\"\nprice = \"1.00\"\nstock = 5\nimage = \"/a.svg\"\n",
    );
    write(
        "promos/a.toml",
        b"id = 1\nitem = 9\nstarts_in = \"0s\"\nlasts = \"1h\"\nprice = \"1.00\"\nstock = 0\n",
    );
    write("promos/b.toml", b"id = 2\n\xff");
    let config = folder.path().display().to_string();
    for command in ["check", "run"] {
        let output = floodgate(&[command, "--config", &config]);
        assert_eq!(output.status.code(), Some(64), "{}", words(&output));
        let said = words(&output);
        for part in [
            "floodgate.toml:1:9:",
            "floodgate.toml:4:1:",
            "did you mean `listen`",
            "behind_tls",
            "promos/a.toml:2:8:",
            "promos/a.toml:6:9:",
            "promos/b.toml: line 2 is not UTF-8",
        ] {
            assert!(said.contains(part), "{part} is missing in:\n{said}");
        }
    }
    let output = floodgate(&["check", "--config", "/nowhere"]);
    assert_eq!(output.status.code(), Some(64), "{}", words(&output));
}

#[test]
fn the_configuration_that_ships_is_good() {
    let output = floodgate(&[
        "check",
        "--config",
        concat!(env!("CARGO_MANIFEST_DIR"), "/config"),
    ]);
    assert!(output.status.success(), "{}", words(&output));
}

#[test]
fn keygen_makes_a_key_that_works_and_never_overwrites_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k9.key").display().to_string();
    let output = floodgate(&["keygen", "--id", "k9", "--out", &path]);
    assert!(output.status.success(), "{}", words(&output));
    let secret = std::fs::read_to_string(&path).unwrap();
    assert!(
        !words(&output).contains(secret.trim()),
        "a key in a file is not printed"
    );
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        floodgate(&["keygen", "--out", &path]).status.code(),
        Some(1)
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), secret);
    assert_eq!(
        floodgate(&["keygen", "--id", "a b"]).status.code(),
        Some(64)
    );

    let keys =
        format!("[keys]\nactive = \"k9\"\n[[keys.accepted]]\nid = \"k9\"\nfile = {path:?}\n");
    let house = House::open(&Plan::new(&[open_promo(1, 1)]).tables(&keys));
    assert!(!house.data().join("token.key").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_and_audit_work_on_the_files_when_nothing_runs() {
    let mut house = House::open(&Plan::new(&[open_promo(1, 5)]));
    let buyer = house.buyer().await;
    buyer.buy(1).await;
    let second = house.floodgate(&["run"]);
    assert_eq!(
        second.status.code(),
        Some(64),
        "the files are held: {}",
        words(&second)
    );
    house.stop_by("TERM");

    let later =
        "id = 2\nitem = 2\nstarts_in = \"1h\"\nlasts = \"1h\"\nprice = \"9.00\"\nstock = 5\n";
    std::fs::write(house.config().join("promos/later.toml"), later).unwrap();
    for said in ["published, generation 1", "unchanged, generation 1"] {
        let output = house.floodgate(&["publish", "2"]);
        assert!(
            output.status.success() && words(&output).contains(said),
            "{}",
            words(&output)
        );
    }
    assert_eq!(house.floodgate(&["publish", "3"]).status.code(), Some(64));
    house.assert_clean();
    let json = house.floodgate(&["audit", "--json", "--promo", "1"]);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(report.is_object(), "{report}");
    house.start();
    house.assert_clean();

    // A file that was changed since the process started is not published under its old content.
    std::fs::write(
        house.config().join("promos/later.toml"),
        later.replace("9.00", "8.00"),
    )
    .unwrap();
    let output = house.floodgate(&["publish", "2"]);
    assert!(
        words(&output).contains("changed after this process started"),
        "{}",
        words(&output)
    );
    assert_eq!(output.status.code(), Some(1));
}
