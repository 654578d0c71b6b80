//! Roles as processes of their own, as far as they refuse to start: what they lack, and what is no secret.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
